"""Rows from Parquet and Arrow IPC files."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.extras import imported
from runtime.model.port import Port

from .batches import Batch, Source, never_none
from .columns import Flaw, Matching, columns_to_rows, matching
from .dataframes import arrow_column, is_arrow_number, not_arrow_numbers
from .format_csv import first_line
from .format_numpy import batch_rows

_Part = tuple[Any, int, float]
"""Rows as Arrow has them, or why they cannot be read; their number; how much of the file has been read with them."""
_AT_ONCE = 1 << 20
"""Bytes of a column that are read at once."""


@contextmanager
def parquet(
    path: Path,
    ports: Sequence[Port],
    rounding: bool,
    whole: bool,
    *,
    row_groups: Sequence[int] | None = None,
    keep: Sequence[str] = (),
    readers: int | None = None,
) -> Iterator[Source]:
    """A table, row group by row group: all of them or some, with columns to ``keep`` in the batches besides."""
    del whole  # batches are copied together anyway
    module = imported("pyarrow.parquet", "reading Parquet")
    with _readable("Parquet"):
        file = module.ParquetFile(path, buffer_size=_AT_ONCE, pre_buffer=False, page_checksum_verification=True)
    with file:
        matched = _matched(file.schema_arrow, ports)
        read = sorted({*matched.chosen, *map(file.schema_arrow.names.index, keep)})
        names = [file.schema_arrow.names[index] for index in read]
        arrow = imported("pyarrow", "reading Parquet")
        kept = arrow.schema([file.schema_arrow.field(index) for index in read]) if keep else None
        total, groups = max(1, file.metadata.num_rows), file.metadata.num_row_groups
        size = batch_rows(len(set(matched.chosen)))

        def batches() -> Iterator[_Part]:
            done = 0
            for group in range(groups) if row_groups is None else row_groups:
                end = done + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(
                        size, row_groups=[group], columns=names, use_threads=readers is None
                    ):
                        done += batch.num_rows
                        yield batch, batch.num_rows, done / total
                except _damage() as error:
                    why = f"row group {group + 1} of {groups} cannot be read: {first_line(error)}"
                    while done < end:
                        rows = min(size, end - done)
                        done += rows
                        yield why, rows, done / total

        yield Source(matched.how, _decoded(batches(), matched, read, rounding, kept), readers=readers)


@contextmanager
def ipc(path: Path, ports: Sequence[Port], rounding: bool, whole: bool) -> Iterator[Source]:
    """A table in Arrow's IPC format (Feather version 2), as a file or a stream, mapped into memory."""
    del whole
    arrow = imported("pyarrow", "reading Arrow files")
    with open(path, "rb") as file, _readable("Arrow IPC"):
        if not path.stat().st_size:
            raise InputError("cannot be read as Arrow IPC: it is empty")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    buffer = arrow.py_buffer(mapped)
    with _readable("Arrow IPC"):
        is_file = mapped[:6] == b"ARROW1"
        reader = arrow.ipc.open_file(buffer) if is_file else arrow.ipc.open_stream(buffer)
        matched = _matched(reader.schema, ports)
    read = sorted(set(matched.chosen))
    options = arrow.ipc.IpcReadOptions(included_fields=read)
    with _readable("Arrow IPC"):
        reader = (arrow.ipc.open_file if is_file else arrow.ipc.open_stream)(buffer, options=options)
    size, count = batch_rows(len(read)), reader.num_record_batches if is_file else 0

    def batches() -> Iterator[_Part]:
        parts = (reader.get_batch(i) for i in range(count)) if is_file else iter(reader)
        with _readable("Arrow IPC"):
            for number, part in enumerate(parts):
                part.validate()
                for start in range(0, part.num_rows, size):
                    cut = part.slice(start, size)
                    done = number + (start + cut.num_rows) / part.num_rows
                    yield cut, cut.num_rows, done / count if count else 0.0
                    if hasattr(mmap, "MADV_DONTNEED"):  # what has been read would stay in memory with the mapping
                        mapped.madvise(mmap.MADV_DONTNEED)

    yield Source(matched.how, _decoded(batches(), matched, read, rounding))


def _matched(schema: Any, ports: Sequence[Port]) -> Matching:
    matched = matching(schema.names, ports)
    for index in matched.chosen:
        if not is_arrow_number(schema.field(index).type):
            raise not_arrow_numbers(schema.names[index], schema.field(index).type)
    return matched


def _decoded(
    batches: Iterator[_Part], matched: Matching, read: Sequence[int], rounding: bool, kept: Any = None
) -> Iterator[Callable[[], Batch]]:
    """The batches, of which each has the columns ``read`` of the file; they stay in it as ``kept``, an Arrow schema."""
    arrow = imported("pyarrow", "reading Arrow files")
    at = {index: place for place, index in enumerate(read)}
    places = [at[index] for index in matched.chosen]

    def decode(batch: Any, rows: int, share: float) -> Batch:
        if isinstance(batch, str):
            every = Flaw(np.ones(rows, bool), lambda counted: f"{batch}, from {counted(0)} on", lambda row: batch)
            nulls = [arrow.nulls(rows, field.type) for field in kept or ()]
            table = None if kept is None else arrow.RecordBatch.from_arrays(nulls, schema=kept)
            return Batch(matched.empty(rows), [every], share, table)
        columns = [arrow_column(batch, place, batch.schema.names[place]) for place in places]
        found, flaws = columns_to_rows(columns, matched, rounding=rounding)
        return Batch(found, flaws, share, None if kept is None else batch)

    return never_none((partial(decode, *part) for part in batches), matched)


@contextmanager
def _readable(kind: str) -> Iterator[None]:
    try:
        yield
    except _damage() as error:
        raise InputError(f"cannot be read as {kind}: {first_line(error)}") from None


def _damage() -> tuple[type[BaseException], ...]:
    """What pyarrow raises for a file that is damaged or of another kind."""
    return (imported("pyarrow", "reading Arrow files").lib.ArrowException, OSError, UnicodeDecodeError)
