"""A Parquet file or folder scored on a Ray cluster into a folder of Parquet files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from time import perf_counter
from typing import Any

from runtime.data.checks import MOST_EXAMPLES, check_on_error
from runtime.data.rounding import format_rounded
from runtime.data.scoring import input_ports
from runtime.data.unusual_values import NonFinite, Outside, format_failed, format_nonfinite, format_outside
from runtime.errors import ClusterError, InputError, ModelError, OutputError
from runtime.model.port import limits
from runtime.session.processor import usable_cores
from runtime.session.session import Session
from runtime.version import VERSION

from .cluster import driver_messages
from .partition import MAX_PART_ROWS, Part, partition
from .worker import ATTEMPTS_FOLDER, JobSpec, raise_error


@dataclass(frozen=True)
class FolderReport:
    """What scoring on a cluster did.

    Examples:
        Continues the example of ``runtime.score_folder``:

        >>> report.repeated, report.matched, report.output.name
        (0, 'columns by name', 'scored')
    """

    rows: int
    """Read, and written."""
    parts: tuple[Part, ...]
    """Each file of results, with the rows of the data that it belongs to."""
    matched: str
    """How the data's columns were matched with the model's features."""
    devices: tuple[str, ...]
    workers: int
    repeated: int
    """How many parts were started more than once, since their worker had died."""
    seconds: float
    """From the start until the folder had its name."""
    scoring_seconds: float
    """From the start of the first part to the end of the last, by the workers' clocks."""
    size: int
    """Of the results, in bytes."""
    output: Path
    declares_ranges: bool
    outside_rows: int
    """How many rows are outside a range that the file declares for its input."""
    nonfinite_rows: int
    """How many rows hold NaN or infinite values, which went through the model."""
    failed_rows: int
    """How many rows could not be read and have empty results (``on_error="null"``)."""
    notes: tuple[str, ...]
    """The same as text, with the first such row of each."""


