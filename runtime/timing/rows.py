"""The rows that a file is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.data.file_formats import read_inputs
from runtime.errors import InputError
from runtime.model.port import Port
from runtime.model.ranges import limits
from runtime.session.session import Session

BULK = 1024
MOST_ROWS = 20_000
"""Rows that are compared; of more, so many that are spread evenly over them."""


def described_inputs(session: Session) -> tuple[Port, ...]:
    """The inputs with their features and ranges, where the file's metadata has them."""
    known = {port.name: port for port in session.summary.inputs} if session.summary is not None else {}
    return tuple(known.get(port.name, port) for port in session.inputs)


def seeded_rows(ports: Sequence[Port], rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Standard normal float32 rows by the inputs' names, (rows, *row) each; whole numbers where a port takes indices.

    Where a port declares a range, its middle and a quarter of its width take the places of 0 and 1, and what falls
    outside is put on its edge. Indices are evenly spread between their limits, and 0 where the file names none.
    Raises InputError: the file leaves the shape of a row open.
    """
    rng, found = np.random.default_rng(seed), {}
    for port in ports:
        shape = [size for size in port.shape[1:] if isinstance(size, int)]
        if len(shape) != len(port.shape) - 1:
            told = ", ".join(map(str, port.shape))
            raise InputError(f"'{port.name}' has rows of an open shape ({told}). What to do: give rows with --data")
        values = rng.standard_normal((rows, int(np.prod(shape))), dtype=np.float32)
        declared = limits(port)
        if declared is not None:
            low, high = (np.broadcast_to(limit, values.shape[1]) for limit in declared)
            known = ~np.isnan(low)
            drawn = values[:, known] * (high - low)[known] / 4 + (low + high)[known] / 2
            values[:, known] = np.clip(drawn, low[known], high[known])
        found[port.name] = _with_indices(values, port, rng).reshape(rows, *shape)
    return found


def _with_indices(values: np.ndarray, port: Port, rng: np.random.Generator) -> np.ndarray:
    """The rows (rows, features) in the port's dtype, with indices in the places that take some."""
    if port.indices is None:
        return values if port.dtype == "float32" else np.zeros(values.shape, port.dtype)
    found = values.astype(port.dtype)
    for column, allowed in enumerate(port.indices):
        if allowed is not None:
            found[:, column] = rng.integers(*allowed, len(values), endpoint=True)
        elif port.dtype == "int64":
            found[:, column] = 0
    return found


def repeated(arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """So many rows of what is given, from the first on and again from there."""
    places = np.arange(rows) % len(next(iter(arrays.values())))
    return {name: np.ascontiguousarray(array[places]) for name, array in arrays.items()}


def rows_of_file(data: Path, ports: Sequence[Port], dtype: str | None) -> dict[str, np.ndarray]:
    """The rows of a data file for every input. Raises InputError: see ``read_inputs``, or the file has no rows."""
    found, _ = read_inputs(data, ports, dtype=dtype)
    if not len(next(iter(found.values()))):
        raise InputError(f"{data}: it has no rows to measure with")
    return found


def spread(rows: Mapping[str, np.ndarray], most: int = MOST_ROWS) -> dict[str, np.ndarray]:
    """At most so many of the rows, evenly spread over them."""
    count = len(next(iter(rows.values())))
    if count <= most:
        return dict(rows)
    places = np.arange(most) * count // most
    return {name: np.ascontiguousarray(values[places]) for name, values in rows.items()}


def batches(
    rows: Mapping[str, np.ndarray], fixed: int | str, size: int = BULK
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """``size`` rows at a time, and how many of them only fill up: a file that fixes its batch gets that many, the last
    row again and again.
    """
    step = fixed if isinstance(fixed, int) else size
    for start in range(0, len(next(iter(rows.values()))), step):
        chunk = {name: values[start : start + step] for name, values in rows.items()}
        fill = step - len(next(iter(chunk.values()))) if isinstance(fixed, int) else 0
        if fill:
            chunk = {name: np.concatenate([v, np.repeat(v[-1:], fill, axis=0)]) for name, v in chunk.items()}
        yield chunk, fill
