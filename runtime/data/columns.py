"""Which columns of a table are a model's features, and what they hold as float32 or int64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port

from .arrays import float32_of, would_change
from .headers import by_feature
from .indices import BOOL_HINT, NO_BOOL, IndexLimits, first_of, index_limits, int64_of, why_wrong


@dataclass(frozen=True)
class Matching:
    """The columns of a table that a model takes."""

    ports: tuple[Port, ...]
    chosen: tuple[int, ...]
    """Their places in the table, in the order of the model's features."""
    how: str
    """In words: by name or by order, and what is not used."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of the chosen columns, as their inputs take them."""
        return tuple(port.dtype for port, width in self._widths() for _ in range(width))

    def rows_of(self, columns: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The rows of every input, C-contiguous (rows, *row), from the chosen columns (rows,), in order."""
        found, start = {}, 0
        for port, width in self._widths():
            shape = tuple(size for size in port.shape[1:] if isinstance(size, int))
            matrix = _interleaved(columns[start : start + width], port.dtype)
            start += width
            whole = prod(shape) == width and len(shape) == len(port.shape) - 1
            found[port.name] = matrix.reshape(len(matrix), *(shape if whole else (width,)))
        return found

    def empty(self, rows: int) -> dict[str, np.ndarray]:
        """So many rows of zeros for every input."""
        return self.rows_of([np.zeros(rows, dtype) for dtype in self.dtypes])

    def _widths(self) -> list[tuple[Port, int]]:
        """Each input, and how many columns are its."""
        if len(self.ports) == 1:
            return [(self.ports[0], len(self.chosen))]
        return [(port, prod(size for size in port.shape[1:] if isinstance(size, int))) for port in self.ports]


def matching(headers: Sequence[str], ports: Sequence[Port], *, holder: str = "the file") -> Matching:
    """Match a table's columns with the inputs' features by name (and unit), or by order where a model names none.

    Several inputs take the columns of their features, or for an input ``obs`` without named features the columns
    ``obs_0``, ``obs_1`` and so on, or ``obs`` where it has only one. ``holder`` is what messages call the table.
    Raises InputError: missing or doubled columns, another unit, another number of columns.
    """
    port = ports[0] if len(ports) == 1 else _joined(ports)
    if port.features is None:
        width = port.shape[-1]
        if len(port.shape) != 2 or (isinstance(width, int) and width != len(headers)):
            expected = f"rows of shape {list(port.shape[1:])}" if len(port.shape) != 2 else f"{width} columns"
            message = f"'{port.name}' expects {expected} and the model names no features; {holder} has {len(headers)}"
            raise InputError(f"{message}: {few(headers)}")
        return Matching(tuple(ports), tuple(range(len(headers))), "columns by order")
    places, other_unit = by_feature(headers, port)
    missing = [name for name in port.features if not places[name]]
    other = next((name for name in missing if name in other_unit), None)
    if other is not None:
        header, unit, own = other_unit[other]
        message = f"column '{header}' is in {unit or 'no unit'}, and the model takes '{other}' in {own}"
        raise InputError(f"{message}. What to do: convert it, and name it '{other} [{own}]' or '{other}'")
    if missing:
        message = f"{len(missing)} of the model's {len(port.features)} columns are missing: {few(missing)}"
        raise InputError(f"{message}; {holder} has {few(headers)}")
    doubled = sorted(name for name in port.features if len(places[name]) > 1)
    if doubled:
        both = [headers[index] for index in places[doubled[0]]]
        raise InputError(f"{holder} has more than one column named {few(doubled)}: {few(both)}")
    chosen = tuple(places[name][0] for name in port.features)
    unused = [name for index, name in enumerate(headers) if index not in set(chosen)]
    return Matching(tuple(ports), chosen, "columns by name" + (f", {few(unused)} not used" if unused else ""))


def _joined(ports: Sequence[Port]) -> Port:
    """Several inputs as one whose features are all of theirs."""
    names: list[str] = []
    units: list[str | None] = []
    for port in ports:
        width = prod(size for size in port.shape[1:] if isinstance(size, int))
        own = port.features or ((port.name,) if width == 1 else tuple(f"{port.name}_{i}" for i in range(width)))
        names += own
        units += port.units or [None] * len(own)
    return Port("the inputs", ("batch", len(names)), features=tuple(names), units=tuple(units))


@dataclass(frozen=True)
class Column:
    """A column of numbers."""

    name: str
    values: np.ndarray
    """(rows,) of any dtype of numbers; where a value is missing, any."""
    missing: np.ndarray | None = None
    """bool (rows,); None where no value is."""


@dataclass(frozen=True)
class Counted:
    """How the rows of a batch are counted for a user."""

    first: int = 0
    """The rows before the batch."""
    lines: bool = False
    """As lines of a CSV file, whose first line is the header."""
    whole: bool = True
    """There are no other rows."""

    def __call__(self, row: int) -> str:
        return f"line {self.first + row + 2}" if self.lines else f"row {self.first + row + 1}"


@dataclass(frozen=True)
class Flaw:
    """Rows of a batch that cannot be read, all for one kind of reason."""

    rows: np.ndarray
    """bool (rows,)"""
    message: Callable[[Counted], str]
    """The error that names the first of them."""
    reason: Callable[[int], str]
    """Why one of them, counted from 0 in the batch, cannot be read."""
    fatal: bool = False
    """It says something about the whole file, so that leaving its rows out would be no remedy."""


_HINT = "What to do: correct or drop those rows, or give them empty results with on_error='null' (--on-error null)"


def not_numbers(name: str, kind: str) -> InputError:
    """The error for a column that holds something else, in its library's word."""
    return InputError(f"column '{name}' holds {kind}, not numbers")


def gaps(name: str, missing: np.ndarray) -> Flaw:
    """The flaw of empty values in a column."""

    def message(counted: Counted) -> str:
        many = f"{int(missing.sum())} empty values" if counted.whole else "empty values"
        return f"column '{name}' has {many}, the first in {counted(int(missing.argmax()))}. {_HINT}"

    return Flaw(missing, message, lambda row: f"column '{name}' is empty")


def wrong_texts(name: str, wrong: np.ndarray, why: Callable[[int], str]) -> Flaw:
    """The flaw of texts in a column that are no numbers; ``why`` says it of a row, as ``'tall' is not a number``."""
    first = int(wrong.argmax())
    return Flaw(
        wrong,
        lambda counted: f"column '{name}', {counted(first)}: {why(first)}. {_HINT}",
        lambda row: f"column '{name}': {why(row)}",
    )


def numbers_as(dtype: str, array: np.ndarray, what: str, *, rounding: bool) -> tuple[np.ndarray, Flaw | None]:
    """Numbers (rows, ...) as float32 or int64, and the flaw of those that have no place in it.

    For float32 it is fatal without ``rounding``. Raises InputError: bool for int64.
    """
    return _int64_rows(array, what) if dtype == "int64" else _float32_rows(array, what, rounding=rounding)


def _int64_rows(array: np.ndarray, what: str) -> tuple[np.ndarray, Flaw | None]:
    if array.dtype.kind == "b":
        raise InputError(f"{what} {NO_BOOL}. {BOOL_HINT}")
    found, wrong = int64_of(array)
    if wrong is None:
        return found, None
    flat, odd = array.reshape(len(array), -1), wrong.reshape(len(array), -1)

    def told(row: int, column: int) -> str:
        feature = f", feature {column + 1}" if array.ndim > 1 else ""
        return f"{feature}: {why_wrong(flat[row, column])}"

    row, column = first_of(wrong)
    return found, Flaw(
        np.asarray(odd.any(axis=1)),
        lambda counted: f"{what}, {counted(row)}{told(row, column)}. {_HINT}",
        lambda row: f"{what}{told(row, int(odd[row].argmax()))}",
    )


def index_flaws(rows: Mapping[str, np.ndarray], ports: Sequence[Port], without: np.ndarray | None = None) -> list[Flaw]:
    """The flaw of every input with indices beyond its limits; the rows of ``without`` (bool) do not count."""
    flaws = []
    for limits in index_limits(ports):
        held = rows[limits.port.name]
        wrong = limits.wrong(held)
        if wrong is not None and without is not None:
            wrong &= ~without[:, None]
        if wrong is not None and wrong.any():
            flaws.append(_index_flaw(limits, held, wrong))
    return flaws


def _index_flaw(limits: IndexLimits, rows: np.ndarray, wrong: np.ndarray) -> Flaw:
    row, column = first_of(wrong)
    return Flaw(
        np.asarray(wrong.any(axis=1)),
        lambda counted: f"{limits.words(rows, row, column, counted(row))}. {_HINT}",
        lambda at: limits.words(rows, at, int(wrong[at].argmax())),
    )


def _float32_rows(array: np.ndarray, what: str, *, rounding: bool) -> tuple[np.ndarray, Flaw | None]:
    found, changed = float32_of(array, rounding=rounding)
    if changed is None:
        return found, None

    def message(counted: Counted) -> str:
        text = would_change(array, found, changed, what, rounding=rounding, first=counted.first)
        return f"{text}. {_HINT}" if rounding else text

    rows = np.asarray(changed.reshape(len(changed), -1).any(axis=1))
    return found, Flaw(rows, message, lambda row: f"{what} is too large for float32", fatal=not rounding)


def columns_to_rows(
    columns: Sequence[Column], matched: Matching, *, rounding: bool
) -> tuple[dict[str, np.ndarray], list[Flaw]]:
    """The rows of every input from the chosen columns, and the flaws of rows that are missing, too large or inexact.

    Raises InputError for columns of unequal length, and of bool for an int64 input.
    """
    odd = next((column for column in columns if len(column.values) != len(columns[0].values)), None)
    if odd is not None:
        found, wanted = len(odd.values), len(columns[0].values)
        raise InputError(f"column '{odd.name}' has {found} rows, and '{columns[0].name}' has {wanted}")
    flaws: list[Flaw] = []
    converted: list[np.ndarray] = []
    for column, dtype in zip(columns, matched.dtypes, strict=True):
        values = column.values
        if column.missing is not None and column.missing.any():
            flaws.append(gaps(column.name, column.missing))
            values = np.where(column.missing, values.dtype.type(0), values)
        found, flaw = numbers_as(dtype, values, f"column '{column.name}'", rounding=rounding)
        converted.append(found)
        if flaw is not None:
            flaws.append(flaw)
    return matched.rows_of(converted), flaws


def _interleaved(columns: Sequence[np.ndarray], dtype: str) -> np.ndarray:
    """Columns (rows,) as a C-contiguous matrix (rows, columns)."""
    rows = len(columns[0]) if columns else 0
    matrix = np.empty((rows, len(columns)), dtype)
    for start in range(0, rows, 1024):  # as many rows as stay in the cache until every column is in them
        part = matrix[start : start + 1024]
        for index, column in enumerate(columns):
            part[:, index] = column[start : start + 1024]
    return matrix


def few(names: Sequence[str]) -> str:
    """The first six names, and how many there are besides."""
    shown = ", ".join(f"'{name}'" for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
