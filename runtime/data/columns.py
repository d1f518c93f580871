"""Which columns of a table are a model's features, and their values as the rows of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any
from unicodedata import normalize

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port, Vocabulary

from .arrays import convert
from .categories import codes_of, holds_numbers, texts_of_numbers, unknown_words
from .flaws import Flaw, RowNumbers

_BRACKETS = {"]": "[", ")": "("}


@dataclass(frozen=True)
class Column:
    """A column of numbers, or of words for a feature with categories."""

    name: str
    values: np.ndarray
    """(rows,) of any dtype of numbers, arbitrary where a value is missing; or objects that are text or None."""
    missing: np.ndarray | None = None
    """bool (rows,); None if no value is missing."""


@dataclass(frozen=True)
class ColumnMatch:
    """The columns of a table that a model takes."""

    ports: tuple[Port, ...]
    indices: tuple[int, ...]
    """Of the columns in the table, in the order of the model's features."""
    description: str
    """For the user: matched by name or by order, and which columns are not used."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """What each of the columns is converted to."""
        return tuple(port.dtype for port, width in self._widths() for _ in range(width))

    @property
    def categories(self) -> tuple[Vocabulary | None, ...]:
        """The vocabulary of each of the columns; None for a column of numbers."""
        return tuple(each for port, width in self._widths() for each in port.categories or (None,) * width)

    @property
    def may_miss(self) -> tuple[bool, ...]:
        """Whether a value of each of the columns may be missing, and is NaN."""
        return tuple(port.missing for port, width in self._widths() for _ in range(width))

    def to_rows(self, columns: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The rows of every input, C-contiguous (rows, *row), from the matched columns (rows,), in order."""
        rows: dict[str, np.ndarray] = {}
        start = 0
        for port, width in self._widths():
            matrix = _interleave(columns[start : start + width], port.dtype)
            start += width
            shape = port.shape[1:]
            is_fixed = all(isinstance(size, int) for size in shape) and prod(map(int, shape)) == width
            rows[port.name] = matrix.reshape(len(matrix), *(map(int, shape) if is_fixed else (width,)))
        return rows

    def zeros(self, rows: int) -> dict[str, np.ndarray]:
        """Rows of zeros for every input."""
        return self.to_rows([np.zeros(rows, dtype) for dtype in self.dtypes])

    def _widths(self) -> list[tuple[Port, int]]:
        """Each input, and how many of the columns are its own."""
        if len(self.ports) == 1:
            return [(self.ports[0], len(self.indices))]
        return [(port, _width(port)) for port in self.ports]


def match_columns(
    headers: Sequence[str], ports: Sequence[Port], *, table: str = "the file", keep: Sequence[str] = ()
) -> ColumnMatch:
    """Match a table's columns with the inputs' features by name (and unit), or by order if the model names none.

    Several inputs take the columns of their features; an input ``obs`` without named features takes the columns
    ``obs_0``, ``obs_1`` and so on, or ``obs`` if it has only one. ``table`` is what messages call the table; its
    columns ``keep`` are used, also where no feature takes them.
    Raises InputError: missing or duplicate columns, another unit, another number of columns.
    """
    port = ports[0] if len(ports) == 1 else _combined(ports)
    if port.features is None:
        width = port.shape[-1]
        if len(port.shape) != 2 or (isinstance(width, int) and width != len(headers)):
            expected = f"rows of shape {list(port.shape[1:])}" if len(port.shape) != 2 else f"{width} columns"
            message = f"'{port.name}' expects {expected} and the model names no features; {table} has {len(headers)}"
            raise InputError(f"{message}: {format_names(headers)}")
        return ColumnMatch(tuple(ports), tuple(range(len(headers))), "columns by order")
    columns, other_units = _columns_of_features(headers, port)
    missing = [name for name in port.features if not columns[name]]
    for name in missing:
        if name in other_units:
            header, unit, expected = other_units[name]
            message = f"column '{header}' is in {unit or 'no unit'}, and the model takes '{name}' in {expected}"
            raise InputError(f"{message}. What to do: convert it, and name it '{name} [{expected}]' or '{name}'")
    if missing:
        message = f"{len(missing)} of the model's {len(port.features)} columns are missing: {format_names(missing)}"
        raise InputError(f"{message}; {table} has {format_names(headers)}")
    duplicates = sorted(name for name in port.features if len(columns[name]) > 1)
    if duplicates:
        same = format_names([headers[index] for index in columns[duplicates[0]]])
        raise InputError(f"{table} has more than one column named {format_names(duplicates)}: {same}")
    indices = tuple(columns[name][0] for name in port.features)
    unused = [name for index, name in enumerate(headers) if index not in set(indices) and name not in keep]
    description = "columns by name" + (f", {format_names(unused)} not used" if unused else "")
    return ColumnMatch(tuple(ports), indices, description)


