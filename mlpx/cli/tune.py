"""``mlpx tune``: the fastest honest way to run a file on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from .options import LISTED, Dtype, File, Json
from .terminal import duration, long_run, note, print_aligned, print_json, tell

if TYPE_CHECKING:
    from runtime.tuning import FileTuning, Tuning
    from runtime.tuning.record import Measured


@dataclass
class Traffic:
    """Options by their names in ``export.tune``."""

    data: Annotated[Path | None, f"Rows like those of the traffic ({LISTED})."] = None
    batch: Annotated[
        int | None, Option(min=1, max=2**24, help="Rows of a call; 1 if left out, or what the file fixes.")
    ] = None
    rate: Annotated[float | None, "Calls a second; back to back if left out."] = None
    max_error: Annotated[
        float | None, "Try files of reduced precision; no output may be further than this from FILE's."
    ] = None
    max_changed_labels: Annotated[
        float | None, "The same; no larger share of the rows may get another label, 0 to 1."
    ] = None
    folder: Annotated[
        Path | None, Option("-o", "--output", help="The folder to write to; that of FILE if left out.")
    ] = None
    seconds: Annotated[float, "How long to measure."] = 20.0
    dtype: Dtype = None
    plot: Annotated[bool | None, "Write NAME.tuning.png; if mlpx\\[report] is there, by default."] = None


def command(file: File, traffic: Traffic, as_json: Json = False) -> None:
    """Measure how FILE runs fastest here for this traffic, and write NAME.tuning.json, which Session reads."""
    from export import tune
    from runtime import through_link

    with long_run() as progress:
        tuning = tune(file, **vars(traffic), progress=lambda what, done, of: progress(done, of, what))
    if as_json:
        print_json(json.loads(tuning.to_json()))
        return
    _tell(tuning)
    file = through_link(file)
    folder = traffic.folder if traffic.folder is not None else file.parent
    names = [f"{file.stem}.tuning.json", f"{file.stem}.tuning.png"]
    names += [one.name for one in tuning.files[1:] if one.kept]
    note(f"written to {', '.join(str(folder / name) for name in names if (folder / name).exists())}")


def _tell(tuning: "Tuning") -> None:
    rows = "1 row" if tuning.batch == 1 else f"{tuning.batch:,} rows"
    pace = "back to back" if tuning.rate is None else f"{tuning.rate:g} calls a second"
    machine = tuning.machine
    print(f"{tuning.model}, calls of {rows}, {pace}")
    print(f"on {machine['processor']}, {machine['cores']} cores, ONNX Runtime {machine['onnxruntime']}")
    heads = ("settings", "latency", "p99", "cpu a call")
    files = [_row(one, tuning) for one in tuning.files]
    print_aligned([("file", *heads, "bytes", "error", "labels changed", ""), *files])
    print("settings of the file itself, the fastest first")
    ordered = sorted(tuning.file("float32").measured, key=lambda one: one.latency)
    print_aligned([heads, *map(_figures, ordered)])
    if tuning.chosen != "float32":
        name = tuning.file(tuning.chosen).name
        tell("fastest", f"{name}, not proved equal, measured: open it by its name, no other file is opened for you")
    tell("refused", *(f"{one.kind}: {one.why}" for one in tuning.files if one.why is not None))
    tell("note", *tuning.notes)


def _row(file: "FileTuning", tuning: "Tuning") -> tuple[object, ...]:
    verdict = "refused" if not file.kept else "chosen" if file.kind == tuning.chosen else ""
    error = "0" if file.kind == "float32" else "-" if file.error is None else f"{file.error:.3g}"
    labels = "-" if file.changed_labels is None else f"{100 * file.changed_labels:.3g} %"
    size: object = file.size if file.size is not None else "-"
    figures = ("-",) * 4 if file.best is None else _figures(file.best)
    return (file.kind, *figures, size, error, labels, verdict)


def _figures(measured: "Measured") -> tuple[str, ...]:
    """The settings that differ from the rule, and the times of a call with them."""
    settings = {name: value for name, value in vars(measured.settings).items() if value is not None}
    listed = ", ".join(f"{name} {value}" for name, value in settings.items()) or "the rule's"
    return (listed, duration(measured.latency), duration(measured.p99), duration(measured.cpu))
