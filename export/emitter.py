"""How ATen operators are written as ONNX: the emitter of nodes and initialisers, and an operator's row in the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
import onnx

from .errors import ExportError
from .evaluation import operands, schema
from .graph import Graph, Node, Rows, Shape, Tensor, unique

PREVIOUS = ""
"""An input of an operator in a sequence: the value of the operator before it."""


class Emitter:
    """Emits ONNX nodes and initialisers for the nodes of a graph, in the order of first use.

    Raises ExportError where the ``opset`` lacks an operator.
    """

    def __init__(self, graph: Graph, opset: int):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, np.ndarray] = {}
        self.renamed: dict[str, str] = {}
        """Values of the graph that have another name in the file."""
        self._inputs, self._shapes, self._dtypes = list(graph.inputs), graph.shapes, graph.dtypes
        counts = Counter(node.home for node in graph.nodes)
        last = {node.home: node.output for node in graph.nodes}
        self._shared_homes = {home for home, count in counts.items() if count > 1}
        outputs = set(graph.outputs.values())
        self._inner = {n.output for n in graph.nodes if n.output != last[n.home] and n.output not in outputs}
        """Values that stay within their building block."""
        self._taken = {*graph.outputs, *graph.shapes}
        self._node_names: set[str] = set()
        self._names: dict[tuple[Any, ...], str] = {}
        """The names of initialisers and of the number of rows, by what they hold."""
        self._with_steps: set[str] = set()

    def __call__(
        self, op_type: str, inputs: Sequence[str], output: str, name: str, *, further: int = 0, **attributes: Any
    ) -> str:
        """Emit an ONNX node under ``name``, with a number where that is taken; ``further`` outputs are unused."""
        name = unique(name, self._node_names)
        outputs = [output, *(unique(f"{name}.unread", self._taken) for _ in range(further))]
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), outputs, name=name, **attributes))
        return output

    def step(self, op_type: str, node: Node, *inputs: str, **attributes: Any) -> str:
        """Emit an operator before a node's last one; returns the name of its value."""
        self._refuse_missing(op_type, node)
        name = f"{node.home}/{op_type}"
        self._with_steps.add(node.output)
        return self(op_type, inputs, unique(f"{name}.output", self._taken), name, **attributes)

    def last(self, op_type: str, node: Node, *inputs: str, **attributes: Any) -> str:
        """Emit the operator that gives the node's value; it has the name of its home where it is the only one there."""
        self._refuse_missing(op_type, node)
        several = node.output in self._with_steps or node.home in self._shared_homes
        name = f"{node.home}/{op_type}" if several else node.home
        output = node.output
        if output in self._inner:
            output = self.renamed[node.output] = unique(f"{name}.output", self._taken)
        self._dtypes[output] = node.dtype  # by the name in the file, which an output or an inner value has
        return self(op_type, inputs, output, name, **attributes)

    def sequence(self, node: Node, *operators: Sequence[str]) -> None:
        """Emit a node's operators one after the other, each an ONNX operator with its inputs."""
        value = ""
        for index, (op_type, *inputs) in enumerate(operators, 1):
            emit = self.last if index == len(operators) else self.step
            value = emit(op_type, node, *(value if name == PREVIOUS else name for name in inputs))

    def reduction(self, op_type: str, node: Node, x: str, axes: list[int], *, last: bool = False, **more: int) -> str:
        """Emit a reduction over axes, which are an attribute, or in newer opsets an input."""
        emit = self.last if last else self.step
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return emit(op_type, node, x, self.integers(f"{node.home}.axes", axes), **more)
        return emit(op_type, node, x, axes=axes, **more)

    def operands(self, node: Node, *, numbers: bool = True) -> list[str]:
        """The names of all operands, in the order of the schema: values, constants, and ``numbers`` as constants."""
        return [self._operand(node, operand) for operand in operands(node) if numbers or operand not in node.attributes]

    def _operand(self, node: Node, operand: int | str) -> str:
        if isinstance(operand, int):
            return node.inputs[operand]
        return self.tensor(node.tensors[operand]) if operand in node.tensors else self.number(node, operand)

    def number(self, node: Node, role: str) -> str:
        """A number among the attributes as a constant of the type that the node computes in."""
        value, name = node.attributes[role], f"{node.home}.{role}"
        integer = {self.dtype(source) for source in node.inputs} == {"int64"} and node.dtype != "float32"
        return self.integers(name, int(value)) if integer else self.constant(name, float(value))

    def dtype(self, value: str) -> str:
        """The element type of a value of the graph."""
        return self._dtypes.get(value, "float32")

    def flattens(self, node: Node) -> bool:
        """Whether a reshape turns rows of several dimensions into rows of one, as Flatten does."""
        sizes, before = node.attributes["shape"], self._shapes.get(node.inputs[0], ())
        return len(sizes) == 2 and sizes[0] == Rows() and len(before) > 2 and before[0] == Rows()

    def tensor(self, tensor: Tensor) -> str:
        """A constant under its own name; what several nodes share is stored once."""
        values = tensor.values
        memory = (values.__array_interface__["data"][0], values.strides)
        return self._initialiser((tensor.name, values.shape, memory), tensor.name, np.ascontiguousarray(values))

    def tensor_or(self, node: Node, role: str, value: float, shape: tuple[int, ...]) -> str:
        """A node's tensor, or where it has none a constant filled with ``value``."""
        if role in node.tensors:
            return self.tensor(node.tensors[role])
        return self.constant(f"{node.home}.{role}", [value] * prod(shape), shape)

    def constant(self, name: str, value: float | Sequence[float], shape: tuple[int, ...] | None = None) -> str:
        """A float32 constant that is not a tensor of the module."""
        values = np.asarray(value, dtype=np.float64)
        rounded = np.asarray(values, dtype=np.float32) if values.ndim else np.asarray(np.float32(self.float32(value)))
        return self._initialiser((name, rounded.tobytes()), name, rounded if shape is None else rounded.reshape(shape))

    def integers(self, name: str, values: int | Sequence[int]) -> str:
        """An int64 constant: one number, or a list of them."""
        array = np.asarray(values, dtype=np.int64)
        return self._initialiser((name, array.shape, array.tobytes()), name, array)

    def open_shape(self, node: Node, shape: Shape) -> str:
        """A shape as a Reshape takes it: -1 for the size that grows with the batch."""
        return self.integers(f"{node.home}.shape", [size if isinstance(size, int) else -1 for size in shape])

    def sizes(self, name: str, shape: Shape) -> str:
        """A shape as a value; the size of the batch is computed from the first input."""
        sizes = [size for size in shape if isinstance(size, int)]
        if len(sizes) == len(shape):
            return self.integers(name, sizes)
        parts: list[str] = []
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                parts.append(self.integers(f"{name}.{axis}", [size]))
                continue
            parts.append(self._batch())
            if size.times != 1:
                factor = self.integers(f"{name}.times", [size.times])
                parts[-1] = self("Mul", [parts[-1], factor], unique(f"{name}/Mul.output", self._taken), f"{name}/Mul")
        return self("Concat", parts, unique(f"{name}.output", self._taken), f"{name}/Concat", axis=0)

    def _batch(self) -> str:
        """The number of rows, of shape [1]."""
        if ("batch",) not in self._names:
            shape = self("Shape", self._inputs[:1], unique("batch/Shape.output", self._taken), "batch/Shape")
            first = self.integers("batch.first", [0])
            output = unique("batch.output", self._taken)
            self._names["batch",] = self("Gather", [shape, first], output, "batch/Gather", axis=0)
        return self._names["batch",]

    @staticmethod
    def float32(value: Any) -> float:
        """An attribute rounded to float32. Raises ExportError where that would be infinite."""
        with np.errstate(over="ignore"):
            rounded = np.float32(value)
        if np.isinf(rounded) and not np.isinf(value):
            raise ExportError(f"the option {value!r} is beyond float32, which the file computes in")
        return float(rounded)

    def _initialiser(self, key: tuple[Any, ...], name: str, values: np.ndarray) -> str:
        """The name of an initialiser, which is ``name`` with a number where other values have that already."""
        if key not in self._names:
            self._names[key] = unique(name, self._taken)
            self.initialisers[self._names[key]] = values
        return self._names[key]

    def refuse(self, node: Node, since: int, what: str) -> None:
        """Raise ExportError: the file's opset lacks what a node needs."""
        message = f"{node.op} at '{node.path}' needs opset {since}, for its {what}, and the file is to be of opset"
        hint = f"give opset {since} or more (--opset {since}), or a newer server"
        raise ExportError(f"{message} {self.opset}. What to do: {hint}")

    def _refuse_missing(self, op_type: str, node: Node) -> None:
        if self.opset < (since := _since_opset(op_type)):
            self.refuse(node, since, op_type)


