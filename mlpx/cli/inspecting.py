"""``mlpx inspect``: what a file contains; ``mlpx doctor``: what is installed, and what is missing."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Exit

from mlpx.exit_codes import MACHINE_LACKS

from .contracts import show_contract
from .options import LISTED, AnyFile, Dtype, Json, refuse
from .terminal import print_aligned, print_json, print_line

_MAX_NAMES = 12

if TYPE_CHECKING:
    from export import Inspection
    from export.block_settings import Setting
    from mlpx.extras import Extra
    from runtime import Port
    from runtime.model.bound import Bound
    from runtime.model.port import Vocabulary


def inspect(
    file: AnyFile,
    data: Annotated[Path | None, f"Rows to count dead ReLU units on ({LISTED})."] = None,
    dtype: Dtype = None,
    contract: Annotated[
        bool, "Show every feature with what FILE applies to it, for the program that calls it."
    ] = False,
    output: Annotated[Path | None, "FILE", "With --contract: the YAML file to write it to."] = None,
    as_json: Json = False,
) -> None:
    """Show the name, inputs, outputs, blocks, figures, metadata and remarks of FILE."""
    refuse(
        (output is not None and not contract, "-o goes with --contract: it is the YAML file to write"),
        (contract and data is not None, "--data counts dead ReLU units, and does not go with --contract"),
    )
    if contract:
        show_contract(file, output, as_json)
        return
    from runtime.session.trial import trial

    with trial(file, "cpu", trusted=None if data is not None else True):  # without data it is not run
        from export.inspection import inspect

    inspection = inspect(file, data=data, dtype=dtype)
    if as_json:
        summary = inspection.summary
        totals = {"parameters": summary.parameters, "multiply_adds": summary.multiply_adds}
        print_json(asdict(inspection) | totals)
    else:
        _print_inspection(inspection)


def _print_inspection(inspection: "Inspection") -> None:
    from runtime.model.port import format_number

    summary = inspection.summary
    writer = f"mlpx {summary.mlpx_version}" if inspection.own else "another tool"
    print_line(f"{summary.name}, written by {writer}")
    target = f", for {summary.target}" if summary.target else ""
    figures = [
        ("file", f"{inspection.path} ({inspection.size:,} bytes)"),
        *(("input", _format_port(port)) for port in summary.inputs),
        *(("output", _format_port(port)) for port in summary.outputs),
        ("opset", f"{summary.opset}, IR {summary.ir_version}{target}"),
        ("period", f"{format_number(summary.period)} s" if summary.period is not None else None),
        ("size", f"{summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds a row"),
        ("weights", f"sha256 {summary.weights_sha256}" if summary.weights_sha256 else None),
        ("rows", "depend on each other: batches are never divided" if summary.rows_depend else None),
        ("variant", _format_variant(summary.variant) if summary.variant else None),
        ("bound", _format_bound(inspection.bound) if inspection.bound else None),
        ("dropped", _format_dropped(inspection.dropped) if inspection.dropped else None),
        *(("metadata", f"{key} = {value}") for key, value in summary.metadata.items()),
    ]
    print_aligned([row for row in figures if row[1] is not None])
    for port in (*summary.inputs, *summary.outputs):
        _print_features(port)
    print_line("blocks")
    blocks = [(b.path, b.op, _format_shape(b.output_shape), b.parameters, b.multiply_adds) for b in summary.blocks]
    settings = [_format_settings(inspection.settings.get(b.path, {})) for b in summary.blocks]
    rows = [("path", "block", "shape of a row", "parameters", "multiply-adds"), *blocks]
    shown = [("settings",), *((each,) for each in settings)] if any(settings) else [()] * len(rows)
    print_aligned([(*row, *more) for row, more in zip(rows, shown, strict=True)])
    for title, lines in (("folded", summary.folded), ("remarks", summary.remarks)):
        if lines:
            print_line(title, *(f"  {line}" for line in lines))
    if inspection.dead is not None:
        print_line(f"dead ReLU units, over {inspection.rows:,} rows")
        if not inspection.dead:
            print_line("  the file has no ReLU")
        for layer in inspection.dead:
            listed = f": {', '.join(map(str, layer.units))}" if layer.units else ""
            print_line(f"  {layer.path}: {len(layer.units)} of {layer.width}{listed}")


def _format_variant(record: dict[str, Any]) -> str:
    rows = f", ranges from {record['calibration_rows']:,} rows" if "calibration_rows" in record else ""
    return f"{record.get('kind')} of {record.get('source')} ({record.get('way')}{rows}): {record.get('label')}"


def _format_settings(settings: Mapping[str, "Setting"]) -> str:
    """``negative_slope 0.01``; of a number for each feature the lowest and the highest, and how many have none."""
    from runtime.model.port import format_number, format_range

    words: list[str] = []
    for name, value in settings.items():
        if isinstance(value, tuple):
            known = [number for number in value if number is not None]
            count = f"{len(known):,} of {len(value):,} features" if None in value else f"{len(value):,} values"
            words.append(f"{name} {format_range((min(known), max(known)))} ({count})")
        else:
            words.append(f"{name} {format_number(value)}")
    return ", ".join(words)


def _format_dropped(dropped: Mapping[str, float]) -> str:
    listed = [f"'{path}' with p {p:g}" for path, p in dropped.items()]
    more = f", … {len(listed) - _MAX_NAMES:,} more" if len(listed) > _MAX_NAMES else ""
    return f"dropout {', '.join(listed[:_MAX_NAMES])}{more}, for training alone"


def _format_bound(bound: "Bound") -> str:
    from runtime.model.bound import format_bound

    return format_bound(bound)


def _has_limits(port: "Port") -> bool:
    """Whether its features have more than names: units, ranges, indices, descriptions or categories."""
    return port.features is not None and any(
        (port.units, port.ranges, port.indices, port.descriptions, port.categories)
    )


def _print_features(port: "Port") -> None:
    if port.features is None or not _has_limits(port):
        return
    unknown = (None,) * len(port.features)
    listed = (port.units, port.ranges, port.indices, port.descriptions, port.categories)
    rows = [
        (name, unit or "", _format_range(index or range_ or port.range), description or "", _format_words(category))
        for name, unit, range_, index, description, category in zip(
            port.features, *(each or unknown for each in listed), strict=True
        )
    ]
    print_line(f"features of {port.name}")
    shown = (0, 1, 2, *((3,) if port.descriptions else ()), *((4,) if port.categories else ()))
    titles = ("name", "unit", "range", "description", "categories")
    print_aligned([tuple(row[column] for column in shown) for row in (titles, *rows[:_MAX_NAMES])])
    if len(rows) > _MAX_NAMES:
        print_line(f"  … {len(rows) - _MAX_NAMES:,} more, all with --json")


def _format_words(vocabulary: "Vocabulary | None") -> str:
    if vocabulary is None:
        return ""
    words, more = ", ".join(vocabulary.words[:_MAX_NAMES]), len(vocabulary.words) - _MAX_NAMES
    others = f"; other words are {vocabulary.words[vocabulary.unknown]}" if vocabulary.unknown is not None else ""
    return words + (f" and {more:,} more, all with --json" if more > 0 else "") + others


def _format_range(limits: tuple[float, float] | None) -> str:
    from runtime.model.port import format_range

    return "" if limits is None else format_range(limits)


def _format_shape(shape: tuple[int | str, ...] | None) -> str:
    return "?" if shape is None else " x ".join(map(str, shape)) or "scalar"


def _format_port(port: "Port") -> str:
    text = f"{port.name} ({', '.join(map(str, port.shape))}) {port.dtype}"
    if port.range is not None:
        text += f", range {_format_range(port.range)}"
    if port.indices is not None and port.features is None:
        listed = [_format_range(limits) or "any" for limits in dict.fromkeys(port.indices)]
        text += f", indices {', '.join(listed[:_MAX_NAMES])}" + (", …" if len(listed) > _MAX_NAMES else "")
    if port.features is not None and not _has_limits(port):
        names = port.features
        text += f", named {f'{names[0]} to {names[-1]}' if len(names) > _MAX_NAMES else ', '.join(names)}"
    if port.missing:
        text += ", values may be missing (NaN)"
    if port.labels is not None:
        text += f", {port.scores} of {', '.join(port.labels)}"
    return text


def doctor(as_json: Json = False) -> None:
    """Show versions, the execution providers that really load, and how to install what is missing."""
    from mlpx.installation import examine

    report = examine()
    if as_json:
        installed = {name: {"installed": extra.installed, **asdict(extra)} for name, extra in report.extras.items()}
        print_json({**asdict(report), "extras": installed})
    else:
        print_line(f"python {report.python} on {report.system}")
        print_line("packages")
        print_aligned([(name, version or "not installed") for name, version in report.packages.items()])
        print_line("extras")
        print_aligned([(name, _format_extra(extra)) for name, extra in report.extras.items()])
        print_line("execution providers")
        print_aligned(list(report.providers.items()))
        for kind, lines in (("note", report.notes), ("problem", report.problems)):
            for line in lines:
                print_line(f"{kind}: {line}")
        print_line("no problem found" if not report.problems else f"{len(report.problems)} problems")
    if report.problems:
        raise Exit(MACHINE_LACKS)


def _format_extra(extra: "Extra") -> str:
    if extra.installed:
        return "installed"
    lacks = f"lacks {', '.join(extra.missing)}"
    return f"{lacks}: {extra.install}" if extra.install else f"{lacks}; not beside the other ONNX Runtime"


def print_versions(*, as_json: bool) -> None:
    """Print the versions that a report of a defect needs: ``mlpx --version``."""
    from mlpx.versions import versions

    found = versions()
    if as_json:
        print_json(found)
        return
    print_line(f"mlpx {found.mlpx}")
    runtimes = list(found.onnxruntime.items()) or [("onnxruntime", "not installed")]
    print_aligned(
        [
            ("python", found.python),
            ("platform", found.platform),
            ("numpy", found.numpy or "not installed"),
            *runtimes,
            ("providers", ", ".join(found.providers) or found.problem or "none"),
            ("torch", found.torch or "not installed"),
        ]
    )
