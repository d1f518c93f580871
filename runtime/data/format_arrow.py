"""Parquet files and Arrow IPC files of rows and of results."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow
import pyarrow.ipc
from pyarrow.parquet import FileMetaData, ParquetFile, ParquetWriter

from runtime.errors import InputError
from runtime.model.port import Port

from .batches import Batch, Source, at_least_one, batch_rows, first_line, most_bytes, too_large, unreadable
from .columns import ColumnMatch, columns_to_rows, is_rounded, kept_columns
from .dataframes import arrow_column, match_schema
from .flaws import Flaw

if TYPE_CHECKING:
    import polars

_Part = tuple[pyarrow.RecordBatch | str, int, float]
"""A record batch, or why the rows cannot be read; their number; how much of the file has been read with them."""
_BUFFER_BYTES = 1 << 20
"""Of a column that are read at once."""
_GROUP_ROWS, _GROUP_BYTES = 1 << 17, 1 << 26
"""A row group of Parquet ends at whichever is reached first."""
_DAMAGE = (pyarrow.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a file that is damaged or of another kind."""


@contextmanager
def read_parquet(
    path: Path,
    ports: Sequence[Port],
    rounding: bool,
    whole: bool,
    *,
    row_groups: Sequence[int] | None = None,
    keep: Sequence[str] = (),
    threads: int | None = None,
) -> Generator[Source]:
    """A table, row group by row group: all of them or some; the batches also have the columns ``keep``."""
    del whole  # batches are copied together anyway
    with _readable("Parquet"):
        file = ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
    with file:
        schema = file.schema_arrow
        match = match_schema(schema, ports, keep=keep)
        read = sorted({*match.indices, *kept_columns(schema.names, keep).values()})
        names = [schema.names[index] for index in read]
        kept = pyarrow.schema([schema.field(index) for index in read]) if keep else None
        total, groups = max(1, file.metadata.num_rows), file.metadata.num_row_groups
        with _readable("Parquet"):
            _refuse_bombs(file.metadata, groups, most_bytes(path))
        size = batch_rows(len(set(match.indices)))

        def parts() -> Iterator[_Part]:
            done = 0
            for group in range(groups) if row_groups is None else row_groups:
                end = done + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(
                        size, row_groups=[group], columns=names, use_threads=threads is None
                    ):
                        done += batch.num_rows
                        yield batch, batch.num_rows, done / total
                except _DAMAGE as error:
                    reason = f"row group {group + 1} of {groups} cannot be read: {first_line(error)}"
                    while done < end:
                        rows = min(size, end - done)
                        done += rows
                        yield reason, rows, done / total

        yield Source(match.description, _decoders(parts(), match, read, rounding, kept), threads)


def _refuse_bombs(metadata: FileMetaData, groups: int, limit: int) -> None:
    """Raise InputError for a row group that takes more than ``limit`` bytes once its pages are decompressed."""
    for group in map(metadata.row_group, range(groups)):
        if group.total_byte_size <= limit:
            continue
        columns = map(group.column, range(group.num_columns))
        size = sum(column.total_uncompressed_size for column in columns if column.compression != "UNCOMPRESSED")
        if size > limit:
            raise too_large(size, limit)


@contextmanager
def read_ipc(
    path: Path, ports: Sequence[Port], rounding: bool, whole: bool, *, keep: Sequence[str] = ()
) -> Generator[Source]:
    """A table in Arrow's IPC format (Feather version 2), as a file or a stream, mapped into memory."""
    del whole
    with open(path, "rb") as file, _readable("Arrow IPC"):
        if not path.stat().st_size:
            raise InputError("cannot be read as Arrow IPC: it is empty")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    buffer = pyarrow.py_buffer(mapped)
    open_reader = pyarrow.ipc.open_file if mapped[:6] == b"ARROW1" else pyarrow.ipc.open_stream
    with _readable("Arrow IPC"):
        schema = open_reader(buffer).schema
        match = match_schema(schema, ports, keep=keep)
        read = sorted({*match.indices, *kept_columns(schema.names, keep).values()})
        kept = pyarrow.schema([schema.field(index) for index in read]) if keep else None
        reader = open_reader(buffer, options=pyarrow.ipc.IpcReadOptions(included_fields=read))
    if isinstance(reader, pyarrow.ipc.RecordBatchFileReader):
        count = reader.num_record_batches
        batches = map(reader.get_batch, range(count))
    else:
        batches, count = iter(reader), 0
    size = batch_rows(len(read))

    def parts() -> Iterator[_Part]:
        with _readable("Arrow IPC"):
            for number, batch in enumerate(batches):
                batch.validate()
                for start in range(0, batch.num_rows, size):
                    part = batch.slice(start, size)
                    done = number + (start + part.num_rows) / batch.num_rows
                    yield part, part.num_rows, done / count if count else 0.0
                    # Pages that were read would stay in memory with the mapping.
                    if hasattr(mmap, "MADV_DONTNEED"):  # pragma: no branch - not on Windows
                        mapped.madvise(mmap.MADV_DONTNEED)

    yield Source(match.description, _decoders(parts(), match, read, rounding, kept))


