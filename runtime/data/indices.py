"""Whole numbers that a model takes: int64 inputs, and the indices of a table, which have a lowest and a highest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.model.port import LARGEST_INT, SMALLEST_INT, Port
from runtime.model.ranges import feature_at

_EXACT = 2**53
"""From here on floats no longer tell neighbouring whole numbers apart."""
HINT = "What to do: give whole numbers, encoded as those that the model was trained on"
NO_BOOL = "holds bool, and the model takes whole numbers (int64): True and False name no row of a table"
BOOL_HINT = "What to do: where 0 and 1 are meant, convert it with x.astype(numpy.int64)"


def int64_of(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """An array of numbers as int64, without a copy where it is; and which are no whole number of int64, or None.

    Floats count as whole below 2**53, where they are exact. In the places that are wrong stands 0.
    """
    if array.dtype == np.int64 and array.dtype.isnative:
        return array, None
    if array.dtype.kind == "f":
        values = array.astype(np.float64, copy=False)
        wrong = ~((np.floor(values) == values) & (np.abs(values) < _EXACT))
    elif array.dtype.kind == "u":
        wrong = array > LARGEST_INT
    else:
        return array.astype(np.int64), None
    if not wrong.any():
        return array.astype(np.int64), None
    return np.where(wrong, array.dtype.type(0), array).astype(np.int64), wrong


def first_of(wrong: np.ndarray) -> tuple[int, int]:
    """Row and column of the first true value of an array (rows, ...), each counted from 0."""
    flat = wrong.reshape(len(wrong), -1)
    row = int(flat.any(axis=1).argmax())
    return row, int(flat[row].argmax())


def not_whole(array: np.ndarray, port: Port, row: int, column: int, where: str) -> str:
    """The message for a value of ``array`` (rows, ...) that ``int64_of`` finds wrong; ``where`` names its row."""
    flat = array.reshape(len(array), -1)
    return f"{_place(port, column, flat.shape[1], where)}: {why_wrong(flat[row, column])}"


def why_wrong(value: np.generic) -> str:
    """What ``int64_of`` has against a value, in words."""
    if value.dtype.kind == "f" and np.isfinite(value) and np.floor(value) == value:
        return f"{value!s} is a float from 2**53 on, where floats skip whole numbers"
    return f"{value!s} is not a whole number that int64 holds"


class IndexLimits:
    """The whole numbers that ``port.indices`` allows, made ready to check rows with."""

    def __init__(self, port: Port):
        given = port.indices or ()
        self.port, self._whole = port, port.dtype == "int64"
        self._checked = np.array([limits is not None for limits in given], bool)
        kind = np.int64 if self._whole else np.float64
        self._low = np.array([SMALLEST_INT if limits is None else limits[0] for limits in given], kind)
        self._high = np.array([LARGEST_INT if limits is None else limits[1] for limits in given], kind)

    def wrong(self, rows: np.ndarray) -> np.ndarray | None:
        """Which of the values (rows, features) are not allowed, as bool; None where all are.

        ``rows`` (batch, *row) are of the port's dtype. NaN is no index.
        """
        flat = rows.reshape(len(rows), len(self._low))
        right = (flat >= self._low) & (flat <= self._high)
        if not self._whole:
            right &= np.floor(flat) == flat
            right |= ~self._checked
        return None if right.all() else ~right

    def words(self, rows: np.ndarray, row: int, column: int, where: str = "") -> str:
        """The message for the value in a row and column that is not allowed; ``where`` names the row in it."""
        flat = rows.reshape(len(rows), -1)
        assert self.port.indices is not None
        low, high = self.port.indices[column] or (SMALLEST_INT, LARGEST_INT)
        place = _place(self.port, column, flat.shape[1], where)
        return f"{place}: {flat[row, column]!s} is not a whole number from {low} to {high}"


def index_limits(ports: Sequence[Port]) -> tuple[IndexLimits, ...]:
    """The limits of the ports that have any."""
    return tuple(IndexLimits(port) for port in ports if port.indices is not None)


def allowed_row(port: Port) -> np.ndarray:
    """A row (features,) that the port allows: 0, or its lowest index; (1,) where the file sets no limits."""
    given = port.indices if port.indices is not None else (None,)
    return np.array([0 if limits is None or limits[0] <= 0 <= limits[1] else limits[0] for limits in given], port.dtype)


def allowed_rows(port: Port, shape: Sequence[int]) -> np.ndarray:
    """Rows of this shape (batch, *row), each as ``allowed_row`` has it."""
    width = int(np.prod(shape[1:]))
    return np.ascontiguousarray(np.broadcast_to(allowed_row(port), (shape[0], width))).reshape(tuple(shape))


def _place(port: Port, column: int, width: int, where: str) -> str:
    feature = feature_at(column, port, width)
    place = f"'{port.name}', {where}" if where else f"'{port.name}'"
    return f"{place}, feature {feature if port.features is None else repr(feature)}"
