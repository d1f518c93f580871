"""Arrays, tensors and lists of numbers as the float32 or int64 array that a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.model.port import LARGEST_INT, Port, format_feature

from .categories import encode_rows
from .flaws import Flaw, flaw_of_values, location

_EXACT = 2**53
"""From here on, float64 does not hold every whole number."""
Data = list[Any] | tuple[Any, ...] | np.ndarray | None
"""What a user gives; None stands for tensors and all that is refused, whose types are not known here."""
WHOLE_NUMBERS_HINT = "give whole numbers, encoded as those that the model was trained on"


def as_array(data: Data, port: Port, *, dtype: str | None = None) -> np.ndarray:
    """``data`` as an array of the port's shape (batch, *row) and dtype, not copied if it is one already.

    Arrays and tensors of other dtypes are converted if no value changes; with ``dtype="float32"``, values for a
    float32 input may be rounded. Python numbers in a list have no dtype: they become the nearest float32.
    Raises InputError naming both shapes, or the first value that would change, or bool for int64.
    """
    rounding = allows_rounding(dtype)
    types = _leaf_types(data)
    array = _numpy_array(data, types, port.name)
    words = port.categories is not None and array.dtype.kind in "OUT"
    check_shape(array, port, words=words)
    if words:
        return encode_rows(array, port)
    if port.dtype == "int64" and bool in types:
        raise _bool_for_int64(f"'{port.name}'")
    if array.dtype == port.dtype and array.dtype.isnative:
        return array
    rounding = rounding or (array.dtype == np.float64 and types <= {float, int, bool})
    converted, flaw = convert(array, port.dtype, f"'{port.name}'", port, rounding=rounding)
    if flaw is not None:
        raise flaw.error()
    return converted


def allows_rounding(dtype: str | None) -> bool:
    """Whether the option ``dtype`` lets values be rounded to float32. Raises InputError for other dtypes."""
    if dtype not in (None, "float32"):
        raise InputError(f"dtype is 'float32' or left out, not {dtype!r}")
    return dtype is not None


def check_shape(array: np.ndarray, port: Port, *, words: bool = False) -> None:
    """Raises InputError unless the array holds numbers, or ``words``, in rows of the port's shape."""
    name, row_shape = port.name, port.shape[1:]
    if array.dtype.kind not in "fiub" and not words:
        message = f"'{name}' expects numbers; this holds {array.dtype} values"
        if array.dtype.kind in "OUS" and array.size:
            message += f", such as {array.flat[0]!r}"
        raise InputError(message)
    if array.ndim == 1 + len(row_shape) and all(
        not isinstance(expected, int) or expected == size
        for expected, size in zip(row_shape, array.shape[1:], strict=True)
    ):
        return
    shape = "(" + ", ".join(["batch", *map(str, row_shape)]) + ")"
    message = f"'{name}' expects shape {shape}, and got {array.shape}"
    if array.shape == row_shape:
        message += "; for a single row, give x[None]"
    raise InputError(message)


