"""Rows for a model from files of every format, whole or in batches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port

from .arrays import allows_rounding
from .batches import Batch, Source, decode_ahead, most_bytes, too_large
from .file_formats import FORMATS, format_of, has_lines
from .flaws import RowNumbers, failed_rows
from .indices import IndexLimits, index_limits
from .rounding import warn_of_rounding


def read_rows(path: str | Path, port: Port, *, dtype: str | None = None) -> tuple[np.ndarray, str]:
    """The rows of a file for a model's only input, and how its columns were matched, in words.

    The file is in one of the formats of ``runtime.data.file_formats``. Columns are matched by name if the port names
    its features (a header may carry the unit, as in ``speed [m/s]``), else by order. For a float32 port, numbers in a
    CSV file become the nearest float32, as do those in float64 columns of Parquet and Arrow files, which a
    RoundingWarning says; another value that float32 cannot hold is an error unless ``dtype="float32"``. For an int64
    port each number must be whole.
    Raises InputError: unreadable file, missing columns, another unit, text or empty values instead of numbers, a
    wrong number of features, an index beyond its limits; MissingPackageError: polars (CSV) or pyarrow (Parquet, Arrow)
    is not installed.

    Examples:
        >>> from mlpx import inspect
        >>> from runtime import read_rows
        >>> rows, matched = read_rows("rows.csv", inspect("comfort.onnx").summary.inputs[0])
        >>> rows.tolist(), matched
        ([[21.0, 45.0], [30.0, 80.0]], 'columns by name')
    """
    rows, matched = read_inputs(path, [port], dtype=dtype)
    return rows[port.name], matched


def read_inputs(
    path: str | Path, ports: Sequence[Port], *, dtype: str | None = None
) -> tuple[dict[str, np.ndarray], str]:
    """The rows of a file for every input of a model, by name, and how they were matched; otherwise as ``read_rows``.

    For several inputs an ``.npz`` file holds an array of each name; a table holds the columns of their features, or
    for an input ``obs`` without named features ``obs_0``, ``obs_1`` and so on, or ``obs`` if it has only one.

    Examples:
        >>> from mlpx import inspect
        >>> from runtime import read_inputs
        >>> arrays, matched = read_inputs("rows.csv", inspect("comfort.onnx").summary.inputs)
        >>> arrays["air"].shape
        (2, 2)
    """
    batches: list[dict[str, np.ndarray]] = []
    first, rounded = 0, False
    with open_rows(path, ports, dtype=dtype, whole=True) as source, name_in_errors(path):
        for batch in decode_ahead(source.decoders, source.threads):
            if batch.flaws:
                numbers = RowNumbers(first, has_lines(str(path)), complete=first == 0 and batch.share == 1)
                raise batch.flaws[0].error(numbers)
            batches.append(batch.rows)
            rounded |= batch.rounded
            first += len(batch)
    if rounded:
        warn_of_rounding(Path(path).name)
    if len(batches) == 1:
        return batches[0], source.matched
    return {port.name: np.concatenate([rows[port.name] for rows in batches]) for port in ports}, source.matched


@contextmanager
def open_rows(
    path: str | Path, ports: Sequence[Port], *, dtype: str | None = None, whole: bool = False, **options: Any
) -> Generator[Source]:
    """A file of rows, to be read in one batch or more, of any size if ``whole``; ``options`` are the format's own.

    Raises InputError and MissingPackageError, as ``read_inputs``.
    """
    path, rounding = Path(path), allows_rounding(dtype)
    file_format = format_of(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    for name in [name for name, value in options.items() if value and name not in file_format.options]:
        readers = ", ".join(each.suffixes[0] for each in FORMATS if name in each.options)
        raise InputError(f"{path}: '{name}' is for {readers} files, not for {file_format.name}")
    options = {name: value for name, value in options.items() if name in file_format.options}
    read = file_format.load(file_format.read, f"reading {file_format.name}")
    with ExitStack() as stack:
        with name_in_errors(path):
            source = stack.enter_context(read(path, ports, rounding, whole, **options))
        if whole:
            source = replace(source, decoders=_bounded(source.decoders, most_bytes(path)))
        limits = index_limits(ports)
        if limits:
            source = replace(source, decoders=(partial(_check_indices, decode, limits) for decode in source.decoders))
        yield source


def _bounded(decoders: Iterator[Callable[[], Batch]], limit: int) -> Iterator[Callable[[], Batch]]:
    """The decoders of a file whose rows are all kept: the one after the limit of bytes raises InputError."""
    sizes: list[int] = []

    def decode(inner: Callable[[], Batch]) -> Batch:
        batch = inner()
        sizes.append(sum(rows.nbytes for rows in batch.rows.values()))
        if sum(sizes) > limit:
            raise too_large(sum(sizes), limit)
        return batch

    return (partial(decode, inner) for inner in decoders)


def _check_indices(decode: Callable[[], Batch], limits: Sequence[IndexLimits]) -> Batch:
    """A batch, with the flaws of its indices."""
    batch = decode()
    failed = failed_rows(batch.flaws)
    flaws = [each.flaw(batch.rows[each.port.name], failed) for each in limits]
    return replace(batch, flaws=[*batch.flaws, *filter(None, flaws)])


@contextmanager
def name_in_errors(path: str | Path) -> Generator[None]:
    """Errors about the rows of a file name the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
