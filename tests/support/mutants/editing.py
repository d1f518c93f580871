"""What faults are made with: a copy of a file, places in it that a generator picks, and new operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

T = TypeVar("T")
Array = np.ndarray
FLOAT = TensorProto.FLOAT


class NoPlace(Exception):
    """The file has no place for the fault."""


@dataclass(frozen=True)
class Edge:
    """A float32 value that depends on the rows, and who reads it: an operator, or an output of the file."""

    value: str
    node: NodeProto | None
    index: int = 0


class File:
    """A file that a fault changes. ``rng`` picks whatever is picked; NoPlace is raised where there is nothing."""

    def __init__(self, proto: ModelProto, rng: np.random.Generator):
        self.proto, self.rng = ModelProto(), rng
        self.proto.CopyFrom(proto)
        self.before = proto
        self.graph = self.proto.graph
        self.cursor = len(self.graph.node)
        """Where ``add`` puts the next operator."""
        self._names = 0

    def then(self, fault: Callable[[File], None]) -> None:
        """Apply another fault to what has become of the file."""
        following = File(self.proto, self.rng)
        following._names = self._names + 1000
        fault(following)
        self.proto, self.graph, self._names = following.proto, following.graph, following._names

    @cached_property
    def opset(self) -> int:
        return next(each.version for each in self.proto.opset_import if each.domain in ("", "ai.onnx"))

    @cached_property
    def constants(self) -> dict[str, Array]:
        """Every stored constant by name, as it was before the fault. Raises NoPlace: an earlier fault damaged one."""
        try:
            held = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.before.graph.initializer}
            for node in self.before.graph.node:
                if node.op_type == "Constant" and node.attribute[0].name == "value":
                    held[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        except ValueError:
            raise NoPlace from None
        return held

    @cached_property
    def _known(self) -> dict[str, onnx.ValueInfoProto]:
        """Types and shapes of the values of the right file."""
        try:
            graph = onnx.shape_inference.infer_shapes(self.before).graph
        except Exception:  # of several kinds, where an earlier fault left a file that is none of ONNX
            raise NoPlace from None
        return {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}

    @cached_property
    def varying(self) -> frozenset[str]:
        """The values that depend on the rows, and are no shape."""
        found = {value.name for value in self.before.graph.input} - set(self.constants)
        for node in self.before.graph.node:
            if node.op_type != "Shape" and found.intersection(node.input):
                found.update(node.output)
        return frozenset(found)

    def type_of(self, value: str) -> int:
        known = self._known.get(value)
        return known.type.tensor_type.elem_type if known is not None else 0

    def shape_of(self, value: str) -> tuple[int | str, ...]:
        """The shape that ONNX infers, the batch as a text. Raises NoPlace: unknown."""
        known = self._known.get(value)
        if known is None or not known.type.tensor_type.HasField("shape"):
            raise NoPlace
        return tuple(
            dim.dim_value if dim.HasField("dim_value") else "batch" for dim in known.type.tensor_type.shape.dim
        )

    def row_of(self, value: str) -> tuple[int, ...]:
        """The shape of a value's rows. Raises NoPlace: unknown, or its first dimension is not the batch alone."""
        first, *row = self.shape_of(value) or (0,)
        if not isinstance(first, str) or not row or not all(isinstance(size, int) and size > 0 for size in row):
            raise NoPlace
        return tuple(int(size) for size in row)

    def one(self, items: Iterable[T]) -> T:
        """One of several. Raises NoPlace: none."""
        listed = list(items)
        if not listed:
            raise NoPlace
        return listed[int(self.rng.integers(len(listed)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def node(self, *kinds: str, fits: Callable[[NodeProto], bool] = lambda _: True) -> NodeProto:
        """An operator that computes something from the rows, of one of these kinds."""
        return self.one(
            node
            for node in self.graph.node
            if (not kinds or node.op_type in kinds) and self.varying.intersection(node.input) and fits(node)
        )

    @cached_property
    def edges(self) -> list[Edge]:
        """Every place where an operator or an output reads a float32 value that depends on the rows."""
        found = [Edge(name, node, i) for node in self.graph.node for i, name in enumerate(node.input)]
        found += [Edge(value.name, None) for value in self.graph.output]
        return [edge for edge in found if edge.value in self.varying and self.type_of(edge.value) == FLOAT]

    def edge(self, fits: Callable[[Edge], bool] = lambda _: True) -> Edge:
        return self.one(edge for edge in self.edges if fits(edge))

    def rowed_edge(self, *kinds: str) -> tuple[Edge, tuple[int, ...]]:
        """An edge of a value with rows of a known shape, read by an operator of one of the kinds, and that shape."""

        def fits(edge: Edge) -> bool:
            try:
                self.row_of(edge.value)
            except NoPlace:
                return False
            return not kinds or (edge.node is not None and edge.node.op_type in kinds)

        edge = self.edge(fits)
        return edge, self.row_of(edge.value)

    def name(self, prefix: str = "new") -> str:
        self._names += 1
        return f"{prefix}{self._names}_fault"

    def constant(self, values: Any, kind: Any = None) -> str:
        """A new stored constant; numbers are float32 and whole numbers int64 unless said."""
        array = np.asarray(values, kind)
        if kind is None and array.dtype == np.float64:
            array = array.astype(np.float32)
        self.graph.initializer.append(numpy_helper.from_array(array, self.name("constant")))
        return self.graph.initializer[-1].name

    def add(self, kind: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """A new operator at the cursor, its constants stored; the name of its output, or of several."""
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        made = [self.name() for _ in range(outputs)]
        node = helper.make_node(kind, names, made, domain=domain, name=self.name(kind), **attributes)
        self.graph.node.insert(self.cursor, node)
        self.cursor += 1
        return made[0] if outputs == 1 else made

    def axes(self, kind: str, value: str, axes: Sequence[int], since: int, **attributes: Any) -> str:
        """An operator whose axes are an attribute before opset ``since``, and an input from it on."""
        if self.opset < since:
            return self.add(kind, value, axes=list(axes), **attributes)
        return self.add(kind, value, np.asarray(axes, np.int64), **attributes)

    def before_node(self, node: NodeProto | None) -> None:
        """Put the next operators before this one; None: at the end."""
        places = [i for i, each in enumerate(self.graph.node) if node is not None and each is node]
        if node is not None and not places:
            places = [i for i, each in enumerate(self.graph.node) if each == node]
        self.cursor = places[0] if places else len(self.graph.node)

    def between(self, edge: Edge, made: Callable[[str], str]) -> None:
        """Put operators on an edge: ``made`` adds them after a value and gives theirs."""
        if edge.node is not None:
            self.before_node(edge.node)
            edge.node.input[edge.index] = made(edge.value)
            return
        inner = self.name("inner")
        if not any(edge.value in node.output for node in self.graph.node):
            raise NoPlace
        for node in self.graph.node:
            node.output[:] = [inner if name == edge.value else name for name in node.output]
            node.input[:] = [inner if name == edge.value else name for name in node.input]
        self.before_node(None)
        self.rename(made(inner), edge.value)

    def rename(self, old: str, new: str) -> None:
        """Give the value that an operator makes another name, wherever it is read."""
        for node in self.graph.node:
            node.output[:] = [new if name == old else name for name in node.output]
            node.input[:] = [new if name == old else name for name in node.input]

    def replace(self, name: str, values: Array) -> None:
        """Store other values for a constant."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        for held in self.graph.initializer:
            if held.name == name:
                held.CopyFrom(tensor)
        for node in self.graph.node:
            if node.op_type == "Constant" and name in node.output:
                node.attribute[0].t.CopyFrom(tensor)

    def weight(self, fits: Callable[[Array], bool] = lambda _: True) -> tuple[str, Array]:
        """A float32 constant and its values."""
        names = [n for n, v in self.constants.items() if v.dtype == np.float32 and v.size and fits(v)]
        name = self.one(names)
        return name, self.constants[name].copy()

    def reads(self, name: str, instead: str) -> None:
        """Let everything that read a value read another."""
        for node in self.graph.node:
            node.input[:] = [instead if each == name else each for each in node.input]

    def attribute(self, node: NodeProto, name: str) -> AttributeProto | None:
        return next((each for each in node.attribute if each.name == name), None)

    def set(self, node: NodeProto, name: str, value: Any) -> None:
        """Give an operator an attribute in place of the one it has."""
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])
