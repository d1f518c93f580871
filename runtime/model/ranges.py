"""Rows that leave the ranges which a file declares for its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from .port import Port


@dataclass(frozen=True)
class Outside:
    """How often one feature left its declared range, and where first."""

    feature: str
    """Its name, or its place in a row, counted from 1."""
    rows: int
    first_row: int
    """Counted from 1."""
    value: float
    """In the first row; NaN is outside every range."""
    range: tuple[float, float]
    unit: str | None = None


def in_words(limits: tuple[float, float]) -> str:
    """``0 to 30``, with every digit."""
    return f"{_short(limits[0])} to {_short(limits[1])}"


def limits(port: Port) -> tuple[np.ndarray, np.ndarray] | None:
    """The lowest and the highest value of the features, float64 (features,) or (1,) for all; NaN where none is given.

    None where the port declares no range at all.
    """
    given = port.ranges if port.ranges is not None else (None,)
    both = np.array([own or port.range or (np.nan, np.nan) for own in given], np.float64)
    return None if np.isnan(both).all() else (both[:, 0], both[:, 1])


def outside(rows: np.ndarray, port: Port) -> tuple[int, tuple[Outside, ...]]:
    """How many of the float32 rows (batch, *row) leave a range that ``port`` declares, and each feature that does.

    A limit counts as the float32 nearest to it, as the values do.
    """
    count, features = outside_by_place(rows, port)
    return count, tuple(features.values())


def outside_by_place(rows: np.ndarray, port: Port, without: np.ndarray | None = None) -> tuple[int, dict[int, Outside]]:
    """As ``outside``, with the features by their place in a row, in order.

    The rows of ``without`` (bool) do not count.
    """
    found = limits(port)
    if found is None or not rows.size:
        return 0, {}
    declared = ~np.isnan(found[0])
    low, high = (limit.astype(np.float32) for limit in found)
    flat = rows.reshape(len(rows), -1)
    left = declared & ~((flat >= low) & (flat <= high))
    if without is not None:
        left &= ~without[:, None]
    counts = np.count_nonzero(left, axis=0)
    features = {int(i): _told(flat, left, port, int(i), int(counts[i])) for i in np.flatnonzero(counts)}
    return int(left.any(axis=1).sum()) if features else 0, features


class OutsideTally:
    """What several batches together leave of their ranges."""

    def __init__(self) -> None:
        self.rows = 0
        self._features: dict[int, Outside] = {}

    def add(self, rows: int, features: dict[int, Outside], first: int) -> None:
        """Count what ``outside_by_place`` found in a batch with ``first`` rows before it."""
        self.rows += rows
        for place, found in features.items():
            known = self._features.get(place) or replace(found, rows=0, first_row=found.first_row + first)
            self._features[place] = replace(known, rows=known.rows + found.rows)

    @property
    def features(self) -> tuple[Outside, ...]:
        return tuple(self._features[place] for place in sorted(self._features))


def told(count: int, features: Sequence[Outside], rows: int, origin: str, *, line: bool = False) -> str:
    """In words: how many rows leave the declared ranges, and the first of them; ``line`` counts as a CSV file does."""
    first = min(features, key=lambda feature: feature.first_row)
    place = f"line {first.first_row + 1}" if line else f"row {first.first_row}"
    unit = f" {first.unit}" if first.unit else ""
    values = f"{_short(first.value)}{unit}, and its range is {in_words(first.range)}{unit}"
    where = f"in {len(features):,} features, first" if len(features) > 1 else "in"
    ranges = f"{count:,} of the {rows:,} rows of {origin} are outside the declared ranges"
    return f"{ranges}, {where} '{first.feature}' in {place}: {values}"


def _told(flat: np.ndarray, left: np.ndarray, port: Port, column: int, count: int) -> Outside:
    row = int(left[:, column].argmax())
    own = port.ranges[column] if port.ranges is not None else None
    given = own or port.range
    assert given is not None  # or the column would not be declared
    name = feature_at(column, port, flat.shape[1])
    unit = port.units[column] if port.units is not None else None
    return Outside(name, count, row + 1, float(str(flat[row, column])), (given[0], given[1]), unit)


def feature_at(column: int, port: Port, width: int) -> str:
    """The name of a feature by its place in a row of ``width`` values, or else that place, counted from 1."""
    if port.features is not None:
        return port.features[column]
    shape = [size for size in port.shape[1:] if isinstance(size, int)]
    whole = len(shape) == len(port.shape) - 1 and prod(shape) == width
    return ", ".join(str(int(index) + 1) for index in np.unravel_index(column, shape if whole else (width,)))


def _short(value: float) -> str:
    return f"{value!r}".removesuffix(".0")
