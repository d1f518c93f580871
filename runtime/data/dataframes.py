"""Tables in memory (pandas, polars, Arrow, or named arrays) as the rows of a model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.errors import InputError, MissingPackageError
from runtime.extras import imported
from runtime.model.port import Port

from .arrays import allows_rounding
from .columns import Column, ColumnMatch, columns_to_rows, is_rounded, match_columns, not_numbers
from .flaws import in_order
from .rounding import warn_of_rounding

_TABLES = {
    *(("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"), ("pyarrow", "RecordBatch")),
}
_INTEGERS = {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_ARROW_NUMBERS = {"halffloat": "float16", "float": "float32", "double": "float64", "bool": "bool"} | _INTEGERS
"""Arrow's numeric types, and NumPy's."""
_NULL = "null"
"""Arrow's type of a column without any value."""


def rows_of_table(data: Any, ports: Sequence[Port], *, dtype: str | None = None) -> dict[str, np.ndarray] | None:
    """The rows of a table for every input, by name and in its dtype; None for data that are not a table.

    Tables are pandas and polars data frames, Arrow tables and record batches, any other object whose
    ``__arrow_c_stream__`` gives columns, and dicts of numpy arrays (rows,), whose masked values are missing. Columns
    are matched and converted as those of files (see ``runtime.read_inputs``); values of float64 columns become the
    nearest float32 as in CSV files, which a RoundingWarning says where it changes one. In NumPy-backed pandas columns
    NaN is a value, not a missing entry.
    Raises InputError: columns that do not match or do not hold numbers, missing values, integers that float32
    cannot hold (unless ``dtype="float32"``), and for an int64 input bool or values that are not whole numbers.
    """
    package = _package_of(data)
    if package is None:
        return None
    if package == "arrow_c_stream":
        try:
            data = imported("pyarrow", f"reading a {type(data).__name__}").table(data)
        except (MissingPackageError, TypeError, ValueError):  # a single column, for example
            return None
        package = "pyarrow"
    column_names, column = _READERS[package]
    names = column_names(data)
    rounding = allows_rounding(dtype)
    match = match_columns(names, ports, table="the table")
    wanted = zip(match.indices, match.categories, strict=True)
    columns = [column(data, index, names[index], vocabulary is not None) for index, vocabulary in wanted]
    rows, flaws = columns_to_rows(columns, match, rounding=rounding)
    if flaws:
        raise in_order(flaws)[0].error()
    if not rounding and is_rounded(columns, match):
        warn_of_rounding("the table")
    return rows


def names_of_columns(data: Any) -> list[str]:
    """The names of a table's columns. Raises InputError: it is no table."""
    package = _package_of(data)
    if package not in _READERS:
        raise InputError(f"expected a table of pandas, polars or Arrow, not a {type(data).__name__}")
    return list(_READERS[package][0](data))


def read_columns(data: Any) -> list[Column]:
    """All columns of a table in memory, with numbers or words. Raises InputError: no table, or other columns."""
    listed = names_of_columns(data)
    _, column = _READERS[_package_of(data) or ""]
    if repeated := [name for name in listed if listed.count(name) > 1]:
        raise InputError(f"two columns of the table are named '{repeated[0]}'. What to do: rename one")
    return [column(data, index, name, True) for index, name in enumerate(listed)]


def _package_of(data: Any) -> str | None:
    """The package that a table is of; None for data that are not a table."""
    package, kind = type(data).__module__.partition(".")[0], type(data).__name__
    if (package, kind) == ("polars", "LazyFrame"):
        raise InputError("a polars LazyFrame holds no rows yet. What to do: give frame.collect()")
    if isinstance(data, Mapping):
        return "dict"
    if (package, kind) in _TABLES:
        return package
    return "arrow_c_stream" if hasattr(data, "__arrow_c_stream__") else None


def _array(table: Mapping[str, np.ndarray], index: int, name: str, words: bool) -> Column:
    del index
    array = table[name]
    if words and np.asarray(array).dtype.kind in "OUT":
        if (shape := np.shape(array)) and len(shape) == 1:
            return Column(name, _with_none(np.asarray(array, object), np.ma.getmaskarray(array)))
        raise InputError(f"column '{name}' expects one value per row, and got an array of shape {shape}")
    values = _numbers(np.asarray(array), name, str(array.dtype))
    if values.ndim != 1:
        raise InputError(f"column '{name}' expects one value per row, and got an array of shape {values.shape}")
    return Column(name, values, np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None)


def _all_missing(name: str, rows: int, words: bool) -> Column:
    """A column without any value, whose type says nothing."""
    if words:
        return Column(name, np.full(rows, None, object))
    return Column(name, np.zeros(rows, np.float32), np.full(rows, True))


