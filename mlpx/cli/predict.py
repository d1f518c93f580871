"""``mlpx predict``: a file of rows into a file of results."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from .interrupts import ending_cleanly
from .on_ray import Address, Engine, Keep, Workers, on_ray, predict_folder
from .options import Device, Dtype, Json, note, print_json


class OnError(StrEnum):
    """What happens to rows that cannot be read."""

    fail = "fail"
    null = "null"


def command(
    file: Annotated[Path, typer.Argument(help="An ONNX file.")],
    data: Annotated[Path, typer.Argument(help="The rows: a .npy, .npz, .csv, .parquet or .arrow file, of any size.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write: .npy, .npz, .csv, .parquet or .arrow; CSV on standard output if left out.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads; all cores that may be used if left out (on Ray, 1).")
    ] = None,
    chunk_rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows run at a time; says of a file that mlpx did not write that its rows stand alone."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Values outside the ranges that FILE declares are an error, not a note.")
    ] = False,
    on_error: Annotated[
        OnError, typer.Option(help="Rows that cannot be read end the command (fail), or get empty results (null).")
    ] = OnError.fail,
    reject_nonfinite: Annotated[
        bool, typer.Option("--reject-nonfinite", help="NaN and infinity cannot be read either; else they are counted.")
    ] = False,
    engine: Engine = "here",
    address: Address = "local",
    workers: Workers = None,
    keep: Keep = None,
    as_json: Json = False,
) -> None:
    """Score the rows of DATA with the model in FILE."""
    from runtime import Session, score_file

    if on_ray(engine, address=address, workers=workers, keep=keep):
        if chunk_rows is not None:
            raise typer.BadParameter("--chunk-rows is for one machine; on Ray a part is whole row groups")
        same = {"device": device, "dtype": dtype, "strict": strict, "on_error": on_error.value}
        same |= {"reject_nonfinite": reject_nonfinite, "threads": threads or 1}
        predict_folder(file, data, output, as_json, same, address=address, workers=workers, keep=keep or ())
        return
    if as_json and output is None:
        raise typer.BadParameter("--json needs an output file, since the results go to standard output without one")
    with (
        ending_cleanly(),
        Session(file, device, threads=threads, chunk_rows=chunk_rows) as session,
        _progress() as progress,
    ):
        report = score_file(
            session,
            data,
            output,
            dtype=dtype,
            strict=strict,
            on_error=on_error.value,
            reject_nonfinite=reject_nonfinite,
            progress=progress,
        )
    for words in (report.failed_words, report.nonfinite_words, report.outside_words):
        if words is not None:
            note(f"note: {words}")
    if strict and not report.declares_ranges:
        note(f"note: {file} declares no ranges, so --strict had nothing to check")
    if as_json:
        record = asdict(report)
        for found in [*record["outside"], record["nonfinite"] or {"value": 0.0}]:
            if not isfinite(found["value"]):
                found["value"] = str(found["value"])  # JSON has no such number
        print_json(record)
        return
    speed = f"{report.seconds:.2f} s, {report.rows_per_second:,.0f} rows/s"
    note(f"{report.rows:,} rows on {report.device}, {report.matched}, {speed}")
    if report.output is not None:
        note(f"written to {report.output}")


@contextmanager
def _progress() -> Iterator[Callable[[int, float], None] | None]:
    """A bar with rows per second on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            rows, seconds = task.fields["rows"], task.elapsed or 0.0
            return Text(f"{rows:,} rows, {rows / seconds:,.0f} rows/s" if seconds else "")

    columns: list[Any] = [TextColumn("scoring"), BarColumn(), Speed(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None, rows=0)

        def told(rows: int, share: float) -> None:
            bars.update(bar, total=1.0 if share else None, completed=share, rows=rows)

        yield told
