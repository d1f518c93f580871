"""``mlpx bench``: how fast a file runs here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from .options import LISTED, AnyFile, Device, Dtype, Json
from .terminal import duration, long_run, note, print_aligned, print_json

if TYPE_CHECKING:
    from runtime import BenchReport


def command(
    file: AnyFile,
    batch: Annotated[list[int] | None, "Rows of a call; may be given again. 1, 32, 1024 if left out."] = None,
    seconds: Annotated[float, "How long to measure, in all."] = 10.0,
    data: Annotated[Path | None, f"Rows to measure on ({LISTED}); seeded normal ones if left out."] = None,
    dtype: Dtype = None,
    device: Device = "auto",
    threads: Annotated[int | None, Option(min=1, max=1024, help="Threads of a call.")] = None,
    spin_us: Annotated[
        int | None, Option(min=0, help="Microseconds that an idle thread waits busily; 0: not at all.")
    ] = None,
    workers: Annotated[int | None, Option(min=1, max=1024, help="Threads that share a large batch.")] = None,
    chunk_rows: Annotated[int | None, Option(min=1, help="Rows of one piece of a large batch.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast FILE runs, beside plain ONNX Runtime and, where they are installed, OpenVINO and tract."""
    from runtime import bench

    settings = {"threads": threads, "spin_us": spin_us, "workers": workers, "chunk_rows": chunk_rows}
    settings = {name: value for name, value in settings.items() if value is not None}
    how = {"batches": batch or (), "seconds": seconds, "data": data, "dtype": dtype, "device": device}
    with long_run() as progress:
        report = bench(file, **how, settings=settings, progress=progress)
    if as_json:
        print_json(report)
    else:
        _tell(report)


def _tell(report: "BenchReport") -> None:
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