def columns_to_rows(
    columns: Sequence[Column], match: ColumnMatch, *, rounding: bool
) -> tuple[dict[str, np.ndarray], list[Flaw]]:
    """The rows of every input from the matched columns, and the flaws: missing values, or too large or inexact ones.

    Of the numbers in float64 columns the nearest float32 is taken; ``rounding`` takes it of every number.
    Raises InputError for columns of unequal length, and for bool where an input takes int64.
    """
    for column in columns:
        if len(column.values) != len(columns[0].values):
            expected = f"'{columns[0].name}' has {len(columns[0].values)}"
            raise InputError(f"column '{column.name}' has {len(column.values)} rows, and {expected}")
    flaws: list[Flaw] = []
    converted: list[np.ndarray] = []
    of_each = zip(columns, match.dtypes, match.categories, match.may_miss, strict=True)
    for column, dtype, vocabulary, may_miss in of_each:
        values, missing = column.values, column.missing
        has_words = vocabulary is not None and (values.dtype.kind == "O" or holds_numbers(vocabulary))
        if has_words and vocabulary is not None and values.dtype.kind != "b":
            codes, wrong = encode(column, vocabulary)
            converted.append(codes)
            flaws += wrong
            continue
        if missing is not None and missing.any():
            if not may_miss:
                flaws.append(missing_values(column.name, missing))
            values = np.where(missing, values.dtype.type(0), values)
        rounds = rounding or values.dtype == np.float64
        numbers, flaw = convert(values, dtype, f"column '{column.name}'", rounding=rounds)
        if missing is not None and may_miss:
            numbers = np.where(missing, np.float32(np.nan), numbers)
        converted.append(numbers)
        if flaw is not None:
            flaws.append(flaw)
    return match.to_rows(converted), flaws


def is_rounded(columns: Sequence[Column], match: ColumnMatch) -> bool:
    """Whether float64 columns for a float32 input have values that float32 does not hold."""

    def changes(column: Column) -> bool:
        values = column.values
        with np.errstate(over="ignore"):
            changed = (values.astype(np.float32) != values) & ~np.isnan(values)
        return bool((changed if column.missing is None else changed & ~column.missing).any())

    pairs = zip(columns, match.dtypes, strict=True)
    return any(column.values.dtype == np.float64 and dtype == "float32" and changes(column) for column, dtype in pairs)


def encode(column: Column, vocabulary: Vocabulary) -> tuple[np.ndarray, list[Flaw]]:
    """The codes of a column of words, or of the whole numbers that are words, and the flaws of those that are none."""
    label, flaws = f"column '{column.name}'", list[Flaw]()
    words = column.values
    if words.dtype.kind != "O":
        words, wrong = texts_of_numbers(words)
        if column.missing is not None:
            words[column.missing], wrong = None, wrong & ~column.missing
        if wrong.any():
            values = column.values.tolist()
            flaws.append(unknown_words(label, values, wrong, vocabulary))
            words[wrong] = vocabulary.words[0]
    listed: list[Any] = words.tolist()
    codes, unknown, missing = codes_of(listed, vocabulary)
    if missing.any():
        flaws.append(missing_values(column.name, missing))
    if unknown.any():
        flaws.append(unknown_words(label, listed, unknown, vocabulary))
    return codes, flaws