def score_folder(
    file: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    address: str = "local",
    workers: int | None = None,
    threads: int = 1,
    device: str = "auto",
    dtype: str | None = None,
    strict: bool = False,
    on_error: str = "fail",
    reject_nonfinite: bool = False,
    keep: Sequence[str] = (),
    part_rows: int = MAX_PART_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> FolderReport:
    """Score ``data``, a Parquet file or a folder of them, with the model in ``file``, into the new folder ``output``.

    ``address`` is "local" (a cluster on this machine, started and ended here), "auto" (the one that runs here),
    "host:port" or "ray://host:port"; every machine of it must see ``data`` and ``output`` under the same paths and have
    the same mlpx; the model is sent. Each of the ``workers`` (None: as many as fit) has ``threads`` CPUs, and a GPU
    if ``device`` is not "cpu" and the cluster has any. A part of the data, whole row groups of about ``part_rows``
    rows, is scored again if its worker dies; ``output`` appears when every row is in it exactly once, with the columns
    ``keep`` of the data before those of ``runtime.score_file``, whose other options these are too. ``progress`` gets
    the rows that are done, and their total.

    Raises InputError (data, columns, values), ModelError, OutputError (``output`` exists, or cannot be written),
    ProviderError, ClusterError, MissingPackageError.

    Examples:
        >>> import polars
        >>> from runtime import score_folder
        >>> polars.read_csv("rows.csv").write_parquet("rows.parquet")
        >>> report = score_folder("comfort.onnx", "rows.parquet", "scored", device="cpu", workers=1)
        >>> report.rows, polars.read_parquet("scored").columns
        (2, ['label', 'probability_poor', 'probability_good'])
    """
    start = perf_counter()
    file, output = Path(file), Path(output).absolute()
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is auto, cpu or cuda on Ray, which gives each worker its GPU, not '{device}'")
    check_on_error(on_error)
    with _open_model(file) as session:
        if not session.divisible:
            problem = f"{file}: its rows may depend on each other, so they cannot be divided among workers"
            hint = "score it with mlpx predict on one machine, which runs all rows at once"
            raise InputError(f"{problem}. What to do: {hint}")
        ports = input_ports(session)
    parts, matched = partition(data, ports, keep=keep, max_rows=part_rows)
    total = sum(part.rows for part in parts)
    if address == "local":
        workers = workers or max(1, usable_cores() // threads)
    with _staged_folder(output) as stage:
        options = {"dtype": dtype, "on_error": on_error, "reject_nonfinite": reject_nonfinite, "keep": list(keep)}
        records = [asdict(part) for part in parts]
        job = JobSpec(
            parts=records, folder=str(stage), device=device, threads=threads, options=options, version=VERSION
        )
        task = {"file": str(file.absolute()), "workers": workers, "job": job}
        by_number: dict[int, dict[str, Any]] = {}
        with driver_messages(task, address) as messages:
            for message in messages:
                raise_error(message)
                if "part" not in message:
                    workers = message["workers"]
                    continue
                by_number[message["part"]] = message
                if progress is not None:
                    progress(sum(receipt["rows"] for receipt in by_number.values()), total)
        _check_complete(parts, by_number, stage)
        receipts = [by_number[number] for number in range(len(parts))]
        notes, outside = _notes(parts, receipts, total, Path(data).name)
        if strict and outside is not None:
            hint = "correct or drop those rows, or score them with strict=False (without --strict)"
            raise InputError(f"{outside}. What to do: {hint}")
    return FolderReport(
        rows=total,
        parts=parts,
        matched=matched,
        devices=tuple(sorted({receipt["device"] for receipt in receipts})),
        workers=workers or 0,
        repeated=sum(receipt["attempts"] > 1 for receipt in receipts),
        seconds=perf_counter() - start,
        scoring_seconds=max(part["ended"] for part in receipts) - min(part["began"] for part in receipts),
        size=sum(receipt["size"] for receipt in receipts),
        output=output,
        declares_ranges=any(limits(port) is not None for port in ports),
        outside_rows=sum(receipt["outside_rows"] for receipt in receipts),
        nonfinite_rows=sum(receipt["nonfinite"]["rows"] for receipt in receipts if receipt["nonfinite"]),
        failed_rows=sum(receipt["failed_rows"] for receipt in receipts),
        notes=(*notes, outside) if outside is not None else tuple(notes),
    )


def _open_model(file: Path) -> Session:
    """The model, from the same bytes that the workers get."""
    if not file.is_file():
        raise ModelError(f"{file}: no such file")
    try:
        return Session(file.read_bytes(), "cpu", threads=1)
    except ModelError as error:
        Session(file, "cpu", threads=1).close()  # raises a clearer error if the file itself is wrong
        hint = "export it again without --external-data"
        message = f"{file}: its weights are in other files, and workers get only this one. What to do: {hint}"
        raise ModelError(message) from error


@contextmanager
def _staged_folder(output: Path) -> Generator[Path]:
    """A folder beside ``output`` to write to; it takes that name at the end, and is removed on an error."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        problem = "the folder exists and is not empty" if output.is_dir() else "a file has this name"
        raise OutputError(f"{output}: {problem}; nothing was changed. What to do: give another name, with -o")
    stage = None
    try:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            stage = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
            mask = os.umask(0)
            os.umask(mask)
            stage.chmod(0o777 & ~mask)
            yield stage
            shutil.rmtree(stage / ATTEMPTS_FOLDER, ignore_errors=True)
            stage.rename(output)
        except OutputError:
            raise
        except OSError as error:
            problem = f"cannot be written: {error.strerror or str(error)}; nothing was changed"
            hint = "choose a folder that can be written and has room, with -o"
            raise OutputError(f"{output}: {problem}. What to do: {hint}") from None
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _check_complete(parts: Sequence[Part], receipts: dict[int, dict[str, Any]], stage: Path) -> None:
    """Raise ClusterError unless every part has been written completely, and there are no other files."""
    for number, part in enumerate(parts):
        rows = receipts[number]["rows"] if number in receipts else None
        if rows != part.rows:
            written = "none came" if rows is None else f"{rows:,} were written"
            expected = f"results of {part.rows:,} rows are expected"
            raise ClusterError(f"{part.source}: {expected}, and {written}; nothing is kept")
    files = {str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file()}
    files = {name for name in files if not name.startswith(ATTEMPTS_FOLDER)}
    for temporary in [name for name in files if Path(name).name.startswith(".")]:  # of a worker that died
        (stage / temporary).unlink()
        files.discard(temporary)
    targets = {part.target for part in parts}
    if files != targets:
        raise ClusterError(f"{stage}: missing or unexpected files: {', '.join(sorted(files ^ targets)[:6])}")


def _notes(
    parts: Sequence[Part], receipts: Sequence[dict[str, Any]], total: int, name: str
) -> tuple[list[str], str | None]:
    """Notes on rows that could not be read, were rounded, or hold NaN or infinity; one on rows outside their ranges."""
    origins = ["" if part.origin == name else f" (a row of {part.origin})" for part in parts]
    pairs = list(zip(receipts, origins, strict=True))
    failed = [f"{text}{origin}" for receipt, origin in pairs for text in receipt["failed"]]
    failed_note = format_failed(
        sum(receipt["failed_rows"] for receipt in receipts), failed[:MOST_EXAMPLES], total, name
    )
    notes = [] if failed_note is None else [failed_note]
    if any(receipt["rounded"] for receipt in receipts):
        notes.append(format_rounded(name))
    nonfinite = [(NonFinite(**receipt["nonfinite"]), origin) for receipt, origin in pairs if receipt["nonfinite"]]
    if nonfinite:
        joined = reduce(NonFinite.joined, (values for values, _ in nonfinite))
        notes.append(f"{format_nonfinite(joined, total, name)}{nonfinite[0][1]}")
    outside = [(Outside(**receipt["outside"]), origin) for receipt, origin in pairs if receipt["outside"]]
    if not outside:
        return notes, None
    outside_rows = sum(receipt["outside_rows"] for receipt in receipts)
    first, origin = outside[0]
    return notes, f"{format_outside(outside_rows, [first], total, name)}{origin}"
