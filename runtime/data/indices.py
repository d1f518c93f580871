"""Indices into the tables of a model: whole numbers between limits that its file sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from runtime.model.port import LARGEST_INT, SMALLEST_INT, Port, format_feature

from .arrays import WHOLE_NUMBERS_HINT
from .flaws import Flaw, flaw_of_values, location


class IndexLimits:
    """The whole numbers that ``port.indices`` allows, prepared for checking rows."""

    def __init__(self, port: Port):
        self._limits = port.indices or ()
        self.port: Port = port
        self._is_integer = port.dtype == "int64"
        dtype = np.int64 if self._is_integer else np.float64
        self._has_limits = np.array([pair is not None for pair in self._limits], bool)
        self._low = np.array([SMALLEST_INT if pair is None else pair[0] for pair in self._limits], dtype)
        self._high = np.array([LARGEST_INT if pair is None else pair[1] for pair in self._limits], dtype)

    def flaw(self, rows: np.ndarray, excluded: np.ndarray | None = None) -> Flaw | None:
        """The flaw of the values that are not allowed, NaN among them; None if all are.

        ``rows`` (batch, *row) are of the port's dtype. The rows ``excluded``, bool (batch,), are not checked.
        """
        values = rows.reshape(len(rows), len(self._low))
        allowed = (values >= self._low) & (values <= self._high)
        if not self._is_integer:
            allowed &= np.floor(values) == values
            allowed |= ~self._has_limits
        if excluded is not None:
            allowed |= excluded[:, None]
        if allowed.all():
            return None

        def describe(row: int, column: int, number: str) -> str:
            low, high = self._limits[column] or (SMALLEST_INT, LARGEST_INT)
            where = location(f"'{self.port.name}'", number, format_feature(self.port, column, rows.shape[1:]))
            return f"{where}: {values[row, column]!s} is not a whole number from {low} to {high}"

        return flaw_of_values(~allowed, describe, WHOLE_NUMBERS_HINT)

    def check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises InputError naming the first value of the port's rows that is not allowed."""
        flaw = self.flaw(inputs[self.port.name])
        if flaw is not None:
            raise flaw.error()


def index_limits(ports: Sequence[Port]) -> tuple[IndexLimits, ...]:
    """The limits of the ports that have any."""
    return tuple(IndexLimits(port) for port in ports if port.indices is not None)


def allowed_rows(port: Port, shape: Sequence[int]) -> np.ndarray:
    """Rows of this shape (batch, *row) that the port allows: every value is 0, or the lowest index if 0 is not one."""
    limits = port.indices if port.indices is not None else (None,)
    row = [0 if pair is None or pair[0] <= 0 <= pair[1] else pair[0] for pair in limits]
    values = np.broadcast_to(np.array(row, port.dtype), (shape[0], int(np.prod(shape[1:]))))
    return np.ascontiguousarray(values).reshape(tuple(shape))
