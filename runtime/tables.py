"""Rows for a model from files, and results as the content of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import as_float32, exact_float32, of_one_length
from .errors import InputError
from .extras import imported
from .headers import by_feature
from .port import Port


def read_rows(path: str | Path, port: Port, *, dtype: str | None = None) -> tuple[np.ndarray, str]:
    """The rows of a ``.npy``, ``.npz``, ``.csv`` or ``.parquet`` file as float32, and how they match ``port``.

    Columns are matched by name where the port names its features (a header may carry the unit, as in ``speed [m/s]``),
    else by order. Numbers in a CSV file become the
    nearest float32; in the other formats a value that float32 cannot hold is an error unless ``dtype="float32"``.
    Raises InputError: unreadable file, missing columns, another unit, text or gaps where numbers are expected, a
    wrong number of features; MissingPackageError: polars is not there for CSV and Parquet.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path}: data is read from {', '.join(_READERS)} files, not from '{path.suffix}'")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return read(path, port, dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_inputs(
    path: str | Path, ports: Sequence[Port], *, dtype: str | None = None
) -> tuple[dict[str, np.ndarray], str]:
    """The rows of a file for every input of a model, by name, and how they were matched; otherwise as ``read_rows``.

    For several inputs a ``.npz`` file holds an array of each name; a table holds their features' columns, or for an
    input ``obs`` without named features the columns ``obs_0``, ``obs_1`` and so on, or ``obs`` where it has only one.
    """
    if len(ports) == 1:
        rows, matched = read_rows(path, ports[0], dtype=dtype)
        return {ports[0].name: rows}, matched
    names = ", ".join(port.name for port in ports)
    if Path(path).suffix.lower() == ".npy":
        message = f"{path}: one array, and the model has {len(ports)} inputs ({names})"
        raise InputError(f"{message}. What to do: give a .npz file with an array of each name")
    if Path(path).suffix.lower() == ".npz":
        found = {port.name: read_rows(path, port, dtype=dtype)[0] for port in ports}
        try:
            return of_one_length(found), f"the arrays {names}"
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    columns = [_columns(port) for port in ports]
    whole = Port("the inputs", ("batch", sum(map(len, columns))), features=tuple(name for c in columns for name in c))
    rows, matched = read_rows(path, whole, dtype=dtype)
    found, start = {}, 0
    for port, names_of in zip(ports, columns, strict=True):
        part = rows[:, start : start + len(names_of)]
        found[port.name] = np.ascontiguousarray(part).reshape(-1, *(s for s in port.shape[1:] if isinstance(s, int)))
        start += len(names_of)
    return found, matched


def _columns(port: Port) -> tuple[str, ...]:
    """The columns of one of several inputs."""
    width = prod(size for size in port.shape[1:] if isinstance(size, int))
    return port.features or ((port.name,) if width == 1 else tuple(f"{port.name}_{i}" for i in range(width)))


def as_csv(columns: dict[str, np.ndarray]) -> bytes:
    """Named columns of equal length as the content of a CSV file."""
    buffer = BytesIO()
    _frame(columns).write_csv(buffer)
    return buffer.getvalue()


def as_parquet(columns: dict[str, np.ndarray]) -> bytes:
    """Named columns of equal length as the content of a Parquet file."""
    buffer = BytesIO()
    _frame(columns).write_parquet(buffer)
    return buffer.getvalue()


def _frame(columns: dict[str, np.ndarray]) -> Any:
    polars = imported("polars", "writing CSV or Parquet")
    return polars.DataFrame({k: v.tolist() if v.dtype == object else v for k, v in columns.items()})


