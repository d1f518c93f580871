"""``mlpx bound``: how far a runtime may be from the exact network, for every input of a box. And how it is printed."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import BadParameter

from .options import LISTED, Device, Dtype, Json, Weights, refuse
from .terminal import print_aligned, print_field, print_json, print_line

if TYPE_CHECKING:
    from export.bounds.report import BoundReport


@dataclass
class QueryOptions:
    """A query for verifiers of real arithmetic, with the bound as its margin."""

    vnnlib: Annotated[Path | None, "FILE", "Write a query for verifiers of networks, with the bound as margin."] = None
    vnnlib_version: Annotated[Literal["2.0", "1.0"], "The version of the query."] = "2.0"
    around: Annotated[str | None, "FILE:ROW", "The box around a row of a data file, from 1 on; with --eps."] = None
    eps: Annotated[float | None, "X", "How far each feature may be from that row."] = None
    within: Annotated[
        tuple[float, float] | None, "LOW HIGH", "Ask whether every output stays within limits, not for a label."
    ] = None


_MOST_VALUES, _MOST_LAYERS = 12, 8


def bound(
    file: Annotated[Path, "A proved ONNX file, with its NAME.parity.json."],
    spec: Annotated[Path | None, "The spec of its network, where that cannot be read back from FILE."] = None,
    weights: Weights = None,
    module: Annotated[
        str | None, "MODULE", "package.module:factory or path/to/file.py:name instead. Its code is run."
    ] = None,
    method: Annotated[str, "NAME", "The method of the module that FILE was made of."] = "forward",
    certificate: Annotated[Path | None, "The certificate of FILE; default: NAME.parity.json beside it."] = None,
    range_: Annotated[
        tuple[float, float] | None, "--range", "LOW HIGH", "The box: for every feature; default: the declared ranges."
    ] = None,
    seconds: Annotated[float, "SECONDS", "How long to make the bound smaller, about.", 0.0] = 2.0,
    data: Annotated[
        Path | None, f"Rows for a classifier: how many have a margin that no runtime can turn ({LISTED})."
    ] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    *,
    queried: QueryOptions,
    as_json: Json = False,
) -> None:
    """Bound the error of any correct float32 runtime of FILE, against its network in exact arithmetic, over a box."""
    refuse(
        (spec is not None and module is not None, "give --spec or --module, not both"),
        (spec is None and weights is not None, "--weights goes with --spec"),
        ((queried.around is None) != (queried.eps is None), "--around FILE:ROW and --eps go together"),
        (queried.vnnlib is None and queried.within is not None, "--within goes with --vnnlib"),
    )
    from runtime.session.trial import trial

    with trial(file, device):  # in a process of its own, while these are imported
        from export import bound as bound_file
        from export import load_module
        from export.bounds.queries import around_row, query, refuse_whole_numbers
        from runtime import write_whole

        from .networks import load_network
    network = None
    if spec is not None:
        _, network, _ = load_network(spec, weights, dtype=dtype, may_be_random=False)
    elif module is not None:
        network = load_module(module)
    if queried.vnnlib is not None:
        refuse_whole_numbers(file)
    around = None
    if queried.around is not None and queried.eps is not None:
        source, row = _row_of(queried.around)
        around = around_row(file, source, row, queried.eps, within=range_, dtype=dtype)
    box = range_ if around is None else around.ranges
    options: dict[str, Any] = {"ranges": box, "seconds": seconds, "certificate": certificate, "data": data}
    report = bound_file(file, network, device=device, dtype=dtype, method=method, **options)
    if queried.vnnlib is not None:
        asked: dict[str, Any] = {} if around is None else {"label": around.label, "threshold": around.threshold}
        text = query(report, **asked, within=queried.within, version=queried.vnnlib_version)
        write_whole(queried.vnnlib, text.encode())
    if as_json:
        print_json(report)
        return
    print_bound(report)
    if queried.vnnlib is not None:
        print_field("query", f"{queried.vnnlib}, VNN-LIB {queried.vnnlib_version}: unsat means that it holds")
    if report.why is None:
        _print_details(report)


def _row_of(text: str) -> tuple[Path, int]:
    source, _, number = text.rpartition(":")
    if not source or not number.isdecimal():
        raise BadParameter(f"'{text}' is not FILE:ROW, such as rows.csv:1", param_hint="--around")
    return Path(source), int(number)


def print_bound(report: "BoundReport") -> None:
    """Print the bound in a line or two, as every command shows it."""
    from runtime.model.bound import format_bound, read_bound

    found = read_bound(report.model_dump(mode="json"), report.sha256)
    print_field("bound", format_bound(found))
    if report.labels is not None:
        print_field("", _format_labels(report))


def _format_labels(report: "BoundReport") -> str:
    from runtime.model.bound import format_up

    labels = report.labels
    assert labels is not None
    words = f"no correct runtime changes a label whose exact margin is above {format_up(labels.margin)}"
    if labels.rows is not None:
        words += f": {labels.above:,} of {labels.rows:,} rows of the data are"
    return words


def _print_details(report: "BoundReport") -> None:
    """The bound of each value, of each step, and of each layer."""
    from runtime.model.bound import format_up

    if report.ratio is not None:
        print_field("", f"the bound is {report.ratio:,.3g} times the largest error seen")
    for name, output in report.outputs.items():
        values = list(zip(output.bound, output.seen, output.interval, strict=True))
        rows = [
            (str(index), format_up(bound), f"{seen:.3g}", f"{low:.4g} to {high:.4g}")
            for index, (bound, seen, (low, high)) in enumerate(values[:_MOST_VALUES])
        ]
        print_line(f"output {name}")
        print_aligned([("value", "bound", "seen", "exact values within"), *rows])
        if len(values) > _MOST_VALUES:
            print_line(f"  … {len(values) - _MOST_VALUES:,} more, all with --json")
        if output.folding is not None:
            print_line(f"  folding moved the file from its module by at most {format_up(max(output.folding))} besides")
    print_line("steps")
    steps = [(step.name, format_up(step.bound), f"{step.seconds:.2f} s", step.words) for step in report.steps]
    print_aligned([("step", "largest bound", "took", "how"), *steps])
    total = sum(layer.error for layer in report.layers)
    if total > 0:
        print_line("where it comes from, by sensitivities")
        most = sorted(report.layers, key=lambda layer: -layer.error)[:_MOST_LAYERS]
        rows = [(layer.path, layer.op, f"{layer.error / total:.0%}") for layer in most]
        print_aligned([("layer", "operator", "share"), *rows])