def kept_columns(headers: Sequence[str], keep: Sequence[str]) -> dict[str, int]:
    """The columns to copy to the results, by name. Raises InputError: not exactly one of a name."""
    if wrong := [name for name in keep if headers.count(name) != 1]:
        message = f"to keep, exactly one column {format_names(wrong)} is expected"
        raise InputError(f"{message}; the file has {format_names(headers)}")
    return {name: headers.index(name) for name in keep}


def missing_values(name: str, missing: np.ndarray) -> Flaw:
    """The flaw of empty values in a column."""

    def message(numbers: RowNumbers) -> str:
        count = f"{int(missing.sum())} empty values" if numbers.complete else "empty values"
        return f"column '{name}' has {count}, the first in {numbers(int(missing.argmax()))}"

    return Flaw(missing, message, lambda _: f"column '{name}' is empty")


def not_numbers(name: str, dtype: str) -> InputError:
    """The error for a column of another type, in its library's word."""
    return InputError(f"column '{name}' holds {dtype}, not numbers")


def format_names(names: Sequence[str]) -> str:
    """The first six names, and how many more there are."""
    first = ", ".join(f"'{name}'" for name in names[:6])
    return f"{first} and {len(names) - 6} more" if len(names) > 6 else first


def _width(port: Port) -> int:
    return prod(size for size in port.shape[1:] if isinstance(size, int))


def _combined(ports: Sequence[Port]) -> Port:
    """Several inputs as one with all their features."""
    names: list[str] = []
    units: list[str | None] = []
    for port in ports:
        width = _width(port)
        features = port.features or ((port.name,) if width == 1 else tuple(f"{port.name}_{i}" for i in range(width)))
        names += features
        units += port.units or [None] * len(features)
    return Port("the inputs", ("batch", len(names)), features=tuple(names), units=tuple(units))


def _columns_of_features(
    headers: Sequence[str], port: Port
) -> tuple[dict[str, list[int]], dict[str, tuple[str, str, str]]]:
    """The indices of each feature's columns; and of features with a column in another unit: header, unit, expected.

    A column belongs to a feature by its name alone or, if the feature has a unit, as in ``speed [m/s]`` and
    ``speed (m/s)``. Units are compared as text, after Unicode's normalisation NFKC.
    """
    features = port.features or ()
    units = dict(zip(features, port.units or (None,) * len(features), strict=True))
    columns: dict[str, list[int]] = {feature: [] for feature in features}
    other_units: dict[str, tuple[str, str, str]] = {}
    for index, header in enumerate(headers):
        name, unit = (header, None) if header in columns else _split_unit(header, units)
        if name is None:
            continue
        expected = units[name]
        if unit is None or expected is None or normalize("NFKC", unit) == normalize("NFKC", expected):
            columns[name].append(index)
        else:
            other_units.setdefault(name, (header, unit, expected))
    return columns, other_units


def _split_unit(header: str, units: dict[str, str | None]) -> tuple[str | None, str | None]:
    """The feature with a unit that the header begins with, and the unit in the brackets that it ends with."""
    opening = _BRACKETS.get(header[-1:])
    for index, character in enumerate(header):
        if character == opening and units.get(name := header[:index].rstrip()) is not None:
            return name, header[index + 1 : -1].strip()
    return None, None


def _interleave(columns: Sequence[np.ndarray], dtype: str) -> np.ndarray:
    """Columns (rows,) as a C-contiguous matrix (rows, columns)."""
    rows = len(columns[0]) if columns else 0
    matrix = np.empty((rows, len(columns)), dtype)
    for start in range(0, rows, 1024):  # so few rows stay in the cache until every column is in them
        block = matrix[start : start + 1024]
        for index, column in enumerate(columns):
            block[:, index] = column[start : start + 1024]
    return matrix
