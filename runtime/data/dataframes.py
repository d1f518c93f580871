"""Tables in memory, of pandas, polars or Arrow, as the rows of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InputError, MissingPackageError
from runtime.extras import imported
from runtime.model.port import Port

from .columns import Column, Counted, columns_to_rows, matching, not_numbers

_INTEGERS = {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_ARROW_NUMBERS = {"halffloat": "float16", "float": "float32", "double": "float64", "bool": "bool"} | _INTEGERS
"""Arrow's types of numbers, and numpy's."""


@dataclass(frozen=True)
class _Library:
    names: Callable[[Any], Sequence[str]]
    column: Callable[[Any, int, str], Column]


def rows_of_table(data: Any, ports: Sequence[Port], *, dtype: str | None = None) -> dict[str, np.ndarray] | None:
    """The rows of a table for every input, by name, as its dtype; None for what is not a table.

    Tables are pandas and polars data frames, Arrow tables and record batches, and whatever else has
    ``__arrow_c_stream__`` and gives columns. Columns are matched and converted as those of files (see
    ``runtime.read_inputs``). NaN in a pandas column that has no other way to say it is NaN, not a gap.
    Raises InputError: columns that do not match, that hold no numbers, gaps, values that float32 cannot hold
    (unless ``dtype="float32"``), or for an int64 input bool or values that are no whole numbers.
    """
    found = _library(data)
    if found is None:
        return None
    table, library = found
    names = library.names(table)
    return rows_of_columns(names, lambda index: library.column(table, index, names[index]), ports, dtype=dtype)


def rows_of_columns(
    names: Sequence[str], column: Callable[[int], Column], ports: Sequence[Port], *, dtype: str | None = None
) -> dict[str, np.ndarray]:
    """The rows for every input from a table's columns, of which those that the model takes are asked for by place.

    Raises InputError, as ``rows_of_table``.
    """
    if dtype not in (None, "float32"):
        raise InputError(f"dtype is 'float32' or left out, not {dtype!r}")
    matched = matching(names, ports, holder="the table")
    rows, flaws = columns_to_rows([column(index) for index in matched.chosen], matched, rounding=dtype is not None)
    if flaws:
        raise InputError(flaws[0].message(Counted()))
    return rows


def _library(data: Any) -> tuple[Any, _Library] | None:
    kind = type(data)
    origin = kind.__module__.partition(".")[0]
    if origin == "polars" and kind.__name__ == "LazyFrame":
        raise InputError("a polars LazyFrame holds no rows yet. What to do: give frame.collect()")
    if (origin, kind.__name__) in (("pandas", "DataFrame"), ("polars", "DataFrame")):
        return data, _LIBRARIES[origin]
    if origin == "pyarrow" and kind.__name__ in ("Table", "RecordBatch"):
        return data, _LIBRARIES[origin]
    if hasattr(data, "__arrow_c_stream__"):
        try:
            pyarrow = imported("pyarrow", f"reading a {kind.__name__}")
            return pyarrow.table(data), _LIBRARIES["pyarrow"]
        except (MissingPackageError, TypeError, ValueError):  # one column, or of no use here
            return None
    return None


def _pandas(frame: Any, index: int, name: str) -> Column:
    series = frame.iloc[:, index]
    if isinstance(series.dtype, np.dtype):
        return Column(name, _numbers(series.to_numpy(), name, str(series.dtype)))
    plain = getattr(series.dtype, "numpy_dtype", None)  # pandas' own nullable types, and Arrow's in pandas
    if plain is None or plain.kind not in "fiub":
        raise not_numbers(name, str(series.dtype))
    values = series.to_numpy(dtype=plain, na_value=plain.type(0))
    return Column(name, values, series.isna().to_numpy() if series.hasnans else None)


def _polars(frame: Any, index: int, name: str) -> Column:
    series = frame.to_series(index)
    kind = series.dtype
    if not (kind.is_float() or kind.is_integer() or str(kind) == "Boolean"):
        raise not_numbers(name, str(kind))
    if not series.null_count():
        return Column(name, _numbers(series.to_numpy(), name, str(kind)))
    values = series.fill_null(strategy="zero" if str(kind) != "Boolean" else "min").to_numpy()
    return Column(name, _numbers(values, name, str(kind)), series.is_null().to_numpy())


def arrow_column(table: Any, index: int, name: str) -> Column:
    """A column of an Arrow table or record batch, not copied where it need not be. Raises InputError: no numbers.

    It is read from its buffers, since pyarrow's own ``to_numpy`` imports pandas where that is installed.
    """
    column = table.column(index)
    dtype = _ARROW_NUMBERS.get(str(column.type))
    if dtype is None:
        raise not_arrow_numbers(name, column.type)
    parts = [_buffers(part, dtype) for part in getattr(column, "chunks", [column])]
    if len(parts) == 1:
        return Column(name, *parts[0])
    values = np.concatenate([values for values, _ in parts]) if parts else np.zeros(0, dtype)
    if all(missing is None for _, missing in parts):
        return Column(name, values)
    masks = [np.zeros(len(values), bool) if missing is None else missing for values, missing in parts]
    return Column(name, values, np.concatenate(masks))


def _buffers(array: Any, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of an Arrow array, and which are missing."""
    valid, data = array.buffers()
    start, stop = array.offset, array.offset + len(array)

    def bits(buffer: Any) -> np.ndarray:
        return np.unpackbits(np.frombuffer(buffer, np.uint8), count=stop, bitorder="little")[start:].astype(bool)

    if data is None:
        return np.zeros(0, dtype), None
    values = bits(data) if dtype == "bool" else np.frombuffer(data, dtype, stop)[start:]
    return values, ~bits(valid) if array.null_count else None


def not_arrow_numbers(name: str, kind: Any) -> InputError:
    """The error for a column of an Arrow type that is none of numbers."""
    return not_numbers(name, str(kind).removeprefix("large_").capitalize())


def is_arrow_number(kind: Any) -> bool:
    """Whether an Arrow type is one of numbers that numpy has."""
    return str(kind) in _ARROW_NUMBERS


def array_columns(columns: Mapping[str, np.ndarray]) -> tuple[list[str], Callable[[int], Column]]:
    """Named numpy arrays (rows,) as ``rows_of_columns`` takes them; masked arrays have gaps."""
    names = list(columns)

    def column(index: int) -> Column:
        name = names[index]
        given = columns[name]
        values = _numbers(np.asarray(given), name, str(given.dtype))
        if values.ndim != 1:
            raise InputError(f"column '{name}' expects one value per row, and got an array of shape {values.shape}")
        return Column(name, values, np.ma.getmaskarray(given) if isinstance(given, np.ma.MaskedArray) else None)

    return names, column


def _numbers(values: np.ndarray, name: str, kind: str) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        raise not_numbers(name, kind)
    return values


_LIBRARIES = {
    "pandas": _Library(lambda frame: [str(name) for name in frame.columns], _pandas),
    "polars": _Library(lambda frame: frame.columns, _polars),
    "pyarrow": _Library(lambda table: table.schema.names, arrow_column),
}
