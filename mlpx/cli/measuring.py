"""``mlpx bench``: how fast a file runs here; ``mlpx tune``: the fastest honest way to run it on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .options import LISTED, AnyFile, Device, Dtype, File, Json
from .terminal import duration, long_run, note, print_aligned, print_json, tell

if TYPE_CHECKING:
    from runtime import BenchReport
    from runtime.session.tuning_file import FileTuning, Measured, Tuning


def bench(
    file: AnyFile,
    batch: Annotated[list[int] | None, "Rows of a call; may be given again. 1, 32, 1024 if left out."] = None,
    seconds: Annotated[float, "How long to measure, in all."] = 10.0,
    data: Annotated[Path | None, f"Rows to measure on ({LISTED}); seeded normal ones if left out."] = None,
    dtype: Dtype = None,
    device: Device = "auto",
    threads: Annotated[int | None, "Threads of a call.", 1, 1024] = None,
    spin_us: Annotated[int | None, "Microseconds that an idle thread waits busily; 0: not at all.", 0] = None,
    workers: Annotated[int | None, "Threads that share a large batch.", 1, 1024] = None,
    chunk_rows: Annotated[int | None, "Rows of one piece of a large batch.", 1] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast FILE runs, beside plain ONNX Runtime and, where they are installed, OpenVINO and tract."""
    from runtime import bench

    settings = {"threads": threads, "spin_us": spin_us, "workers": workers, "chunk_rows": chunk_rows}
    how = {"batches": batch or (), "seconds": seconds, "data": data, "dtype": dtype, "device": device}
    with long_run() as progress:
        report = bench(file, **how, settings=settings, progress=progress)
    if as_json:
        print_json(report)
    else:
        _tell_bench(report)


def _tell_bench(report: "BenchReport") -> None:
    print(f"{report.path} on {report.device}, {report.multiply_adds:,} multiply-adds a row, on {report.rows}")
    print("Session: " + ", ".join(f"{name} {value}" for name, value in report.settings.items()))
    rows: list[tuple[object, ...]]
    rows = [("batch", "contender", "median", "p99", "rows/s", "CPU per call", "over plain run")]
    for figures in report.batches:
        for one in figures.contenders:
            times = [f"{duration(value / 1e6):>9}" for value in (one.median_us, one.p99_us, one.cpu_us)]
            ratio = f"{one.over_plain.median:.2f} ({one.over_plain.low:.2f} to {one.over_plain.high:.2f})"
            rows.append((figures.batch, one.name, times[0], times[1], round(one.rows_per_s), times[2], ratio))
    print_aligned(rows)
    for figures in report.batches:
        note(*(f"left out at batch {figures.batch:,}: {one.name}: {one.reason}" for one in figures.left_out))


@dataclass
class Traffic:
    """Options by their names in ``export.tune``."""

    data: Annotated[Path | None, f"Rows like those of the traffic ({LISTED})."] = None
    batch: Annotated[int | None, "Rows of a call; 1 if left out, or what the file fixes.", 1, 2**24] = None
    rate: Annotated[float | None, "Calls a second; back to back if left out."] = None
    max_error: Annotated[
        float | None, "Try files of reduced precision; no output may be further than this from FILE's."
    ] = None
    max_changed_labels: Annotated[
        float | None, "The same; no larger share of the rows may get another label, 0 to 1."
    ] = None
    folder: Annotated[Path | None, "-o", "--output", "The folder to write to; that of FILE if left out."] = None
    seconds: Annotated[float, "How long to measure."] = 20.0
    dtype: Dtype = None
    plot: Annotated[bool | None, "Write NAME.tuning.png; if mlpx\\[report] is there, by default."] = None


def tune(file: File, traffic: Traffic, as_json: Json = False) -> None:
    """Measure how FILE runs fastest here for this traffic, and write NAME.tuning.json, which Session reads."""
    from export import tune
    from runtime import through_link

    with long_run() as progress:
        tuning = tune(file, **vars(traffic), progress=lambda what, done, of: progress(done, of, what))
    if as_json:
        print_json(json.loads(tuning.to_json()))
        return
    _tell_tuning(tuning)
    file = through_link(file)
    folder = traffic.folder if traffic.folder is not None else file.parent
    names = [f"{file.stem}.tuning.json", f"{file.stem}.tuning.png"]
    names += [one.name for one in tuning.files[1:] if one.kept]
    note(f"written to {', '.join(str(folder / name) for name in names if (folder / name).exists())}")


def _tell_tuning(tuning: "Tuning") -> None:
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
