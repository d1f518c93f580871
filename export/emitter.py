"""How ATen operators are written as ONNX: a row of the table for each, and the nodes and initialisers it emits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
import onnx

from .errors import ExportError
from .evaluation import schema
from .graph import Graph, Node, Rows, Shape, Tensor, unique

_OPERANDS = ("Tensor", "Optional[Tensor]", "number")
"""The types of arguments that an operator of a file takes as inputs."""
_EMPTY = Graph({}, (), {})
PREVIOUS = ""
"""Among the inputs of several operators in a row: the value of the one before."""


class Emitter:
    """Called once per ONNX node; ``nodes`` and ``initialisers`` (in the order of first use) are the result.

    ``values`` are names that are taken, ``inner`` values that no other block reads and ``crowded`` the homes of several
    nodes. ``opset`` is the one that the nodes belong to. Raises ExportError where it lacks an operator.
    """

    def __init__(
        self,
        values: Sequence[str],
        opset: int,
        *,
        graph: Graph = _EMPTY,
        inner: frozenset[str] = frozenset(),
        crowded: frozenset[str] = frozenset(),
    ):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, np.ndarray] = {}
        self.renamed: dict[str, str] = {}
        """Values of the graph that have another name in the file."""
        self._inputs, self._shapes, self._dtypes = list(graph.inputs), graph.shapes, graph.dtypes
        self._inner, self._crowded = inner, crowded
        self._values = set(values)
        self._node_names: set[str] = set()
        self._held: dict[tuple[Any, ...], str] = {}
        self._since: set[str] = set()

    def __call__(
        self, op_type: str, inputs: Sequence[str], output: str, name: str, *, further: int = 0, **attributes: Any
    ) -> str:
        """A node under its name, or that name with a number; ``further`` outputs are read by nobody."""
        name = unique(name, self._node_names)
        outputs = [output, *(unique(f"{name}.unread", self._values) for _ in range(further))]
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), outputs, name=name, **attributes))
        return output

    def step(self, op_type: str, node: Node, *inputs: str, **attributes: Any) -> str:
        """One of a node's inner operators; gives the name of its value."""
        self._refuse_missing(op_type, node)
        name = f"{node.home}/{op_type}"
        self._since.add(node.output)
        return self(op_type, inputs, unique(f"{name}.output", self._values), name, **attributes)

    def last(self, op_type: str, node: Node, *inputs: str, **attributes: Any) -> str:
        """The operator that gives the node's own value; it has the name of its home where it is the only one there."""
        self._refuse_missing(op_type, node)
        several = node.output in self._since or node.home in self._crowded
        name = f"{node.home}/{op_type}" if several else node.home
        output = node.output
        if output in self._inner:
            output = self.renamed[node.output] = unique(f"{name}.output", self._values)
        self._dtypes[output] = node.dtype  # under the name that is read: an output or an inner value has another
        return self(op_type, inputs, output, name, **attributes)

    def in_turn(self, node: Node, *steps: Sequence[str]) -> None:
        """A node's operators one after the other, each with its inputs."""
        value = ""
        for index, (op_type, *inputs) in enumerate(steps, 1):
            emitted = self.last if index == len(steps) else self.step
            value = emitted(op_type, node, *(value if name == PREVIOUS else name for name in inputs))

    def reduction(self, op_type: str, node: Node, x: str, axes: list[int], *, last: bool = False, **more: int) -> str:
        """A reduction over axes, which are an attribute, or in newer opsets an input."""
        emitted = self.last if last else self.step
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return emitted(op_type, node, x, self.integers(f"{node.home}.axes", axes), **more)
        return emitted(op_type, node, x, axes=axes, **more)

    def operands(self, node: Node, *, numbers: bool = True) -> list[str]:
        """The names of all operands, in the order of the schema: values, constants, and ``numbers`` as constants."""
        left = iter(node.inputs)
        found: list[str] = []
        for role, kind, *_ in schema(node.op, node.overload)[1]:
            if kind == "List[Tensor]":
                count = len(node.inputs) + sum(key.startswith(f"{role}.") for key in node.tensors)
                keys = [f"{role}.{i}" for i in range(count)]
                found += [self.tensor(node.tensors[k]) if k in node.tensors else next(left) for k in keys]
            elif role in node.tensors:
                found.append(self.tensor(node.tensors[role]))
            elif role in node.attributes:
                wanted = numbers and kind in _OPERANDS and node.attributes[role] is not None
                found += [self.number(node, role)] if wanted else []
            elif kind in ("Tensor", "Optional[Tensor]"):
                found += [name for name in (next(left, None),) if name is not None]
        return found

    def number(self, node: Node, role: str) -> str:
        """A number among the attributes as a constant of the type that the node computes in."""
        value, name = node.attributes[role], f"{node.home}.{role}"
        whole = {self.dtype(name) for name in node.inputs} == {"int64"} and node.dtype != "float32"
        return self.integers(name, int(value)) if whole else self.constant(name, float(value))

    def dtype(self, value: str) -> str:
        """The element type of a value of the graph."""
        return self._dtypes.get(value, "float32")

    def flattens(self, node: Node) -> bool:
        """Whether a view makes rows of one dimension of rows of several, as Flatten does."""
        sizes, before = node.attributes["shape"], self._shapes.get(node.inputs[0], ())
        return len(sizes) == 2 and sizes[0] == Rows() and len(before) > 2 and before[0] == Rows()

    def tensor(self, tensor: Tensor) -> str:
        """A constant under its own name; shared ones are stored once."""
        values = tensor.values
        memory = (values.__array_interface__["data"][0], values.strides)
        return self._hold((tensor.name, values.shape, memory), tensor.name, np.ascontiguousarray(values))

    def filled(self, node: Node, role: str, value: float, shape: tuple[int, ...]) -> str:
        """A node's tensor, or one that is ``value`` everywhere where it has none."""
        if role in node.tensors:
            return self.tensor(node.tensors[role])
        return self.constant(f"{node.home}.{role}", [value] * prod(shape), shape)

    def constant(self, name: str, value: float | Sequence[float], shape: tuple[int, ...] | None = None) -> str:
        """A float32 constant that the module has no tensor for."""
        values = np.asarray(value, dtype=np.float64)
        held = np.asarray(values, dtype=np.float32) if values.ndim else np.asarray(np.float32(self.float32(value)))
        return self._hold((name, held.tobytes()), name, held if shape is None else held.reshape(shape))

    def integers(self, name: str, values: int | Sequence[int]) -> str:
        """An int64 constant: one number, or a list of them."""
        held = np.asarray(values, dtype=np.int64)
        return self._hold((name, held.shape, held.tobytes()), name, held)

    def open_shape(self, node: Node, shape: Shape) -> str:
        """A shape as a Reshape takes it: the size that grows with the batch is what is left over."""
        return self.integers(f"{node.home}.shape", [size if isinstance(size, int) else -1 for size in shape])

    def sizes(self, name: str, shape: Shape) -> str:
        """A shape as a value, with the batch's size taken from the first input where it stands in it."""
        sizes = [size for size in shape if isinstance(size, int)]
        if len(sizes) == len(shape):
            return self.integers(name, sizes)
        parts = []
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                parts.append(self.integers(f"{name}.{axis}", [size]))
                continue
            parts.append(self._batch())
            if size.times != 1:
                factor = self.integers(f"{name}.times", [size.times])
                parts[-1] = self("Mul", [parts[-1], factor], unique(f"{name}/Mul.output", self._values), f"{name}/Mul")
        return self("Concat", parts, unique(f"{name}.output", self._values), f"{name}/Concat", axis=0)

    def _batch(self) -> str:
        """The number of rows, of shape [1]."""
        if ("batch",) not in self._held:
            whole = self("Shape", self._inputs[:1], unique("batch/Shape.output", self._values), "batch/Shape")
            first = self.integers("batch.first", [0])
            held = self("Gather", [whole, first], unique("batch.output", self._values), "batch/Gather", axis=0)
            self._held["batch",] = held
        return self._held["batch",]

    @staticmethod
    def float32(value: Any) -> float:
        """An attribute as the float32 that the file will hold. Raises ExportError where that would be infinite."""
        with np.errstate(over="ignore"):
            held = np.float32(value)
        if np.isinf(held) and not np.isinf(value):
            raise ExportError(f"the option {value!r} is beyond float32, which the file computes in")
        return float(held)

    def _hold(self, key: tuple[Any, ...], name: str, values: np.ndarray) -> str:
        """One name may come with other values (another node's constant); it gets a number then."""
        if key not in self._held:
            self._held[key] = unique(name, self._values)
            self.initialisers[self._held[key]] = values
        return self._held[key]

    def refuse(self, node: Node, since: int, what: str) -> None:
        """Raise ExportError: the file's opset lacks something that a node needs."""
        message = f"{node.op} at '{node.path}' needs opset {since}, for its {what}, and the file is to be of opset"
        hint = f"give opset {since} or more (--opset {since}), or a newer server"
        raise ExportError(f"{message} {self.opset}. What to do: {hint}")

    def _refuse_missing(self, op_type: str, node: Node) -> None:
        if self.opset < (since := _since(op_type)):
            self.refuse(node, since, op_type)


@cache
def _since(op_type: str) -> int:
    """The opset that brought an operator."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return min(schema.since_version for schema in schemas if schema.name == op_type and schema.domain == "")


Lower = Callable[[Emitter, Node], object]


@dataclass(frozen=True)
class Operator:
    """How an ATen operator is written; ``overloads`` are those that the trace takes as they are."""

    lower: Lower
    overloads: tuple[str, ...] = ("default",)
    refuse: Callable[[Node], str | None] = lambda node: None
    """Why this one cannot be written, if it cannot."""
    multiply_adds: Callable[[Node], int] = lambda node: 0
    """Of a row."""


def one(op_type: str, **attributes: str | float) -> Lower:
    """One ONNX node on all operands. Its attributes are values or the names of options (``alpha="negative_slope"``);
    what is no whole number is stored as float32.
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
        emit.in_turn(node, [first, *emit.operands(node)], *([other, PREVIOUS] for other in others))

    return lower