@cache
def _since_opset(op_type: str) -> int:
    """The opset that introduced an operator."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return min(schema.since_version for schema in schemas if schema.name == op_type and schema.domain == "")


Lower = Callable[[Emitter, Node], object]


@dataclass(frozen=True)
class Operator:
    """How an ATen operator is written. Calls of its ``overloads`` are recorded as they are."""

    lower: Lower
    overloads: tuple[str, ...] = ("default",)
    refuse: Callable[[Node], str | None] = lambda _: None
    """Why a node cannot be written; None where it can."""
    multiply_adds: Callable[[Node], int] = lambda _: 0
    """The multiply-adds for one row."""


def single(op_type: str, **attributes: str | float) -> Lower:
    """One ONNX node on all operands.

    Its attributes are values, or names of the ATen operator's options (``alpha="negative_slope"``); floats are stored
    as float32.
    """

    def lower(emit: Emitter, node: Node) -> None:
        real = {role for role, kind, *_ in schema(node.op, node.overload)[1] if kind in ("number", "float")}
        values: dict[str, Any] = {}
        for name, source in attributes.items():
            value = node.attributes[source] if isinstance(source, str) else source
            values[name] = emit.float32(value) if source in real or isinstance(value, float) else value
        emit.last(op_type, node, *emit.operands(node, numbers=not attributes), **values)

    return lower


def chain(*op_types: str) -> Lower:
    """ONNX nodes one after the other, the first on all operands."""

    def lower(emit: Emitter, node: Node) -> None:
        first, *others = op_types
        emit.sequence(node, [first, *emit.operands(node)], *([other, PREVIOUS] for other in others))

    return lower
