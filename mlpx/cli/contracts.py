"""``mlpx inspect --contract``: a file feature by feature; ``mlpx recover --compare``: what differs between two."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import BadParameter, Exit

from mlpx.exit_codes import UNPROVED

from .terminal import note, note_left_out_last, print_aligned, print_field, print_json, print_line

if TYPE_CHECKING:
    from runtime.contracts import Contract
    from runtime.contracts.features import Feature, Interface


def show_contract(file: Path, output: Path | None, as_json: bool) -> None:
    """Print the contract of a file, or write it as YAML."""
    from runtime import write_whole
    from runtime.contracts import contract

    if output is not None and output.exists() and output.samefile(file):
        raise BadParameter(f"-o {output} is FILE itself. What to do: name the YAML file to write")
    found = contract(file)
    if output is not None:
        write_whole(output, found.to_yaml().encode())
    if as_json:
        print_json(found.to_record() | ({"path": output} if output is not None else {}))
    elif output is not None:
        note(f"written to {output}")
    else:
        _print_contract(found)


def _print_contract(contract: "Contract") -> None:
    from runtime.model.port import format_number

    print_line(f"{contract.name}, contract of {contract.source}")
    proof = contract.proof
    verdict = "no certificate beside it" if proof is None else f"{proof.verdict}, by {proof.file}"
    figures = [
        ("sha256", contract.sha256),
        ("proof", verdict),
        ("bound", proof.bound if proof is not None else None),
        ("period", f"{format_number(contract.period)} s" if contract.period is not None else None),
        ("layers", ", ".join(map(str, contract.layers))),
    ]
    print_aligned([row for row in figures if row[1]])
    for kind, place in (("input", "first"), ("output", "last")):
        for each in getattr(contract, f"{kind}s"):
            blocks = ", ".join(step.kind for step in each.steps) or "nothing"
            shape = ", ".join(map(str, each.port.shape))
            print_line(f"{kind} {each.port.name} ({shape}) {each.port.dtype}; applied {place} in the file: {blocks}")
            print_aligned(_table(each))


def _table(interface: "Interface") -> list[tuple[object, ...]]:
    """The features in rows, without the columns that none has."""
    from runtime.contracts.steps import DEFAULTS
    from runtime.model.bound import format_up
    from runtime.model.port import format_range

    def of(feature: "Feature") -> dict[str, object]:
        meaning = feature.meaning
        term = None if meaning is None or meaning.term == feature.name else meaning.term
        row: dict[str, object] = {"index": feature.index, "name": feature.name, "term": term}
        row |= {"joint": meaning and meaning.joint, "age": (meaning and meaning.age) or None, "unit": feature.unit}
        row |= {"range": feature.range and format_range(feature.range)}
        for kind, values in feature.applied:
            for role in DEFAULTS[kind]:
                name = f"{kind} {role}" if kind == "clip" else role
                while name in row:  # a second clip
                    name += "'"
                row[name] = str(values[role]) if role in values else None
        row |= {"bound": None if feature.bound is None else format_up(feature.bound)}
        return row | {"description": feature.description}

    rows = [of(feature) for feature in interface.features]
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] is not None for row in rows)]
    return [tuple(columns), *(tuple("" if row[name] is None else row[name] for name in columns) for row in rows)]


def show_comparison(first: Path, second: Path, options: Mapping[str, Any], as_json: bool) -> None:
    """Print what differs between two policies: exit code 0 equal, 1 not."""
    from export import compare

    found = compare(first, second, **options)
    if as_json:
        print_json(found.to_record())
    else:
        print_field("first", found.first)
        print_field("second", found.second)
        for difference in found.differences:
            print_field("differs", f"{difference.kind}: {difference.words}")
        print_field("verdict", "equal" if found.equal else "different")
        note_left_out_last(found.notes)
    if not found.equal:
        raise Exit(UNPROVED)
