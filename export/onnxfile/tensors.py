"""The constants of an ONNX file as arrays, with every size checked against the bytes that are there."""

from __future__ import annotations

import mmap
import os
import stat
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from onnx import TensorProto, numpy_helper

from runtime import ModelError

_READ: dict[int, tuple[str, str]] = {
    TensorProto.FLOAT: ("<f4", "float_data"),
    TensorProto.DOUBLE: ("<f8", "double_data"),
    TensorProto.INT64: ("<i8", "int64_data"),
    TensorProto.INT32: ("<i4", "int32_data"),
    TensorProto.BOOL: ("|b1", "int32_data"),
}
MOST_DIMENSIONS = 32
"""More than any file of a dense network has; NumPy allows 64."""
_MOST_ENTRIES = 2**48
State = tuple[int, ...]
"""Changes when a file is written to, replaced, or replaced and put back."""


def state_of(stat: os.stat_result) -> State:
    """The state of an open file, or of the one at a path."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class Tensors:
    """Reads the tensors of the file at ``path``. External data stays in its file and is mapped into memory."""

    def __init__(self, path: Path):
        self.path = path
        self.maps: dict[str, mmap.mmap | bytes] = {}
        self.states: dict[str, State] = {}
        """Of the mapped files, by name."""

    def array(self, tensor: TensorProto, what: str) -> np.ndarray:
        """A tensor's values. Raises ModelError: sizes and bytes that do not agree, data that cannot be read."""
        dims = tuple(tensor.dims)
        if any(size < 0 for size in dims):
            raise self._error(what, f"has a negative dimension: {list(dims)}")
        if len(dims) > MOST_DIMENSIONS or prod(filter(None, dims)) > _MOST_ENTRIES:
            raise self._error(what, f"has dimensions that are too many or too large for a weight: {list(dims)}")
        if tensor.data_type not in _READ:
            return numpy_helper.to_array(tensor, str(self.path.parent))
        dtype, field = _READ[tensor.data_type]
        count, width = prod(dims), np.dtype(dtype).itemsize
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor, what, dtype, count * width).reshape(dims)
        if tensor.HasField("raw_data"):
            raw = tensor.raw_data
            if len(raw) != count * width:
                raise self._error(what, f"has dimensions {list(dims)}, {count * width:,} bytes, and holds {len(raw):,}")
            return np.frombuffer(raw, dtype).reshape(dims)
        values = getattr(tensor, field)
        if len(values) != count:
            raise self._error(what, f"has dimensions {list(dims)}, {count:,} values, and holds {len(values):,}")
        return np.fromiter(values, dtype, count).reshape(dims)

    def _external(self, tensor: TensorProto, what: str, dtype: str, size: int) -> np.ndarray:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError:
            raise self._error(what, f"has external data whose offset or length is not a number: {entries}") from None
        data = self.open(entries.get("location", ""), what)
        if offset < 0 or length != size or offset + size > len(data):
            message = f"takes {size:,} bytes; it is given {length:,} bytes from {offset:,} on"
            raise self._error(what, f"{message} of a data file of {len(data):,} bytes")
        array = np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, offset)
        return array if array.flags.aligned else array.copy()

    def open(self, location: str, what: str) -> mmap.mmap | bytes:
        """The bytes of a file of external data. Raises ModelError: it cannot be read, or is not one of its folder."""
        if location not in self.maps:
            self.maps[location], self.states[location] = self._open(location, what)
        return self.maps[location]

    def _open(self, location: str, what: str) -> tuple[mmap.mmap | bytes, State]:
        parts = PurePosixPath(location.replace("\\", "/")).parts
        outside = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive or ".." in parts
        if outside or not parts or "\0" in location:
            raise self._error(what, f"has its data in '{location}', which is not a file in the model's folder")
        inner = [self.path.parent.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
        if any(part.is_symlink() for part in inner):
            raise self._error(what, f"has its data in '{location}', a symbolic link; it may lead out of the folder")
        try:
            if not stat.S_ISREG(inner[-1].stat().st_mode):
                raise self._error(what, f"has its data in '{location}', which is not a regular file")
            with open(inner[-1], "rb") as file:
                state = os.fstat(file.fileno())
                # Private pages: changing a value does not change the file.
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if state.st_size else b""
                return data, state_of(state)
        except OSError as error:
            hint = "What to do: put the data file beside the ONNX file"
            message = f"has its data in '{location}', which cannot be read ({error.strerror or error}). {hint}"
            raise self._error(what, message) from None

    def _error(self, what: str, message: str) -> ModelError:
        return ModelError(f"{self.path}: {what} {message}")
