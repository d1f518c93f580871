"""The rows that files are measured and compared on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.data.reading import read_inputs
from runtime.errors import InputError
from runtime.model.port import Port, limits
from runtime.session.session import Session

BATCH = 1024


def described_inputs(session: Session) -> tuple[Port, ...]:
    """The inputs with their features and ranges, where the file's metadata has them."""
    described = {port.name: port for port in session.summary.inputs} if session.summary is not None else {}
    return tuple(described.get(port.name, port) for port in session.inputs)


def count_rows(rows: Mapping[str, np.ndarray]) -> int:
    """The number of rows, which is the same for every input."""
    return len(next(iter(rows.values())))


def check_batch(session: Session, batch: int | None) -> int | None:
    """The rows of a call: ``batch``, or what the file fixes, or None where both leave it open.

    Raises InputError: not a number of rows, or another than the file fixes.
    """
    fixed = next((port.shape[0] for port in session.inputs if isinstance(port.shape[0], int)), None)
    if batch is not None and batch < 1:
        raise InputError(f"a batch has at least 1 row, not {batch}")
    if batch is not None and fixed is not None and batch != fixed:
        hint = f"give --batch {fixed}, or leave it out"
        raise InputError(f"{session.path}: takes batches of exactly {fixed} rows, not {batch}. What to do: {hint}")
    return fixed if batch is None else batch


def seeded_rows(ports: Sequence[Port], count: int) -> dict[str, np.ndarray]:
    """Standard normal float32 rows by the inputs' names, (count, *row) each; whole numbers where a port takes indices.

    Where a port declares a range, its middle and a quarter of its width take the place of 0 and 1, and values outside
    are clipped to it. Indices are evenly distributed between their limits, and 0 where the file names none.
    Raises InputError: the file leaves the shape of a row open.
    """
    rng = np.random.default_rng(0)
    rows: dict[str, np.ndarray] = {}
    for port in ports:
        shape = [size for size in port.shape[1:] if isinstance(size, int)]
        if len(shape) != len(port.shape) - 1:
            sizes = ", ".join(map(str, port.shape))
            raise InputError(f"'{port.name}' has rows of an open shape ({sizes}). What to do: give rows with --data")
        values = rng.standard_normal((count, int(np.prod(shape))), dtype=np.float32)
        declared = limits(port)
        if declared is not None:
            low, high = (np.broadcast_to(limit, values.shape[1]) for limit in declared)
            known = ~np.isnan(low)
            scaled = values[:, known] * (high - low)[known] / 4 + (low + high)[known] / 2
            values[:, known] = np.clip(scaled, low[known], high[known])
        rows[port.name] = _with_indices(values, port, rng).reshape(count, *shape)
    return rows


def _with_indices(values: np.ndarray, port: Port, rng: np.random.Generator) -> np.ndarray:
    """The rows (rows, features) in the port's dtype, with indices in the columns that take some."""
    if port.indices is None:
        return values if port.dtype == "float32" else np.zeros(values.shape, port.dtype)
    values = values.astype(port.dtype)
    for column, allowed in enumerate(port.indices):
        if allowed is not None:
            values[:, column] = rng.integers(*allowed, len(values), endpoint=True)
        elif port.dtype == "int64":
            values[:, column] = 0
    return values


def rows_of_file(data: Path, ports: Sequence[Port], dtype: str | None) -> dict[str, np.ndarray]:
    """The rows of a data file for every input. Raises InputError: see ``read_inputs``, or the file has no rows."""
    rows, _ = read_inputs(data, ports, dtype=dtype)
    if not count_rows(rows):
        raise InputError(f"{data}: it has no rows to measure with")
    return rows


def repeated(rows: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """So many rows: from the first on, and from the beginning again where there are fewer."""
    return _at(rows, np.arange(count) % count_rows(rows))


def spread(rows: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """At most so many of the rows, evenly spread over them."""
    count = count_rows(rows)
    return dict(rows) if count <= most else _at(rows, np.arange(most) * count // most)


def _at(rows: Mapping[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(values[indices]) for name, values in rows.items()}


def batches(
    rows: Mapping[str, np.ndarray], fixed: int | str, size: int = BATCH
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """``size`` rows at a time, and how many of them are padding.

    A file that fixes its batch gets that many; the last row is repeated to fill the last batch.
    """
    step, count = fixed if isinstance(fixed, int) else size, count_rows(rows)
    for start in range(0, count, step):
        padding = max(0, start + step - count) if isinstance(fixed, int) else 0
        indices = np.minimum(np.arange(start, min(start + step, count) + padding), count - 1)
        yield _at(rows, indices), padding