def _npy(path: Path, port: Port, dtype: str | None) -> tuple[np.ndarray, str]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises what its header's parser raises
        raise InputError(f"cannot be read as .npy: {error}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError("it is an archive of arrays; name it .npz")
    return as_float32(array, port.name, port.shape[1:], dtype=dtype), "by position"


def _npz(path: Path, port: Port, dtype: str | None) -> tuple[np.ndarray, str]:
    with open(path, "rb") as file:
        try:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise InputError("it is a single array, not an archive of arrays; name it .npy")
            names = list(arrays)
            name = port.name if port.name in names else names[0] if len(names) == 1 else None
            if name is None:
                held = ", ".join(names) or "nothing"
                raise InputError(f"it holds {held}; the array for the model is called '{port.name}'")
            values = arrays[name]
        except InputError:
            raise
        except Exception as error:  # numpy and zipfile raise whatever their parsers raise
            raise InputError(f"cannot be read as .npz: {error}") from None
    return as_float32(values, port.name, port.shape[1:], dtype=dtype), f"the array '{name}', by position"


def _csv(path: Path, port: Port, dtype: str | None) -> tuple[np.ndarray, str]:
    polars = imported("polars", "reading CSV")
    try:
        frame = polars.read_csv(path, has_header=False, infer_schema=False, glob=False)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise InputError(f"cannot be read as CSV: {_first_line(error)}") from None
    header = [(name or "").strip() for name in frame.row(0)]
    frame = frame[1:]
    for _ in range(_empty_lines_at_the_end(path)):
        if len(frame) and all(value is None for value in frame.row(-1)):
            frame = frame[:-1]
    if any("\r" in name for name in header):
        raise InputError("its lines end in CR alone. What to do: end them in LF or CR LF")
    if port.features is None and any(name == "" or _is_number(name) for name in header):
        names = ", ".join(header[:3])
        hint = "put a line with the columns' names first"
        raise InputError(f"the first line ({names}, …) holds values, not names of columns. What to do: {hint}")

    def numbers(index: int) -> np.ndarray:
        text, name = frame.to_series(index).str.strip_chars(), header[index]
        values = text.cast(polars.Float32, strict=False)
        _refuse_gaps(name, (text.is_null() | (text == "")).to_numpy(), line=2)
        wrong = (values.is_null() | (values.is_infinite() & ~text.str.contains("(?i)inf"))).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            kind = "too large for float32" if values[row] is not None else "not a number"
            raise InputError(f"column '{name}', line {row + 2}: '{text[row]}' is {kind}")
        return values.to_numpy()

    return _matched(header, port, numbers)


def _empty_lines_at_the_end(path: Path) -> int:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        end = file.read()
    return max(0, end[len(end.rstrip(b"\r\n")) :].count(b"\n") - 1)


def _parquet(path: Path, port: Port, dtype: str | None) -> tuple[np.ndarray, str]:
    polars = imported("polars", "reading Parquet")
    try:
        frame = polars.read_parquet(path, glob=False)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise InputError(f"cannot be read as Parquet: {_first_line(error)}") from None

    def numbers(index: int) -> np.ndarray:
        column = frame.to_series(index)
        name = column.name
        if not (column.dtype.is_float() or column.dtype.is_integer() or column.dtype == polars.Boolean):
            raise InputError(f"column '{name}' holds {column.dtype}, not numbers")
        _refuse_gaps(name, column.is_null().to_numpy(), line=1)
        return exact_float32(column.to_numpy(), f"column '{name}'", rounding=dtype is not None)

    return _matched(frame.columns, port, numbers)


_READERS = {".npy": _npy, ".npz": _npz, ".csv": _csv, ".parquet": _parquet}


def _matched(columns: Sequence[str], port: Port, numbers: Callable[[int], np.ndarray]) -> tuple[np.ndarray, str]:
    if port.features is not None:
        places, other_unit = by_feature(columns, port)
        missing = [name for name in port.features if not places[name]]
        other = next((name for name in missing if name in other_unit), None)
        if other is not None:
            header, unit, own = other_unit[other]
            message = f"column '{header}' is in {unit or 'no unit'}, and the model takes '{other}' in {own}"
            raise InputError(f"{message}. What to do: convert it, and name it '{other} [{own}]' or '{other}'")
        if missing:
            message = f"{len(missing)} of the model's {len(port.features)} columns are missing: {_few(missing)}"
            raise InputError(f"{message}; the file has {_few(columns)}")
        doubled = sorted(name for name in port.features if len(places[name]) > 1)
        if doubled:
            headers = [columns[index] for index in places[doubled[0]]]
            raise InputError(f"the file has more than one column named {_few(doubled)}: {_few(headers)}")
        chosen, how = [places[name][0] for name in port.features], "columns by name"
        used = set(chosen)
        unused = [name for index, name in enumerate(columns) if index not in used]
        if unused:
            how += f", {_few(unused)} not used"
    else:
        chosen, how = list(range(len(columns))), "columns by order"
        width = port.shape[-1]
        if len(port.shape) != 2 or (isinstance(width, int) and width != len(columns)):
            expected = f"rows of shape {list(port.shape[1:])}" if len(port.shape) != 2 else f"{width} columns"
            message = f"'{port.name}' expects {expected} and the model names no features; the file has {len(columns)}"
            raise InputError(f"{message}: {_few(columns)}")
    values = [numbers(index) for index in chosen]
    return np.ascontiguousarray(np.stack(values, axis=1), dtype=np.float32), how


def _refuse_gaps(name: str, empty: np.ndarray, line: int) -> None:
    if empty.any():
        place = "line" if line == 2 else "row"
        message = (
            f"column '{name}' has {int(empty.sum())} empty values, the first in {place} {int(empty.argmax()) + line}"
        )
        raise InputError(f"{message}. What to do: fill or drop those rows")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
