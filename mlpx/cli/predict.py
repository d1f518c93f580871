"""``mlpx predict``: a file of rows into a file of results."""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Dtype, Json, note, print_json


def command(
    file: Annotated[Path, typer.Argument(help="An ONNX file.")],
    data: Annotated[Path, typer.Argument(help="The rows: a .npy, .npz, .csv or .parquet file.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Where to write: .npy, .npz, .csv or .parquet; CSV on standard output if left out."
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads; ONNX Runtime's own choice if left out.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Values outside the ranges that FILE declares are an error, not a note.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score the rows of DATA with the model in FILE."""
    from runtime import Session, score_file

    if as_json and output is None:
        raise typer.BadParameter("--json needs an output file, since the results go to standard output without one")
    with Session(file, device, threads=threads) as session:
        report = score_file(session, data, output, dtype=dtype, strict=strict)
    if report.outside_words is not None:
        note(f"note: {report.outside_words}")
    if strict and not report.declares_ranges:
        note(f"note: {file} declares no ranges, so --strict had nothing to check")
    if as_json:
        record = asdict(report)
        for feature in record["outside"]:
            if not isfinite(feature["value"]):
                feature["value"] = str(feature["value"])  # JSON has no such number
        print_json(record)
        return
    note(f"{report.rows:,} rows on {report.device}, {report.matched}, {report.seconds:.2f} s")
    if report.output is not None:
        note(f"written to {report.output}")
