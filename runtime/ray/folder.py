"""A Parquet file or folder scored on a Ray cluster into a folder of Parquet files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from time import perf_counter
from typing import Any

from runtime.data.checks import SHOWN
from runtime.data.nonfinite import NonFinite, nonfinite_words
from runtime.data.streaming import ON_ERROR, failed_words
from runtime.errors import ClusterError, InputError, ModelError, OutputError
from runtime.model.ranges import Outside, limits, told
from runtime.session.processor import usable_cores
from runtime.session.session import Session

from .cluster import messages
from .part import named_inputs
from .partition import MOST_ROWS, Part, parts_of
from .worker import NOTES, Work, raised


@dataclass(frozen=True)
class FolderReport:
    """What scoring on a cluster did."""

    rows: int
    """That were read, and as many were written."""
    parts: tuple[Part, ...]
    """Each file of results, and which rows of which file it has the results of."""
    matched: str
    """How the data's columns were matched with the model's features."""
    devices: tuple[str, ...]
    workers: int
    repeated: int
    """How many parts were begun more than once, since their worker had died."""
    seconds: float
    """From the first look at the data until the folder had its name."""
    scoring_seconds: float
    """From the beginning of the first part to the end of the last, by the workers' clocks."""
    size: int
    """Of the results, in bytes."""
    output: Path
    declares_ranges: bool
    outside_rows: int
    """How many rows leave a range that the file declares for its input."""
    nonfinite_rows: int
    """How many rows hold NaN or infinite values, which went through the model."""
    failed_rows: int
    """How many rows could not be read and have empty results (``on_error="null"``)."""
    notes: tuple[str, ...]
    """The same in words, with the first such row of each."""


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
    part_rows: int = MOST_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> FolderReport:
    """Score ``data``, a Parquet file or a folder of them, with the model in ``file``, into the new folder ``output``.

    ``address`` is "local" (a cluster of this machine, started and ended here), "auto" (the one that runs here),
    "host:port" or "ray://host:port"; every machine of it sees ``data`` and ``output`` under the same paths, has the
    same mlpx, and is sent the model. Each of the ``workers`` (as many as fit, if None) has ``threads`` CPUs, and a GPU
    where ``device`` is not "cpu" and the cluster has any. A part of the data, whole row groups of about ``part_rows``
    rows, whose worker dies is repeated; ``output`` appears when every row is in it exactly once, with the columns
    ``keep`` of the data before those of ``runtime.score_file``, whose other options these are too. ``progress`` is told
    how many rows are done, and of how many.

    Raises InputError (data, columns, values), ModelError, OutputError (``output`` exists, or cannot be written),
    ProviderError, ClusterError, MissingPackageError.
    """
    start = perf_counter()
    file, output = Path(file), Path(output).absolute()
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is auto, cpu or cuda on Ray, which gives each worker its GPU, not '{device}'")
    if on_error not in ON_ERROR:
        raise InputError(f"on_error is 'fail' or 'null', not {on_error!r}")
    with _session(file) as session:
        if not session.divisible:
            hint = "score it with mlpx predict on one machine, which runs all rows at once"
            raise InputError(
                f"{file}: its rows may depend on each other, so they cannot be shared out. What to do: {hint}"
            )
        ports = named_inputs(session)
    parts, matched = parts_of(data, ports, keep=keep, most_rows=part_rows)
    total = sum(part.rows for part in parts)
    if address == "local":
        workers = workers or max(1, usable_cores() // threads)
    with _folder(output) as stage:
        options = {"dtype": dtype, "on_error": on_error, "reject_nonfinite": reject_nonfinite, "keep": list(keep)}
        work = Work(parts, str(stage), device, threads, options)
        task = {"file": str(file.absolute()), "workers": workers, "work": asdict(work)}
        receipts: dict[int, dict[str, Any]] = {}
        with messages(task, address) as records:
            for record in records:
                raised(record)
                if "part" not in record:
                    workers = record["workers"]
                    continue
                receipts[record["part"]] = record
                if progress is not None:
                    progress(sum(receipt["rows"] for receipt in receipts.values()), total)
        _refuse_other_rows(parts, receipts, stage)
        found = [receipts[number] for number in range(len(parts))]
        words = _outside_words(parts, found, total, Path(data).name)
        if strict and words is not None:
            hint = "correct or drop those rows, or score them with strict=False (without --strict)"
            raise InputError(f"{words}. What to do: {hint}")
    rows = {name: sum(receipt[name] for receipt in found) for name in ("size", "outside_rows", "failed_rows")}
    return FolderReport(
        rows=total,
        parts=parts,
        matched=matched,
        devices=tuple(sorted({receipt["device"] for receipt in found})),
        workers=workers or 0,
        repeated=sum(receipt["attempts"] > 1 for receipt in found),
        seconds=perf_counter() - start,
        scoring_seconds=max(part["ended"] for part in found) - min(part["began"] for part in found),
        output=output,
        declares_ranges=any(limits(port) is not None for port in ports),
        nonfinite_rows=sum(receipt["nonfinite"]["rows"] for receipt in found if receipt["nonfinite"]),
        notes=tuple(filter(None, (*_other_words(parts, found, total, Path(data).name), words))),
        **rows,
    )


def _session(file: Path) -> Session:
    """The model here, to know its inputs, from the bytes that the workers get."""
    if not file.is_file():
        raise ModelError(f"{file}: no such file")
    try:
        return Session(file.read_bytes(), "cpu", threads=1)
    except ModelError as error:
        Session(file, "cpu", threads=1).close()  # says what is wrong with the file, if it is the file
        hint = "export it again without --external-data"
        message = f"{file}: its weights lie in other files, and workers get one. What to do: {hint}"
        raise ModelError(message) from error


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` to write to, which takes its name at the end of the block; nothing if that fails."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        what = "the folder is there and not empty" if output.is_dir() else "a file has this name"
        raise OutputError(f"{output}: {what}; nothing was changed. What to do: give another name, with -o")
    stage = None
    try:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            stage = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
            mask = os.umask(0)
            os.umask(mask)
            stage.chmod(0o777 & ~mask)
            yield stage
            shutil.rmtree(stage / NOTES, ignore_errors=True)
            stage.rename(output)
        except OutputError:
            raise
        except OSError as error:
            hint = "choose a folder that can be written and has room, with -o"
            reason = error.strerror or str(error)
            raise OutputError(
                f"{output}: cannot be written: {reason}; nothing was changed. What to do: {hint}"
            ) from None
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _refuse_other_rows(parts: Sequence[Part], receipts: dict[int, dict[str, Any]], stage: Path) -> None:
    """Raise ClusterError unless every part has been written once and whole, and nothing else lies there."""
    for number, part in enumerate(parts):
        got = receipts[number]["rows"] if number in receipts else None
        if got != part.rows:
            found = "none came" if got is None else f"{got:,} were written"
            raise ClusterError(
                f"{part.source}: results of {part.rows:,} rows are expected, and {found}; nothing is kept"
            )
    files = {str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file()}
    files = {name for name in files if not name.startswith(NOTES)}
    for left in [name for name in files if Path(name).name.startswith(".")]:  # of a worker that died
        (stage / left).unlink()
        files.discard(left)
    wanted = {part.target for part in parts}
    if files != wanted:
        raise ClusterError(f"{stage}: files are missing or too many: {', '.join(sorted(files ^ wanted)[:6])}")


def _outside_words(parts: Sequence[Part], receipts: Sequence[dict[str, Any]], total: int, name: str) -> str | None:
    for part, receipt in zip(parts, receipts, strict=True):
        if receipt["outside"] is not None:
            count = sum(each["outside_rows"] for each in receipts)
            return told(count, [Outside(**receipt["outside"])], total, name) + _of(part, name)
    return None


def _other_words(
    parts: Sequence[Part], receipts: Sequence[dict[str, Any]], total: int, name: str
) -> Iterator[str | None]:
    failed = [
        f"{text}{_of(part, name)}" for part, receipt in zip(parts, receipts, strict=True) for text in receipt["failed"]
    ]
    yield failed_words(sum(receipt["failed_rows"] for receipt in receipts), failed[:SHOWN], total, name)
    odd = [
        (part, NonFinite(**got)) for part, receipt in zip(parts, receipts, strict=True) if (got := receipt["nonfinite"])
    ]
    if odd:
        words = nonfinite_words(reduce(NonFinite.joined, (found for _, found in odd)), total, name)
        yield f"{words}{_of(odd[0][0], name)}"


def _of(part: Part, name: str) -> str:
    return "" if part.origin == name else f" (a row of {part.origin})"