def _with_none(words: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Words (rows,) with None where they are missing."""
    if missing.any():
        words = words.copy()
        words[missing] = None
    return words


def _pandas(frame: Any, index: int, name: str, words: bool) -> Column:
    series = frame.iloc[:, index]
    kind = str(series.dtype)
    if kind == "object" and len(series) and series.isna().all():
        return _all_missing(name, len(series), words)
    if words and hasattr(series, "cat") and (of_numbers := series.cat.categories.dtype).kind in "iuf":
        series = series.astype(of_numbers if not series.hasnans else np.float64)
    if words and getattr(getattr(series.dtype, "numpy_dtype", series.dtype), "kind", "O") not in "fiub":
        return Column(name, _with_none(series.to_numpy(dtype=object), series.isna().to_numpy()))
    if isinstance(series.dtype, np.dtype):
        return Column(name, _numbers(series.to_numpy(), name, kind))
    dtype = getattr(series.dtype, "numpy_dtype", None)  # pandas' own nullable types, and Arrow's in pandas
    if dtype is None or dtype.kind not in "fiub":
        raise not_numbers(name, kind)
    values = series.to_numpy(dtype=dtype, na_value=dtype.type(0))
    return Column(name, values, series.isna().to_numpy() if series.hasnans else None)


def _polars(frame: Any, index: int, name: str, words: bool) -> Column:
    series = frame.to_series(index)
    dtype = series.dtype
    if str(dtype) == "Null" or (len(series) and series.null_count() == len(series)):
        return _all_missing(name, len(series), words)
    if words and str(dtype).partition("(")[0] in ("String", "Categorical", "Enum"):
        return Column(name, np.array([*series.cast(str).to_list(), None], object)[:-1])
    if not (dtype.is_float() or dtype.is_integer() or str(dtype) == "Boolean"):
        raise not_numbers(name, str(dtype))
    if not series.null_count():
        return Column(name, _numbers(series.to_numpy(), name, str(dtype)))
    values = series.fill_null(strategy="zero" if str(dtype) != "Boolean" else "min").to_numpy()
    return Column(name, _numbers(values, name, str(dtype)), series.is_null().to_numpy())


def arrow_column(table: Any, index: int, name: str, words: bool = False) -> Column:
    """A column of an Arrow table or record batch, without a copy if possible. Raises InputError: not numbers.

    It is read from its buffers, since pyarrow's own ``to_numpy`` imports pandas if that is installed. Texts are read
    where ``words`` are wanted.
    """
    column = table.column(index)
    if str(column.type) == _NULL:
        return _all_missing(name, len(column), words)
    if words and _is_text(column.type):
        return Column(name, _texts(column))
    dtype = _ARROW_NUMBERS.get(str(column.type))
    if dtype is None:
        raise _not_arrow_numbers(name, column.type)
    if hasattr(column, "chunks"):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return Column(name, *_buffers(column, dtype))


def _buffers(array: Any, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of an Arrow array, and which are missing (bool), or None."""
    valid, data = array.buffers()
    start, stop = array.offset, array.offset + len(array)

    def bits(buffer: Any) -> np.ndarray:
        return np.unpackbits(np.frombuffer(buffer, np.uint8), count=stop, bitorder="little")[start:].astype(bool)

    if data is None:
        return np.zeros(0, dtype), None
    values = bits(data) if dtype == "bool" else np.frombuffer(data, dtype, stop)[start:]
    return values, ~bits(valid) if array.null_count else None


def _is_text(dtype: Any) -> bool:
    """Whether an Arrow type is text, as it is or as a dictionary of texts."""
    return str(getattr(dtype, "value_type", dtype)) in ("string", "large_string", "string_view")


def _texts(column: Any) -> np.ndarray:
    """The texts of an Arrow column, None where they are missing: objects (rows,)."""
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    parts: list[np.ndarray] = [np.empty(0, object)]
    for chunk in chunks:
        encoded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        words = np.array([*encoded.dictionary.to_pylist(), None], object)
        places, missing = _buffers(encoded.indices, str(encoded.indices.type))
        parts.append(words[places if missing is None else np.where(missing, len(words) - 1, places)])
    return np.concatenate(parts)


def match_schema(schema: Any, ports: Sequence[Port], *, keep: Sequence[str] = ()) -> ColumnMatch:
    """Match the columns of an Arrow schema, as ``match_columns`` does.

    Raises InputError, also for a column that does not hold numbers.
    """
    match = match_columns(schema.names, ports, keep=keep)
    for index, vocabulary in zip(match.indices, match.categories, strict=True):
        if vocabulary is not None and _is_text(schema.field(index).type):
            continue
        if str(schema.field(index).type) not in (*_ARROW_NUMBERS, _NULL):
            raise _not_arrow_numbers(schema.names[index], schema.field(index).type)
    return match


def _not_arrow_numbers(name: str, dtype: Any) -> InputError:
    return not_numbers(name, str(dtype).removeprefix("large_").capitalize())


def _numbers(values: np.ndarray, name: str, kind: str) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        raise not_numbers(name, kind)
    return values


_READERS: dict[str, tuple[Callable[[Any], Sequence[str]], Callable[[Any, int, str, bool], Column]]] = {
    "dict": (list, _array),
    "pandas": (lambda frame: [str(name) for name in frame.columns], _pandas),
    "polars": (lambda frame: frame.columns, _polars),
    "pyarrow": (lambda table: table.schema.names, arrow_column),
}
"""What gives a table's names of columns, and a column by its index and name, as words where these are wanted."""
