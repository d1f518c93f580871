"""Tensors of the V2 protocol as numpy arrays, from JSON and from bytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .protocol import Fault, Output

DTYPES = {
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "BOOL": "|b1",
}
"""The datatypes that are numbers, little-endian as they travel; BF16 and BYTES numpy does not have."""
_MOST_SIZES = 32


def datatype_of(values: np.ndarray) -> str:
    """Of a certificate's input or output; INT64, or FP32, whose exact answers are float64."""
    return "INT64" if values.dtype == np.int64 else "FP32"


def shape_of(found: Any, name: str) -> tuple[int, ...]:
    """A shape that a server gave. Raises Fault: not a list of whole numbers from 0 on, that an array could have."""
    given = isinstance(found, list | tuple) and len(found) <= _MOST_SIZES
    if not given or not all(type(size) is int and 0 <= size < 2**31 for size in found) or prod(found) >= 2**31:
        raise Fault(f"the shape of '{name}' is {str(found)[:80]!r} instead of a list of sizes")
    return tuple(found)


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Output:
    """Raises Fault: the shape and the bytes do not go together."""
    if datatype not in DTYPES:
        return Output(datatype, shape, None)
    dtype = np.dtype(DTYPES[datatype])
    if prod(shape) * dtype.itemsize != len(data):
        raise Fault(
            f"'{name}' is {datatype} {list(shape)}, {prod(shape) * dtype.itemsize} bytes, and came as {len(data)}"
        )
    return Output(datatype, shape, _shaped(name, np.frombuffer(data, dtype).astype(np.float64), shape))


def from_list(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Output:
    """Flat or nested lists of numbers; null becomes NaN. Raises Fault: anything else, or too many or few."""
    if datatype not in DTYPES:
        return Output(datatype, shape, None)
    flat: list[Any] = []
    _flatten(data if isinstance(data, Sequence) and not isinstance(data, str) else [data], flat, name)
    if len(flat) != prod(shape):
        raise Fault(f"'{name}' has the shape {list(shape)}, and {len(flat)} values came")
    try:
        values = np.array([np.nan if value is None else float(value) for value in flat], np.float64)
    except OverflowError:
        raise Fault(f"'{name}' holds a number beyond float64") from None
    return Output(datatype, shape, _shaped(name, values, shape))


def _shaped(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return values.reshape(shape)
    except ValueError:  # of no values, and of sizes that no array has
        raise Fault(f"the shape of '{name}' is {list(shape)}, which no array has") from None


def _flatten(data: Sequence[Any], flat: list[Any], name: str) -> None:
    for item in data:
        if isinstance(item, list):
            _flatten(item, flat, name)
        elif item is None or isinstance(item, int | float):
            flat.append(item)
        else:
            raise Fault(f"'{name}' holds {str(item)[:40]!r} instead of a number")
