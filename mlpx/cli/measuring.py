"""``mlpx bench``: how fast a file runs here; ``mlpx tune``: the fastest honest way to run it on this machine."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .options import LISTED, AnyFile, Device, Dtype, File, Json, Seconds
from .terminal import format_duration, long_run, note, print_aligned, print_field, print_json, print_line

if TYPE_CHECKING:
    from runtime import BenchReport
    from runtime.session.tuning_file import FileTuning, Measured, Tuning


def bench(
    file: AnyFile,
    batch: Annotated[list[int] | None, "ROWS", "Rows per call; may be repeated. Default: 1, 32, 1024."] = None,
    seconds: Seconds = 10.0,
    data: Annotated[Path | None, f"Rows to measure on ({LISTED}); default: seeded normal ones."] = None,
    dtype: Dtype = None,
    device: Device = "auto",
    threads: Annotated[int | None, "Threads per call.", 1, 1024] = None,
    spin_us: Annotated[
        int | None, "MICROSECONDS", "Microseconds that an idle thread spins before it sleeps.", 0
    ] = None,
    workers: Annotated[int | None, "Threads that divide a large batch between them.", 1, 1024] = None,
    chunk_rows: Annotated[int | None, "ROWS", "Rows per piece of a large batch.", 1] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast FILE runs, beside plain ONNX Runtime and, where they are installed, OpenVINO and tract."""
    from runtime.session.trial import trial

    with trial(file, device):
        from runtime import bench

    settings = {"threads": threads, "spin_us": spin_us, "workers": workers, "chunk_rows": chunk_rows}
    how: dict[str, Any] = {"batches": batch or (), "seconds": seconds, "data": data, "dtype": dtype, "device": device}
    with long_run() as progress:
        report = bench(file, **how, settings=settings, progress=partial(progress.show, "measuring"))
    if as_json:
        print_json(report)
    else:
        _print_bench(report)


def _print_bench(report: "BenchReport") -> None:
    print_line(f"{report.path} on {report.device}, {report.multiply_adds:,} multiply-adds a row, on {report.rows}")
    print_line("Session: " + ", ".join(f"{name} {value}" for name, value in report.settings.items()))
    rows: list[tuple[object, ...]]
    rows = [("batch", "contender", "median", "p99", "rows/s", "CPU per call", "over plain run")]
    for figures in report.batches:
        for row in figures.contenders:
            median, p99, cpu = (f"{format_duration(us / 1e6):>9}" for us in (row.median_us, row.p99_us, row.cpu_us))
            ratio = f"{row.over_plain.median:.2f} ({row.over_plain.low:.2f} to {row.over_plain.high:.2f})"
            rows.append((figures.batch, row.name, median, p99, round(row.rows_per_s), cpu, ratio))
    print_aligned(rows)
    for figures in report.batches:
        note(*(f"left out at batch {figures.batch:,}: {c.name}: {c.reason}" for c in figures.left_out))
    if report.load is not None:
        note(f"note: {report.load}")


@dataclass
class TuneOptions:
    """Options by their names in ``export.tune``."""

    data: Annotated[Path | None, f"Rows like those of the traffic ({LISTED})."] = None
    batch: Annotated[int | None, "ROWS", "Rows per call; default: 1, or what the file fixes.", 1, 2**24] = None
    rate: Annotated[float | None, "CALLS", "Calls per second; default: back to back."] = None
    max_error: Annotated[float | None, "Try reduced precision whose outputs differ by at most this from FILE's."] = None
    max_changed_labels: Annotated[
        float | None,
        "SHARE",
        "Try reduced precision that changes the labels of at most this share of the rows, 0 to 1.",
    ] = None
    folder: Annotated[Path | None, "-o", "--output", "FOLDER", "The folder to write to; default: FILE's."] = None
    seconds: Seconds = 20.0
    dtype: Dtype = None
    plot: Annotated[
        bool | None, "--plot/--no-plot", "Write NAME.tuning.png; default: if mlpx[report] is installed."
    ] = None


def tune(file: File, options: TuneOptions, as_json: Json = False) -> None:
    """Measure how FILE runs fastest here for this traffic, and write NAME.tuning.json, which Session reads."""
    from runtime.session.trial import trial

    with trial(file, "cpu"):
        from export import tune
        from runtime import through_link

    with long_run() as progress:
        tuning = tune(file, **vars(options), progress=progress.show)
    if as_json:
        print_json(json.loads(tuning.to_json()))
        return
    _print_tuning(tuning)
    file = through_link(file)
    folder = options.folder if options.folder is not None else file.parent
    names = [f"{file.stem}.tuning.json", f"{file.stem}.tuning.png"]
    names += [variant.name for variant in tuning.files[1:] if variant.kept]
    note(f"written to {', '.join(str(folder / name) for name in names if (folder / name).exists())}")


def _print_tuning(tuning: "Tuning") -> None:
    batch = "1 row" if tuning.batch == 1 else f"{tuning.batch:,} rows"
    pace = "back to back" if tuning.rate is None else f"{tuning.rate:g} calls a second"
    machine = tuning.machine
    print_line(f"{tuning.model}, calls of {batch}, {pace}")
    print_line(f"on {machine['processor']}, {machine['cores']} cores, ONNX Runtime {machine['onnxruntime']}")
    heads = ("settings", "latency", "p99", "cpu a call")
    rows = [_file_row(file, tuning) for file in tuning.files]
    print_aligned([("file", *heads, "bytes", "error", "labels changed", ""), *rows])
    print_line("settings of the file itself, the fastest first")
    ordered = sorted(tuning.file("float32").measured, key=lambda measured: measured.latency)
    print_aligned([heads, *map(_figures, ordered)])
    if tuning.chosen != "float32":
        how = "not proved equal, measured: open it by its name, no other file is opened for you"
        print_field("fastest", f"{tuning.file(tuning.chosen).name}, {how}")
    print_field("refused", *(f"{file.kind}: {file.why}" for file in tuning.files if file.why is not None))
    print_field("note", *tuning.notes)


def _file_row(file: "FileTuning", tuning: "Tuning") -> tuple[object, ...]:
    verdict = "refused" if not file.kept else "chosen" if file.kind == tuning.chosen else ""
    error = "0" if file.kind == "float32" else "-" if file.error is None else f"{file.error:.3g}"
    labels = "-" if file.changed_labels is None else f"{100 * file.changed_labels:.3g} %"
    size: object = file.size if file.size is not None else "-"
    figures = ("-",) * 4 if file.best is None else _figures(file.best)
    return (file.kind, *figures, size, error, labels, verdict)


def _figures(measured: "Measured") -> tuple[str, ...]:
    """The settings that differ from the rule, and the times per call with them."""
    settings = {name: value for name, value in vars(measured.settings).items() if value is not None}
    listed = ", ".join(f"{name} {value}" for name, value in settings.items()) or "the rule's"
    return (listed, *map(format_duration, (measured.latency, measured.p99, measured.cpu)))
