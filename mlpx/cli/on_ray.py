"""``mlpx predict --engine ray``: a folder of rows into a folder of results, by the workers of a cluster."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from .interrupts import ending_cleanly
from .options import note, print_json

Engine = Annotated[str, typer.Option(help="here, or ray: Parquet files in, a folder of them out, on a Ray cluster.")]
Address = Annotated[
    str,
    typer.Option(help="The cluster: local (started for this), auto (that runs here), host:port or ray://host:port."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Workers on Ray, each with --threads CPUs (1 if left out); all that fit if left out."),
]
Keep = Annotated[
    list[str] | None, typer.Option(help="On Ray: a column of DATA to have in the results too; may be repeated.")
]


def on_ray(engine: str, **only_there: Any) -> bool:
    """Whether Ray is asked for. An option that needs it is an error without."""
    if engine not in ("here", "ray"):
        raise typer.BadParameter(f"--engine is here or ray, not '{engine}'")
    given = [name for name, value in only_there.items() if value not in (None, [], "local")]
    if engine == "here" and given:
        raise typer.BadParameter(f"--{given[0]} needs --engine ray")
    return engine == "ray"


def predict_folder(
    file: Path, data: Path, output: Path | None, as_json: bool, same: dict[str, Any], **where: Any
) -> None:
    """Score DATA on Ray with the options that are the ``same`` here and there, and tell what was done."""
    from runtime import score_folder

    if output is None:
        raise typer.BadParameter("--engine ray needs a folder for the results: -o FOLDER")
    with ending_cleanly(), _progress() as progress:
        report = score_folder(file, data, output, progress=progress, **same, **where)
    for words in report.notes:
        note(f"note: {words}")
    if same["strict"] and not report.declares_ranges:
        note(f"note: {file} declares no ranges, so --strict had nothing to check")
    if report.repeated:
        note(
            f"note: {report.repeated:,} of the {len(report.parts):,} parts had to be scored again, since a worker died"
        )
    if as_json:
        print_json(asdict(report))
        return
    speed = f"{report.rows / max(report.scoring_seconds, 1e-9):,.0f} rows/s"
    who = f"{report.workers:,} workers on {', '.join(report.devices)}"
    note(f"{report.rows:,} rows by {who}, {report.matched}, {report.seconds:.2f} s, {speed} without Ray's start")
    note(f"written to {report.output} ({len(report.parts):,} files, {report.size:,} bytes)")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, start = bar.add_task("starting Ray", total=None), perf_counter()

        def shown(done: int, total: int) -> None:
            speed = f"{done:,} of {total:,} rows, {done / (perf_counter() - start):,.0f} rows/s"
            bar.update(task, description=speed, completed=done, total=total)

        yield shown
