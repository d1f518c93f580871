"""Whatever a user holds data in, as the float32 or int64 array that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.model.summary import Port

from .indices import BOOL_HINT, HINT, NO_BOOL, first_of, int64_of, not_whole

_NO_TABLES = (np.ndarray, Mapping, list, tuple)


def as_float32(data: Any, name: str, row_shape: tuple[int | str, ...], *, dtype: str | None = None) -> np.ndarray:
    """``data`` as a float32 array of shape (batch, *row_shape), without a copy where it is one already.

    Arrays and tensors of other dtypes are converted where no value changes; ``dtype="float32"`` lets them be rounded.
    Python's numbers in a list have no dtype: they become the nearest float32.
    Raises InputError naming both shapes, or the first value that would change.
    """
    if dtype not in (None, "float32"):
        raise InputError(f"dtype is 'float32' or left out, not {dtype!r}")
    array = _array(data, name)
    check_rows(array, name, row_shape)
    if array.dtype == np.float32 and array.dtype.isnative:
        return array
    rounding = dtype is not None or (array.dtype == np.float64 and _is_plain(data))
    return exact_float32(array, f"'{name}'", rounding=rounding)


def as_int64(data: Any, port: Port) -> np.ndarray:
    """``data`` as an int64 array of the port's shape (batch, *row), without a copy where it is one already.

    Integers of every dtype and floats become int64 where each value is a whole number. Raises InputError naming both
    shapes, the first value that is none, or bool.
    """
    array = _array(data, port.name)
    check_rows(array, port.name, port.shape[1:])
    if array.dtype.kind == "b" or (isinstance(data, list | tuple) and _has_bool(data)):
        raise InputError(f"'{port.name}' {NO_BOOL}. {BOOL_HINT}")
    found, wrong = int64_of(array)
    if wrong is not None:
        row, column = first_of(wrong)
        raise InputError(f"{not_whole(array, port, row, column, f'row {row + 1}')}. {HINT}")
    return found


def as_inputs(
    data: Any,
    ports: Sequence[Port],
    *,
    dtype: str | None = None,
    named: Callable[[], Sequence[Port]] | None = None,
) -> dict[str, np.ndarray]:
    """What a model is given, by the names of its inputs: the data for the only one, or a mapping for several.

    A table (see ``frames.rows_of_table``) gives all inputs their columns; ``named`` is asked for the ports with their
    features then. Raises InputError as ``as_float32`` and ``as_int64``, and for names that are missing or unknown, or
    batches of unequal length.
    """
    if not isinstance(data, _NO_TABLES):
        from .dataframes import rows_of_table

        rows = rows_of_table(data, ports if named is None else named(), dtype=dtype)
        if rows is not None:
            return rows
    names = [port.name for port in ports]
    given = data
    if len(ports) == 1 and not isinstance(data, Mapping):
        given = {names[0]: data}
    if not isinstance(given, Mapping):
        listed = ", ".join(names)
        hint = f"give a dict, {{'{names[0]}': …, '{names[1]}': …}}"
        raise InputError(f"this model has {len(ports)} inputs ({listed}), and got one array. What to do: {hint}")
    wrong = [f"'{name}' is missing" for name in names if name not in given]
    wrong += [f"'{name}' is unknown" for name in given if name not in names]
    if wrong:
        raise InputError(f"{'; '.join(wrong)}; the model's inputs are: {', '.join(names)}")
    arrays = {
        port.name: as_int64(given[port.name], port)
        if port.dtype == "int64"
        else as_float32(given[port.name], port.name, port.shape[1:], dtype=dtype)
        for port in ports
    }
    return of_one_length(arrays)


def of_one_length(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, by the inputs' names, of as many rows each. Raises InputError."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise InputError(f"the inputs have different numbers of rows: {listed}")
    return arrays


def _is_plain(data: Any) -> bool:
    """Nested lists of Python's own numbers, which have no dtype."""
    if isinstance(data, list | tuple):
        return all(_is_plain(item) for item in data)
    return type(data) in (float, int, bool)


def _has_bool(data: list[Any] | tuple[Any, ...]) -> bool:
    return any(_has_bool(item) if isinstance(item, list | tuple) else type(item) is bool for item in data)


def _is_masked(data: Any) -> bool:
    if isinstance(data, list | tuple):
        return any(_is_masked(item) for item in data if not isinstance(item, float | int))
    return isinstance(data, np.ma.MaskedArray) and bool(np.ma.is_masked(data))