def check_lengths(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, by the inputs' names. Raises InputError unless they have equal numbers of rows."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise InputError(f"the inputs have different numbers of rows: {listed}")
    return arrays


def convert(
    array: np.ndarray, dtype: str, label: str, port: Port | None = None, *, rounding: bool
) -> tuple[np.ndarray, Flaw | None]:
    """Numbers (rows, ...) as float32 or int64, and the flaw of those that ``dtype`` cannot hold.

    For float32 the flaw is fatal unless ``rounding``. Messages call the array ``label`` and, if it is the rows of
    ``port``, name the feature. Raises InputError: bool for int64.
    """
    if dtype == "int64":
        if array.dtype.kind == "b":
            raise _bool_for_int64(label)
        converted, wrong = to_int64(array)
    else:
        converted, wrong = to_float32(array, rounding=rounding)
    if wrong is None:
        return converted, None
    values, results = (each.reshape(len(each), -1) for each in (array, converted))

    def describe(row: int, column: int, number: str) -> str:
        feature = format_feature(port, column, array.shape[1:]) if port is not None else ""
        if dtype == "int64":
            return f"{location(label, number, feature)}: {_why_not_int64(values[row, column])}"
        if not number:
            return f"{label} is too large for float32"
        change = f"{values[row, column].item()!r} in {location(number, feature)} would become"
        return f"{label} is {array.dtype} and the model takes float32: {change} {results[row, column].item()!r}"

    if dtype == "int64":
        return converted, flaw_of_values(wrong, describe, WHOLE_NUMBERS_HINT)
    if rounding:
        return converted, flaw_of_values(wrong, describe)
    hint = "round it yourself with x.astype(numpy.float32), or allow it with dtype='float32' (--dtype float32)"
    return converted, flaw_of_values(wrong, describe, hint, fatal=True)


def to_float32(array: np.ndarray, *, rounding: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers as float32, not copied if they are float32 already, and which values change (bool), or None.

    With ``rounding`` only finite values that become infinite count as changed.
    """
    if array.dtype == np.float32 and array.dtype.isnative:
        return array, None
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(np.float32)
    if rounding:
        changed = np.isinf(converted) & np.isfinite(array)
    elif array.dtype.kind in "iu":
        # NumPy would compare int64 with float32 as float64, which rounds; Python's integers compare exactly.
        limit = 1 << 24
        changed = (array > limit) | (array < -limit)
        if changed.any():
            large = zip(array[changed].tolist(), converted[changed].tolist(), strict=True)
            changed[changed] = [value != int(nearest) for value, nearest in large]
    else:
        changed = (converted != array) & ~(np.isnan(converted) & np.isnan(array))
    return converted, changed if changed.any() else None


def to_int64(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers as int64, not copied if they are int64 already, and which are not whole numbers of int64, or None.

    Floats count as whole below 2**53, where they are exact. The result is 0 where a value is wrong.
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


def _why_not_int64(value: np.generic) -> str:
    if value.dtype.kind == "f" and np.isfinite(value) and np.floor(value) == value:
        return f"{value!s} is a float from 2**53 on, where floats skip whole numbers"
    return f"{value!s} is not a whole number that int64 holds"


def _bool_for_int64(label: str) -> InputError:
    message = f"{label} holds bool, and the model takes whole numbers (int64), which index the rows of a table"
    return InputError(f"{message}. What to do: if 0 and 1 are meant, convert it with x.astype(numpy.int64)")


def _leaf_types(data: Data) -> set[type]:
    """The types of what nested lists hold; anything else is its own leaf."""
    if not isinstance(data, list | tuple):
        return {type(data)}
    types: set[type] = set(map(type, data))
    nested: set[type] = {kind for kind in types if issubclass(kind, list | tuple)}
    return (types - nested).union(*(_leaf_types(item) for item in data if type(item) in nested)) if nested else types


def _is_masked(data: Data) -> bool:
    return any(map(_is_masked, data)) if isinstance(data, list | tuple) else bool(np.ma.is_masked(data))


def _numpy_array(data: Data, types: set[type], name: str) -> np.ndarray:
    if any(issubclass(kind, np.ma.MaskedArray) for kind in types) and _is_masked(data):
        raise InputError(f"'{name}' has masked values. What to do: fill or drop those rows")
    if isinstance(data, np.ndarray):
        return np.asarray(data)
    if isinstance(data, list | tuple):
        try:
            return np.asarray(data)
        except (ValueError, TypeError, RuntimeError) as error:
            message = f"'{name}': the rows of the list are not equally long, or hold more than numbers"
            raise InputError(message) from error
    if hasattr(data, "__dlpack__"):
        return _from_dlpack(data)
    raise InputError(f"'{name}' expects an array, a tensor or a list of rows, not {type(data).__name__}")


def _from_dlpack(tensor: Any) -> np.ndarray:
    if type(tensor).__module__.partition(".")[0] == "torch":  # a view may hold a negation that DLPack leaves out
        tensor = tensor.detach().resolve_neg()
    if str(getattr(tensor, "dtype", None)) == "torch.bfloat16":  # NumPy has no such type; float32 holds its values
        tensor = tensor.float()
    try:
        on_host = tensor.__dlpack_device__()[0] in (1, 3)  # kDLCPU, kDLCUDAHost
        return np.from_dlpack(tensor if on_host else tensor.cpu())
    except (RuntimeError, BufferError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"this {type(tensor).__name__} cannot be read by DLPack: {error}") from error
