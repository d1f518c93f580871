"""``mlpx predict``: a file of rows into a file of results, or on Ray a folder of rows into a folder of results."""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

from .options import ONE_OF, Device, Dtype, File, Json, refuse
from .terminal import long_run, note, print_json


def predict(
    file: File,
    data: Annotated[Path, f"The rows: a {ONE_OF} file, of any size."],
    output: Annotated[Path | None, f"Where to write: {ONE_OF}; CSV on standard output if left out."] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    threads: Annotated[int | None, "Threads; all cores that may be used if left out (on Ray, 1).", 1, 1024] = None,
    chunk_rows: Annotated[
        int | None, "Rows run at a time; says of a file that mlpx did not write that its rows stand alone.", 1
    ] = None,
    strict: Annotated[bool, "Values outside the ranges that FILE declares are an error, not a note."] = False,
    on_error: Annotated[
        Literal["fail", "null"], "Rows that cannot be read end the command (fail), or get empty results (null)."
    ] = "fail",
    reject_nonfinite: Annotated[bool, "NaN and infinity cannot be read either; else they are counted."] = False,
    engine: Annotated[str, "here, or ray: Parquet files in, a folder of them out, on a Ray cluster."] = "here",
    address: Annotated[
        str, "The cluster: local (started for this), auto (that runs here), host:port or ray://host:port."
    ] = "local",
    workers: Annotated[
        int | None, "Workers on Ray, each with --threads CPUs (1 if left out); all that fit if left out.", 1
    ] = None,
    keep: Annotated[list[str] | None, "On Ray: a column of DATA to have in the results too; may be repeated."] = None,
    as_json: Json = False,
) -> None:
    """Score the rows of DATA with the model in FILE."""
    cluster = {"address": address, "workers": workers, "keep": keep}
    needless = next((name for name, value in cluster.items() if value not in (None, [], "local")), None)
    on_ray, since = engine == "ray", "since the results go to standard output without one"
    refuse(
        (engine not in ("here", "ray"), f"--engine is here or ray, not '{engine}'"),
        (not on_ray and needless is not None, f"--{needless} needs --engine ray"),
        (on_ray and chunk_rows is not None, "--chunk-rows is for one machine; on Ray a part is whole row groups"),
        (on_ray and output is None, "--engine ray needs a folder for the results: -o FOLDER"),
        (as_json and output is None, f"--json needs an output file, {since}"),
    )
    checks = {"dtype": dtype, "strict": strict, "on_error": on_error, "reject_nonfinite": reject_nonfinite}
    if on_ray and output is not None:
        options = checks | cluster | {"keep": keep or (), "device": device, "threads": threads or 1}
        _score_folder(file, data, output, options, as_json)
        return
    from runtime import Session, score_file

    start = perf_counter()
    with long_run("scoring") as progress, Session(file, device, threads=threads, chunk_rows=chunk_rows) as session:

        def scored(rows: int, share: float) -> None:
            progress(share, 1.0 if share else None, f"scoring {rows:,} rows, {_speed(rows, perf_counter() - start)}")

        report = score_file(session, data, output, progress=scored, **checks)
    words = (report.failed_words, report.nonfinite_words, report.outside_words)
    note(*(f"note: {each}" for each in words if each is not None))
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


def _speed(rows: int, seconds: float) -> str:
    return f"{rows / max(seconds, 1e-9):,.0f} rows/s"


def _score_folder(file: Path, data: Path, output: Path, options: dict[str, Any], as_json: bool) -> None:
    """Score DATA on Ray, and tell what was done."""
    from runtime import score_folder

    start = perf_counter()
    with long_run("starting Ray") as progress:

        def scored(done: int, total: int) -> None:
            progress(done, total, f"{done:,} of {total:,} rows, {_speed(done, perf_counter() - start)}")

        report = score_folder(file, data, output, progress=scored, **options)
    note(*(f"note: {words}" for words in report.notes))
    if options["strict"] and not report.declares_ranges:
        note(f"note: {file} declares no ranges, so --strict had nothing to check")
    if report.repeated:
        again = f"{report.repeated:,} of the {len(report.parts):,} parts"
        note(f"note: {again} had to be scored again, since a worker died")
    if as_json:
        print_json(report)
        return
    speed = _speed(report.rows, report.scoring_seconds)
    who = f"{report.workers:,} workers on {', '.join(report.devices)}"
    note(f"{report.rows:,} rows by {who}, {report.matched}, {report.seconds:.2f} s, {speed} without Ray's start")
    note(f"written to {report.output} ({len(report.parts):,} files, {report.size:,} bytes)")