def _array(data: Any, name: str) -> np.ndarray:
    if _is_masked(data):
        raise InputError(f"'{name}' has masked values. What to do: fill or drop those rows")
    if isinstance(data, np.ndarray):
        array = np.asarray(data)
    elif isinstance(data, list | tuple):
        try:
            array = np.asarray(data)
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(
                f"'{name}': the rows of the list are not equally long, or hold more than numbers"
            ) from error
    elif hasattr(data, "__dlpack__"):
        array = _from_dlpack(data)
    else:
        kind = type(data).__name__
        raise InputError(f"'{name}' expects an array, a tensor or a list of rows, not {kind}")
    return array


def _from_dlpack(tensor: Any) -> np.ndarray:
    if type(tensor).__module__.partition(".")[0] == "torch":  # a view may hold a negation that DLPack leaves out
        tensor = tensor.detach().resolve_neg()
    if (
        str(getattr(tensor, "dtype", None)) == "torch.bfloat16"
    ):  # numpy has no such type; float32 holds each of its values
        tensor = tensor.float()
    try:
        on_host = tensor.__dlpack_device__()[0] in (1, 3)  # kDLCPU, kDLCUDAHost
        return np.from_dlpack(tensor if on_host else tensor.cpu())
    except (RuntimeError, BufferError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"this {type(tensor).__name__} cannot be read by DLPack: {error}") from error


def check_rows(array: np.ndarray, name: str, row_shape: tuple[int | str, ...]) -> None:
    """Raises InputError unless the array holds numbers in rows of this shape."""
    if array.dtype.kind not in "fiub":
        message = f"'{name}' expects numbers; this holds {array.dtype} values"
        if array.dtype.kind in "OUS" and array.size:
            message += f", such as {array.flat[0]!r}"
        raise InputError(message)
    fits = array.ndim == 1 + len(row_shape) and all(
        not isinstance(wanted, int) or wanted == found
        for wanted, found in zip(row_shape, array.shape[1:], strict=False)
    )
    if fits:
        return
    expected = "(" + ", ".join(["batch", *map(str, row_shape)]) + ")"
    message = f"'{name}' expects shape {expected}, and got {array.shape}"
    if array.shape == row_shape:
        message += "; for a single row, give x[None]"
    raise InputError(message)


def exact_float32(array: np.ndarray, what: str, *, rounding: bool, first: int = 0) -> np.ndarray:
    """An array of numbers as float32.

    Raises InputError at the first value that would change, or with ``rounding`` at the first that would become
    infinite; ``what`` names the array there, and ``first`` is the number of rows before it.
    """
    converted, changed = float32_of(array, rounding=rounding)
    if changed is not None:
        raise InputError(would_change(array, converted, changed, what, rounding=rounding, first=first))
    return converted


def float32_of(array: np.ndarray, *, rounding: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """An array of numbers as float32, without a copy where it is; and where values change, as bool, or None.

    With ``rounding`` only a finite value that becomes infinite counts as changed.
    """
    if array.dtype == np.float32 and array.dtype.isnative:
        return array, None
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(np.float32)
    if rounding:
        changed = np.isinf(converted) & np.isfinite(array)
    elif array.dtype.kind in "iu":
        # int64 and float32 meet only in Python's integers: every float type rounds one of them.
        limit = 1 << 24
        changed = (array > limit) | (array < -limit)
        if changed.any():
            places = np.argwhere(changed)
            exact = [int(array[tuple(p)]) == int(converted[tuple(p)]) for p in places]
            changed[tuple(places[exact].T)] = False
    else:
        changed = (converted != array) & ~(np.isnan(converted) & np.isnan(array))
    return converted, changed if changed.any() else None


def would_change(
    array: np.ndarray, converted: np.ndarray, changed: np.ndarray, what: str, *, rounding: bool, first: int = 0
) -> str:
    """The message that names the first value that ``float32_of`` changes."""
    place = tuple(int(i) for i in np.argwhere(changed)[0])
    value, nearest = array[place].item(), converted[place].item()
    change = f"{value!r} in row {_row((place[0] + first, *place[1:]))} would become {nearest!r}"
    message = f"{what} is {array.dtype} and the model takes float32: {change}"
    hint = "round it yourself with x.astype(numpy.float32), or allow it with dtype='float32' (--dtype float32)"
    return message if rounding else f"{message}. What to do: {hint}"


def _row(place: tuple[int, ...]) -> str:
    return (
        f"{place[0] + 1}" if len(place) == 1 else f"{place[0] + 1}, feature {', '.join(str(i + 1) for i in place[1:])}"
    )
