"""Rows for a model from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port

from .batches import Source, ahead
from .columns import Counted, index_flaws
from .format_arrow import ipc, parquet
from .format_csv import csv_file
from .format_numpy import npy, npz


def read_rows(path: str | Path, port: Port, *, dtype: str | None = None) -> tuple[np.ndarray, str]:
    """The rows of a ``.npy``, ``.npz``, ``.csv``, ``.parquet`` or ``.arrow`` file, and how they match.

    Columns are matched by name where the port names its features (a header may carry the unit, as in
    ``speed [m/s]``), else by order. For a float32 port numbers in a CSV file become the nearest float32; in the other
    formats a value that float32 cannot hold is an error unless ``dtype="float32"``. For int64 each must be whole.
    Raises InputError: unreadable file, missing columns, another unit, text or gaps where numbers are expected, a
    wrong number of features, an index beyond its limits; MissingPackageError: polars is not there for CSV, or pyarrow
    for Parquet and Arrow.
    """
    rows, matched = read_inputs(path, [port], dtype=dtype)
    return rows[port.name], matched


def read_inputs(
    path: str | Path, ports: Sequence[Port], *, dtype: str | None = None
) -> tuple[dict[str, np.ndarray], str]:
    """The rows of a file for every input of a model, by name, and how they were matched; otherwise as ``read_rows``.

    For several inputs a ``.npz`` file holds an array of each name; a table holds their features' columns, or for an
    input ``obs`` without named features the columns ``obs_0``, ``obs_1`` and so on, or ``obs`` where it has only one.
    """
    with opened(path, ports, dtype=dtype, whole=True) as source, told_of(path):
        batches, first = [], 0
        for batch in ahead(source.pieces):
            if flaws := batch.flaws or index_flaws(batch.rows, ports):
                counted = Counted(first, source.lines, whole=first == 0 and batch.share == 1)
                raise InputError(flaws[0].message(counted))
            batches.append(batch.rows)
            first += len(batch)
    if len(batches) == 1:
        return batches[0], source.matched
    return {port.name: np.concatenate([rows[port.name] for rows in batches]) for port in ports}, source.matched


@contextmanager
def opened(
    path: str | Path, ports: Sequence[Port], *, dtype: str | None = None, whole: bool = False
) -> Iterator[Source]:
    """A file of rows, to be read in batches, of which there is at least one; ``whole`` allows any size of them.

    Raises InputError and MissingPackageError, as ``read_inputs``.
    """
    path = Path(path)
    if dtype not in (None, "float32"):
        raise InputError(f"dtype is 'float32' or left out, not {dtype!r}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: data is read from {', '.join(READERS)} files, not from '{path.suffix}'")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with told_of(path):
        context = reader(path, ports, dtype is not None, whole)
        source = context.__enter__()
    try:
        yield source
    finally:
        context.__exit__(None, None, None)


@contextmanager
def told_of(path: str | Path) -> Iterator[None]:
    """Errors about the rows of a file name the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


Reader = Callable[[Path, Sequence[Port], bool, bool], AbstractContextManager[Source]]
READERS: dict[str, Reader] = {
    ".npy": npy,
    ".npz": npz,
    ".csv": csv_file,
    ".parquet": parquet,
    ".arrow": ipc,
    ".feather": ipc,
}
"""The formats of data: from a path, the inputs, whether rounding is allowed, and whether batches may be of any size."""
