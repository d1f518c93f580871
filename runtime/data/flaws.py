"""Rows that a model cannot take, and how an error names the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import InputError

CORRECT_OR_DROP = "correct or drop those rows"


@dataclass(frozen=True)
class RowNumbers:
    """How a user counts the rows of a batch: ``RowNumbers(first=10)(0)`` is ``"row 11"``."""

    first: int = 0
    """The number of rows before the batch."""
    lines: bool = False
    """As lines of a text file whose first line is the header."""
    complete: bool = True
    """Whether the batch holds all rows."""

    def __call__(self, row: int) -> str:
        """``row 1`` or ``line 2`` for the first row of the batch, whose ``row`` is 0."""
        return f"line {self.first + row + 2}" if self.lines else f"row {self.first + row + 1}"


@dataclass(frozen=True)
class Flaw:
    """Rows of a batch that cannot be used, all for the same kind of reason."""

    rows: np.ndarray
    """bool (rows,)"""
    message: Callable[[RowNumbers], str]
    """Names the first of them."""
    reason: Callable[[int], str]
    """Why one of them, counted from 0 in the batch, cannot be used."""
    hint: str = CORRECT_OR_DROP
    fatal: bool = False
    """It concerns the type of the whole data, so that leaving rows out would not help."""

    def error(self, numbers: RowNumbers | None = None, *, may_skip: bool = False) -> InputError:
        """The error that ends the run; ``may_skip``: the user can have such rows skipped."""
        skip = ", or give those rows empty results with on_error='null' (--on-error null)"
        hint = self.hint + (skip if may_skip and not self.fatal else "")
        return InputError(f"{self.message(numbers or RowNumbers())}. What to do: {hint}")


def flaw_of_values(
    wrong: np.ndarray, describe: Callable[[int, int, str], str], hint: str = CORRECT_OR_DROP, *, fatal: bool = False
) -> Flaw:
    """The flaw of the values that are ``wrong``, bool (rows, ...), at least one of them.

    ``describe`` is called with the row and the column of a value, counted from 0, and the row's number for the user,
    which is "" where the text should not name the row.
    """
    flat = wrong.reshape(len(wrong), -1)
    row, column = first_of(flat)
    return Flaw(
        np.asarray(flat.any(axis=1)),
        lambda numbers: describe(row, column, numbers(row)),
        lambda row: describe(row, int(flat[row].argmax()), ""),
        hint,
        fatal,
    )


def first_of(wrong: np.ndarray) -> tuple[int, int]:
    """The row and the column, counted from 0, of the first true value of an array (rows, ...)."""
    flat = wrong.reshape(len(wrong), -1)
    row = int(flat.any(axis=1).argmax())
    return row, int(flat[row].argmax())


def in_order(flaws: Iterable[Flaw]) -> list[Flaw]:
    """Those of the whole data first, then by their first rows, as a user meets them."""
    return sorted(flaws, key=lambda flaw: (not flaw.fatal, int(flaw.rows.argmax())))


def failed_rows(flaws: Sequence[Flaw]) -> np.ndarray | None:
    """The rows of any of the flaws, bool (rows,); None without flaws."""
    return np.logical_or.reduce([flaw.rows for flaw in flaws]) if flaws else None


def location(*parts: str) -> str:
    """``'x', row 3, feature 2``, without the parts that are empty."""
    return ", ".join(filter(None, parts))
