"""``mlpx tune``: the fastest honest way to run a file on this machine."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .interrupts import ending_cleanly
from .options import Dtype, Json, note, print_aligned

if TYPE_CHECKING:
    from runtime.tuning import FileTuning, Tuning
    from runtime.tuning.record import Measured


def command(
    file: Annotated[Path, typer.Argument(help="An ONNX file.")],
    data: Annotated[
        Path | None, typer.Option(help="Rows like those of the traffic (.npy, .npz, .csv, .parquet).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=2**24, help="Rows of a call; 1 if left out, or what the file fixes.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Calls a second; back to back if left out.")] = None,
    max_error: Annotated[
        float | None,
        typer.Option(help="Try files of reduced precision; no output may be further than this from FILE's."),
    ] = None,
    max_changed_labels: Annotated[
        float | None, typer.Option(help="The same; no larger share of the rows may get another label, 0 to 1.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write to; that of FILE if left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 20.0,
    dtype: Dtype = None,
    plot: Annotated[
        bool | None,
        typer.Option("--plot/--no-plot", help="Write NAME.tuning.png; if mlpx\\[report] is there, by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how FILE runs fastest here for this traffic, and write NAME.tuning.json, which Session reads."""
    from export import tune
    from runtime import through_link

    with ending_cleanly(), _progress() as progress:
        found = tune(
            file,
            data=data,
            batch=batch,
            rate=rate,
            max_error=max_error,
            max_changed_labels=max_changed_labels,
            folder=output,
            seconds=seconds,
            dtype=dtype,
            plot=plot,
            progress=progress,
        )
    if as_json:
        print(json.dumps(json.loads(found.to_json()), indent=2, ensure_ascii=False))
        return
    _tell(found)
    file = through_link(file)
    folder = output if output is not None else file.parent
    names = [f"{file.stem}.tuning.json", f"{file.stem}.tuning.png"]
    names += [one.name for one in found.files[1:] if one.kept]
    note(f"written to {', '.join(str(folder / name) for name in names if (folder / name).exists())}")


def _tell(found: "Tuning") -> None:
    rows = "1 row" if found.batch == 1 else f"{found.batch:,} rows"
    pace = "back to back" if found.rate is None else f"{found.rate:g} calls a second"
    machine = found.machine
    print(f"{found.model}, calls of {rows}, {pace}")
    print(f"on {machine['processor']}, {machine['cores']} cores, ONNX Runtime {machine['onnxruntime']}")
    heads = ("file", "settings", "latency", "p99", "cpu a call", "bytes", "error", "labels changed", "")
    print_aligned([heads, *(_row(one, found) for one in found.files)])
    exact = found.file("float32")
    print("settings of the file itself, the fastest first")
    ordered = sorted(exact.measured, key=lambda one: one.latency)
    print_aligned(
        [("settings", "latency", "p99", "cpu a call")]
        + [(_settings(one), _time(one.latency), _time(one.p99), _time(one.cpu)) for one in ordered]
    )
    if found.chosen != "float32":
        name = found.file(found.chosen).name
        print(f"fastest   {name}, not proved equal, measured: open it by its name, no other file is opened for you")
    for one in found.files:
        if one.why is not None:
            print(f"refused   {one.kind}: {one.why}")
    for line in found.notes:
        print(f"note      {line}")


def _row(one: "FileTuning", found: "Tuning") -> tuple[object, ...]:
    verdict = "refused" if not one.kept else "chosen" if one.kind == found.chosen else ""
    error = "0" if one.kind == "float32" else "-" if one.error is None else f"{one.error:.3g}"
    labels = "-" if one.changed_labels is None else f"{100 * one.changed_labels:.3g} %"
    size: object = one.size if one.size is not None else "-"
    if one.best is None:
        return (one.kind, "-", "-", "-", "-", size, error, labels, verdict)
    best = one.best
    times = (_time(best.latency), _time(best.p99), _time(best.cpu))
    return (one.kind, _settings(best), *times, size, error, labels, verdict)


def _settings(one: "Measured") -> str:
    """What differs from the rule."""
    given = {name: value for name, value in vars(one.settings).items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in given.items()) or "the rule's"


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], object] | None]:
    """A bar on a terminal, and nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)
