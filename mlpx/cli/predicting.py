"""``mlpx predict``: a file of rows into a file of results, or a folder into a folder, here or on a Ray cluster."""

from contextlib import nullcontext
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from .options import DATA_FILE, RESULTS_FILE, Device, Dtype, File, Json, refuse
from .terminal import format_rate, long_run, note, print_json

if TYPE_CHECKING:
    from runtime import FolderReport
    from runtime.data.folders import FilesReport
    from runtime.data.streaming import ScoreReport


def predict(
    file: File,
    data: Annotated[
        Path, f"The rows: a {DATA_FILE} file, of any size; a folder of them; or - for CSV from standard input."
    ],
    output: Annotated[
        Path | None,
        f"Results file: {RESULTS_FILE}, or a folder for those of a folder; default: CSV on standard output.",
    ] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    threads: Annotated[int | None, "Threads; default: all usable cores (on Ray, 1).", 1, 1024] = None,
    chunk_rows: Annotated[
        int | None,
        "ROWS",
        "Rows run at a time; for a file of another tool this declares that its rows are independent.",
        1,
    ] = None,
    strict: Annotated[bool, "Values outside the ranges that FILE declares are an error, not a note."] = False,
    on_error: Annotated[
        Literal["fail", "null"], "Rows that cannot be read end the command (fail), or get empty results (null)."
    ] = "fail",
    reject_nonfinite: Annotated[bool, "Treat NaN and infinity as unreadable; by default they are counted."] = False,
    engine: Annotated[
        str, "here|ray", "here, or ray: Parquet files into a folder of Parquet files, on a Ray cluster."
    ] = "here",
    address: Annotated[
        str, "ADDRESS", "The cluster: local (started for this run), auto (running here), host:port or ray://host:port."
    ] = "local",
    workers: Annotated[
        int | None, "Workers on Ray, each with --threads CPUs (default 1); default: as many as fit.", 1
    ] = None,
    keep: Annotated[
        list[str] | None, "COLUMNS", "Columns of DATA to copy to the results, such as id,name; may be repeated."
    ] = None,
    separator: Annotated[str | None, "CHARACTER", "What separates the values of CSV files, such as ';'."] = None,
    as_json: Json = False,
) -> None:
    """Score the rows of DATA with the model in FILE."""
    output = None if output == Path("-") else output
    kept = [name.strip() for names in keep or [] for name in names.split(",")]
    cluster = {"address": address, "workers": workers}
    needless = next((name for name, value in cluster.items() if value not in (None, [], "local")), None)
    on_ray = engine == "ray"
    refuse(
        (engine not in ("here", "ray"), f"--engine is here or ray, not '{engine}'"),
        (not on_ray and needless is not None, f"--{needless} needs --engine ray"),
        (data.is_dir() and output is None, f"{data} is a folder, and needs one for the results: -o FOLDER"),
        (on_ray and data == Path("-"), "--engine ray reads a folder of Parquet files, not standard input"),
        (on_ray and separator is not None, "--separator is for CSV files; on Ray, files are Parquet"),
        (on_ray and chunk_rows is not None, "--chunk-rows is for one machine; on Ray a part is whole row groups"),
        (on_ray and output is None, "--engine ray needs a folder for the results: -o FOLDER"),
        (as_json and output is None, "--json needs an output file, since results go to standard output without one"),
    )
    checks = {"dtype": dtype, "strict": strict, "on_error": on_error, "reject_nonfinite": reject_nonfinite}
    if on_ray and output is not None:
        options = checks | cluster | {"keep": kept, "device": device, "threads": threads or 1}
        report = _score_on_ray(file, data, output, options)
        record, summary = report, _format_folder(report)
    else:
        options = checks | {"keep": kept, "separator": separator}
        settings = {"device": device, "threads": threads, "chunk_rows": chunk_rows}
        report = _score_here(file, data, output, options, settings)
        record, summary = _record(report), _format_here(report)
    if strict and not report.declares_ranges:
        note(f"note: {file} declares no ranges, so --strict had nothing to check")
    if as_json:
        print_json(record)
    else:
        note(*summary)


def _score_here(
    file: Path, data: Path, output: Path | None, checks: dict[str, Any], settings: dict[str, Any]
) -> "ScoreReport | FilesReport":
    from runtime.session.trial import trial

    with trial(file, settings["device"]):  # in a process of its own, while these are imported
        from runtime import Session, score_file
        from runtime.data.folders import STANDARD_INPUT, score_files, standard_input
        from runtime.data.rounding import format_rounded

    from_stdin = data == Path("-")
    with (
        standard_input() if from_stdin else nullcontext(data) as path,
        long_run("scoring") as progress,
        Session(file, **settings) as session,
    ):
        if path.is_dir() and output is not None:
            report = score_files(session, path, output, progress=progress.show_rows, **checks)
        else:
            origin = STANDARD_INPUT if from_stdin else None
            report = score_file(session, path, output, progress=progress.show_rows, origin=origin, **checks)
    if report.rounded:
        note(f"note: {format_rounded(data.name)}")
    for each in _files_of(report):
        notes = (each.failed_words, each.nonfinite_words, each.outside_words)
        note(*(f"note: {line}" for line in notes if line is not None))
    return report


def _files_of(report: "ScoreReport | FilesReport") -> "tuple[ScoreReport, ...]":
    from runtime.data.folders import FilesReport

    return report.files if isinstance(report, FilesReport) else (report,)


def _record(report: "ScoreReport | FilesReport") -> dict[str, Any]:
    """The report as JSON has it: without NaN and infinity."""
    record = asdict(report)
    for one in record.get("files", [record]):
        counted: list[dict[str, Any]] = [*one["outside"], one["nonfinite"] or {"value": 0.0}]
        for value in counted:
            if not isfinite(value["value"]):
                value["value"] = str(value["value"])
    return record


def _format_here(report: "ScoreReport | FilesReport") -> list[str]:
    speed = f"{report.seconds:.2f} s" + (f", {report.rows_per_second:,.0f} rows/s" if report.seconds >= 1 else "")
    first, *others = _files_of(report)
    lines = [f"{report.rows:,} rows on {first.device}, {first.matched}, {speed}"]
    count = f" ({len(others) + 1:,} files)" if first is not report else ""
    return lines if report.output is None else [*lines, f"written to {report.output}{count}"]


def _score_on_ray(file: Path, data: Path, output: Path, options: dict[str, Any]) -> "FolderReport":
    from runtime.session.trial import trial

    with trial(file, options["device"]):
        from runtime import score_folder

    with long_run("starting Ray") as progress:
        report = score_folder(
            file, data, output, progress=lambda done, total: progress.show_rows(done, done / max(total, 1)), **options
        )
    note(*(f"note: {line}" for line in report.notes))
    if report.repeated:
        parts = f"{report.repeated:,} of the {len(report.parts):,} parts"
        note(f"note: {parts} had to be scored again, since a worker died")
    return report


def _format_folder(report: "FolderReport") -> list[str]:
    speed = format_rate(report.rows, report.scoring_seconds)
    workers = f"{report.workers:,} workers on {', '.join(report.devices)}"
    return [
        f"{report.rows:,} rows by {workers}, {report.matched}, {report.seconds:.2f} s, {speed} without Ray's start",
        f"written to {report.output} ({len(report.parts):,} files, {report.size:,} bytes)",
    ]
