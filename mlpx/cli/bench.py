"""``mlpx bench``: how fast a file runs here."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .interrupts import ending_cleanly
from .options import Device, Dtype, Json, note, print_aligned, print_json

if TYPE_CHECKING:
    from runtime import BenchReport


def command(
    file: Annotated[Path, typer.Argument(help="An ONNX file, of mlpx or of any other tool.")],
    batch: Annotated[
        list[int] | None, typer.Option("--batch", help="Rows of a call; may be given again. 1, 32, 1024 if left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure, in all.")] = 10.0,
    data: Annotated[
        Path | None,
        typer.Option(help="Rows to measure on (.npy, .npz, .csv, .parquet); seeded normal ones if left out."),
    ] = None,
    dtype: Dtype = None,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads of a call.")] = None,
    spin_us: Annotated[
        int | None, typer.Option(min=0, help="Microseconds that an idle thread waits busily; 0: not at all.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads that share a large batch.")] = None,
    chunk_rows: Annotated[int | None, typer.Option(min=1, help="Rows of one piece of a large batch.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast FILE runs, beside plain ONNX Runtime and, where they are installed, OpenVINO and tract."""
    from runtime import bench

    given = {"threads": threads, "spin_us": spin_us, "workers": workers, "chunk_rows": chunk_rows}
    settings = {name: value for name, value in given.items() if value is not None}
    with ending_cleanly():
        report = bench(
            file,
            batches=batch or (),
            seconds=seconds,
            data=data,
            dtype=dtype,
            device=device,
            settings=settings,
            progress=_progress if sys.stderr.isatty() else lambda done, total: None,
        )
    if as_json:
        print_json(asdict(report))
    else:
        _tell(report)


def _progress(done: int, total: int) -> None:
    print(f"\r{100 * done // total:3d} %" if done < total else "\r     \r", end="", file=sys.stderr, flush=True)


def _tell(report: "BenchReport") -> None:
    print(f"{report.path} on {report.device}, {report.multiply_adds:,} multiply-adds a row, on {report.rows}")
    print("Session: " + ", ".join(f"{name} {value}" for name, value in report.settings.items()))
    heads = ("batch", "contender", "median", "p99", "rows/s", "CPU per call", "over plain run")
    rows: list[tuple[object, ...]] = [heads]
    for figures in report.batches:
        for one in figures.contenders:
            ratio = one.over_plain
            rows.append(
                (
                    figures.batch,
                    one.name,
                    f"{_time(one.median_us):>9}",
                    f"{_time(one.p99_us):>9}",
                    round(one.rows_per_s),
                    f"{_time(one.cpu_us):>9}",
                    f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
                )
            )
    print_aligned(rows)
    for figures in report.batches:
        for one in figures.left_out:
            note(f"left out at batch {figures.batch:,}: {one.name}: {one.reason}")


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.3g} µs" if microseconds < 100 else f"{microseconds:.0f} µs"
    milliseconds = microseconds / 1000
    return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:,.0f} ms"
