"""The operators of a file for one row: values, the constant arrays and functions that they need, and the statements."""

from __future__ import annotations

from math import prod
from typing import Any, NoReturn

import numpy as np
from onnx import NodeProto, TensorProto

from export.errors import TargetError
from export.graph import Rows
from export.onnxfile.model import Model, attributes_of, label

from .kernels import BLOCK
from .step import Steps
from .text import array, floats

_TYPES = (TensorProto.FLOAT, TensorProto.BOOL)
"""Of values; a bool is kept as 0 or 1 in a float."""
_MOST = 2**22
"""Constants: 64 MB of text, which compilers take minutes for."""
_HINT = "mlpx recover writes a file of another tool in operators of mlpx's own; else package it for a server"


class Program:
    """A file's graph for one row of its inputs.

    ``outputs`` are the file's, and ``arrays`` the definitions of the constants, in the order in which they are read.
    Raises TargetError: an input or output that is not in rows, or too many constants.
    """

    def __init__(self, model: Model, prefix: str):
        self.model, self.prefix = model, prefix
        self.inputs = [value.name for value in model.inputs]
        self.outputs = [value.name for value in model.proto.graph.output]
        self.arrays: list[str] = []
        self.weights: list[tuple[str, int]] = []
        """The names of the float32 arrays and their sizes."""
        self.kernels: dict[str, None] = {}
        """The functions that are called, in the order of the first call."""
        self.values: list[np.ndarray] = []
        """What the float32 arrays hold."""
        self.steps: list[tuple[NodeProto, Steps]] = []
        self._names: dict[tuple[Any, ...], str] = {}
        self._numbers: dict[bytes, int] = {}
        count = sum(values.size for values in model.constants.values())
        if count > _MOST:
            hint = "package the file for a server"
            message = f"it has {count:,} constants, and C holds at most {_MOST:,}"
            raise TargetError(f"{model.path.name}: {message}. What to do: {hint}")
        for name in (*self.inputs, *self.outputs):
            self.row(name)

    def finish(self) -> None:
        """Define the array of single numbers, once every operator has been read."""
        if self._numbers:
            numbers = np.frombuffer(b"".join(self._numbers), np.float32)
            self._add(f"{self.prefix}_numbers", numbers, "single numbers: slopes, limits, factors")

    def refuse(self, node: NodeProto, why: str) -> NoReturn:
        """Raise TargetError: an operator cannot be in C."""
        place = node.name.partition("/")[0]
        module = f" of the module '{place}'" if place else ""
        message = f"C cannot hold {label(node)}{module} yet: {why}"
        raise TargetError(f"{self.model.path.name}: {message}. What to do: {_HINT}")

    def row(self, name: str) -> tuple[int, ...]:
        """The shape of a row of a value; where its first dimension is k times the batch, k comes first.

        Raises TargetError: it is not in rows of known sizes, or of another type.
        """
        shape = self.model.shapes.shape(name)
        kind = self.model.shapes.element_type(name)
        if shape and kind in _TYPES:
            first, *others = shape
            times = first.times if isinstance(first, Rows) else int(first == self.model.batch)
            sizes = tuple(size for size in others if isinstance(size, int) and size > 0)
            if times and len(sizes) == len(others):
                return sizes if times == 1 else (times, *sizes)
        words = "of unknown shape" if shape is None else f"of shape [{', '.join(map(str, shape))}]"
        words += "" if kind in _TYPES or kind is None else f" and type {TensorProto.DataType.Name(kind)}"
        message = f"'{name}' is {words}, and C computes float32 rows of known sizes, each by itself"
        raise TargetError(f"{self.model.path.name}: {message}. What to do: {_HINT}")

    def leading(self, name: str) -> int:
        """How many dimensions a row of a value has before the second dimension of the value."""
        return len(self.row(name)) + 1 - len(self.model.shapes.shape(name) or ())

    def size(self, name: str) -> int:
        """The numbers in a row of a value."""
        return prod(self.row(name))

    def is_bool(self, name: str) -> bool:
        """Whether a value is bool, as 0 and 1."""
        return self.model.shapes.element_type(name) == TensorProto.BOOL

    def constant(self, name: str) -> np.ndarray | None:
        """A constant of the file; None for a value."""
        return self.model.constants.get(name)

    def attributes(self, node: NodeProto) -> dict[str, Any]:
        """The attributes of an operator, with the defaults of the file's opset."""
        return attributes_of(node, self.model.opset)

    def kernel(self, name: str) -> str:
        """The name of a function that the statements call."""
        self.kernels[name] = None
        return f"{self.prefix}_{name}"

    def table(self, values: np.ndarray, comment: str = "") -> str:
        """The name of a constant array of float32 numbers."""
        values = np.ascontiguousarray(values, np.float32)
        key = (values.size, values.tobytes())
        if key not in self._names:
            self._names[key] = self._add(f"{self.prefix}_weights_{len(self.weights)}", values, comment)
        return self._names[key]

    def _add(self, name: str, values: np.ndarray, comment: str) -> str:
        self.weights.append((name, values.size))
        self.values.append(values)
        self.arrays.append(floats(name, values, comment))
        return name

    def zeros(self) -> str:
        """The name of an array of as many zeros as are computed at once: the bias of what has none."""
        return self.table(np.zeros(BLOCK, np.float32), "no bias")

    def scalar(self, value: float) -> str:
        """An expression for one number, which is in the array of all of them."""
        rounded = np.float32(value)
        place = self._numbers.setdefault(rounded.tobytes(), len(self._numbers))
        return f"{self.prefix}_numbers[{place}]"

    def indices(self, places: np.ndarray) -> str:
        """The name of a constant array of indices."""
        kind = "unsigned short" if places.max(initial=0) < 2**16 else "unsigned int"
        key = ("indices", places.size, places.astype(np.int64).tobytes())
        if key not in self._names:
            name = self._names[key] = f"{self.prefix}_indices_{len(self._names)}"
            values = map(str, places.tolist())
            self.arrays.append(array(f"static const {kind}", name, values, f"[{places.size}]"))
        return self._names[key]