def _decoders(
    parts: Iterator[_Part], match: ColumnMatch, read: Sequence[int], rounding: bool, kept: pyarrow.Schema | None = None
) -> Iterator[Callable[[], Batch]]:
    """For parts with the columns ``read`` of the file; batches keep them if ``kept`` is their Arrow schema."""
    positions = [read.index(index) for index in match.indices]

    def decode(part: pyarrow.RecordBatch | str, rows: int, share: float) -> Batch:
        if isinstance(part, str):
            flaw = Flaw(
                np.ones(rows, bool),
                lambda numbers: f"{part}, from {numbers(0)} on",
                lambda _: part,
                "write the file again",
            )
            nulls = [pyarrow.nulls(rows, field.type) for field in kept or ()]
            table = None if kept is None else pyarrow.RecordBatch.from_arrays(nulls, schema=kept)
            return Batch(match.zeros(rows), [flaw], share, table)
        columns = [
            arrow_column(part, position, part.schema.names[position], vocabulary is not None)
            for position, vocabulary in zip(positions, match.categories, strict=True)
        ]
        values, flaws = columns_to_rows(columns, match, rounding=rounding)
        rounded = not rounding and is_rounded(columns, match)
        return Batch(values, flaws, share, None if kept is None else part, rounded)

    return at_least_one((partial(decode, *part) for part in parts), match)


@contextmanager
def _readable(kind: str) -> Generator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise unreadable(kind, error) from None


def arrow_table(results: polars.DataFrame) -> pyarrow.Table:
    """A polars data frame as an Arrow table: pyarrow's own constructors import pandas if that is installed."""
    import polars

    return results.to_arrow(compat_level=polars.CompatLevel.oldest())


def parquet_writer(file: IO[bytes] | Path, schema: pyarrow.Schema) -> ParquetWriter:
    """A writer of tables with this schema, compressed, with dictionaries for texts only."""
    texts = [field.name for field in schema if "string" in str(field.type)]
    return ParquetWriter(file, schema, compression="zstd", use_dictionary=texts or False)


@contextmanager
def write_parquet(file: IO[bytes]) -> Generator[Callable[[polars.DataFrame], None]]:
    """A table, in row groups."""
    waiting: list[pyarrow.Table] = []
    writers: list[ParquetWriter] = []
    """One, from the first results on, which have its schema."""

    def write(results: polars.DataFrame) -> None:
        waiting.append(arrow_table(results))
        if not writers:
            writers.append(parquet_writer(file, waiting[0].schema))
        if sum(t.num_rows for t in waiting) >= _GROUP_ROWS or sum(t.nbytes for t in waiting) >= _GROUP_BYTES:
            write_group()

    def write_group() -> None:
        table = pyarrow.concat_tables(waiting)
        waiting.clear()
        writers[0].write_table(table, row_group_size=max(1, table.num_rows))

    try:
        yield write
        if waiting:
            write_group()
        writers[0].close()
    except BaseException:
        for writer in writers:  # otherwise it would be closed when it is collected
            with suppress(Exception):
                writer.close()
        raise


@contextmanager
def write_ipc(file: IO[bytes]) -> Generator[Callable[[polars.DataFrame], None]]:
    """A table in Arrow's IPC file format (Feather version 2), uncompressed."""
    writers: list[pyarrow.ipc.RecordBatchFileWriter] = []

    def write(results: polars.DataFrame) -> None:
        table = arrow_table(results)
        if not writers:
            writers.append(pyarrow.ipc.new_file(file, table.schema))
        writers[0].write_table(table)

    yield write
    writers[0].close()
