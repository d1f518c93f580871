"""The graph of an ONNX file: its operators, its constants, and what is known of its values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from export.graph import Rows, Shape

RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_SIZED = ("Reshape", "Expand")
"""Operators whose second input is a shape."""
OF_SIZES = ("Shape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Mul")
"""Operators that an exporter writes to compute the target shape of a Reshape."""
_MOST_SIZES = 64
"""The most sizes of a shape, and the most operators in a row that compute one."""


@dataclass(frozen=True)
class Model:
    """The graph of a file. ``constants`` has every constant, ``proto`` the small ones; ``large`` names the others.

    Those must be added to ``proto`` again before it is run (``export.proof.running``).
    """

    path: Path
    proto: ModelProto
    constants: dict[str, np.ndarray]
    large: frozenset[str]
    problem: str | None = None
    """What makes the file's meaning depend on its reader, if anything does; nothing is proved of it then."""
    recovering: bool = False
    """Whether the file is read for recovery: it may then have a Dropout that does nothing in inference, and an output
    with the module's rows in another shape.
    """

    @cached_property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The inputs that are not constants."""
        return [value for value in self.proto.graph.input if value.name not in self.constants]

    @property
    def batch(self) -> int | None:
        """The batch size, where the file fixes it."""
        firsts = (dim for value in self.inputs for dim in value.type.tensor_type.shape.dim[:1])
        return next((dim.dim_value for dim in firsts if dim.dim_value), None)

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """The operators that compute something; constants, Identity and changes of shape are looked through."""
        nodes = [n for n in self.proto.graph.node if not (is_plain(n) or self._reshapes(n) or self._is_constant(n))]
        return [n for n in nodes if not set(n.output) <= self.shape_values]

    @cached_property
    def shape_values(self) -> set[str]:
        """Values that are nothing but the target shape of a Reshape or Expand, or compute it from shapes of values."""
        shapes: set[str] = set()
        for node in reversed(self.proto.graph.node):
            if node.op_type in _SIZED and len(node.input) > 1:
                shapes.add(node.input[1])
            elif shapes.intersection(node.output) and node.op_type in OF_SIZES:
                shapes.update(node.input)
        data = {n for node in self.proto.graph.node if node.op_type not in (*OF_SIZES, *_SIZED) for n in node.input}
        reshaped = {node.input[0] for node in self.proto.graph.node if node.op_type in (*_SIZED, "Shape")}
        outputs = {value.name for value in self.proto.graph.output}
        return shapes - data - reshaped - outputs

    @cached_property
    def _sources(self) -> dict[str, str]:
        """The value that a value is a copy of, or has the rows of in another shape."""
        sources: dict[str, str] = {}
        for node in self.proto.graph.node:
            if node.input and not self._is_constant(node) and (is_plain(node) or self._reshapes(node)):
                sources[node.output[0]] = sources.get(node.input[0], node.input[0])
        return sources

    @cached_property
    def _readers(self) -> dict[str, list[NodeProto]]:
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(self.value(name) for name in node.input):
                readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def _inferred(self) -> dict[str, onnx.ValueInfoProto]:
        """Types and shapes of values, as ONNX infers them."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        proto.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, self.constants[name].shape)
            for name in self.large
        )
        inferred = onnx.shape_inference.infer_shapes(proto).graph
        return {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}

    @cached_property
    def rows(self) -> dict[str, tuple[int, ...]]:
        """The shapes of rows of the values whose shapes ONNX can infer."""
        known = {name: value for name, value in self._inferred.items() if value.type.tensor_type.shape.dim}
        shapes = {name: row_shape(value) for name, value in known.items()}
        return {
            name: tuple(size for size in shape if isinstance(size, int))
            for name, shape in shapes.items()
            if all(isinstance(size, int) and size > 0 for size in shape)
        }

    def has_batch(self, name: str) -> bool:
        """Whether the first dimension of a value is that of the inputs, as far as ONNX can tell."""
        firsts = [self._inferred[n].type.tensor_type.shape.dim[:1] for n in (name, self.inputs[0].name)]
        return all(firsts) and firsts[0][0] == firsts[1][0]

    def element_type(self, name: str) -> int:
        """ONNX's number of a value's element type; that of float32 where it cannot be inferred."""
        known = self._inferred.get(name)
        return known.type.tensor_type.elem_type if known is not None else TensorProto.FLOAT

    def sizes(self, name: str, depth: int = 0) -> Shape | None:
        """A shape that the file holds, or computes from shapes of values; None where it is computed from anything else.

        The batch is the first dimension of the file's inputs, where it is symbolic.
        """
        if name not in self._known_sizes:
            sizes = self._computed_sizes(name, depth) if depth < _MOST_SIZES else None
            self._known_sizes[name] = sizes if sizes is not None and len(sizes) <= _MOST_SIZES else None
        return self._known_sizes[name]

    @cached_property
    def _known_sizes(self) -> dict[str, Shape | None]:
        return {}

    def _computed_sizes(self, name: str, depth: int) -> Shape | None:
        if name in self.constants:
            constant = self.constants[name]
            return tuple(constant.reshape(-1).tolist()) if constant.dtype == np.int64 else None
        producer = next((node for node in self.proto.graph.node if name in node.output), None)
        if producer is None:
            return None
        if producer.op_type == "Shape":
            shape, ends = self._shape_of(producer.input[0]), {a.name: a.i for a in producer.attribute}
            return None if shape is None else shape[ends.get("start", 0) : ends.get("end")]
        inputs = [self.sizes(part, depth + 1) for part in producer.input]
        known = [sizes for sizes in inputs if sizes is not None]
        if len(known) != len(inputs) or not known:
            return None
        if producer.op_type == "Concat":
            return tuple(size for sizes in known for size in sizes)
        if producer.op_type in ("Unsqueeze", "Squeeze", "Cast", "Identity"):
            return known[0]
        if producer.op_type == "Gather":
            indices = [i for i in known[1] if isinstance(i, int) and -len(known[0]) <= i < len(known[0])]
            return tuple(known[0][i] for i in indices) if len(indices) == len(known[1]) else None
        return _multiplied(known[0], known[1]) if producer.op_type == "Mul" else None

    def _shape_of(self, name: str) -> Shape | None:
        """The shape of a value, as the file declares it or ONNX infers it."""
        inferred = self._inferred.get(name)
        if inferred is None or not inferred.type.tensor_type.HasField("shape"):
            return None
        batches = {d.dim_param for value in self.inputs for d in value.type.tensor_type.shape.dim[:1]} - {""}
        is_input = any(value.name == name for value in self.inputs)
        sizes = [
            dim.dim_value or (Rows() if dim.dim_param in batches or (is_input and axis == 0) else None)
            for axis, dim in enumerate(inferred.type.tensor_type.shape.dim)
        ]
        known = tuple(size for size in sizes if size is not None)
        return known if len(known) == len(sizes) else None

    def value(self, name: str) -> str:
        """The value that a name is a copy of, or has the rows of in another shape; else the name itself."""
        return self._sources.get(name, name)

    def consumers(self, value: str) -> list[NodeProto]:
        """The operators that read a value, in whatever shape."""
        return self._readers.get(self.value(value), [])

    def _is_constant(self, node: NodeProto) -> bool:
        return bool(node.output) and node.output[0] in self.constants

    def _reshapes(self, node: NodeProto) -> bool:
        """Whether an operator returns the rows in another shape. That rows stay rows is checked when the file runs."""
        if node.domain not in ("", "ai.onnx") or self._is_constant(node):
            return False
        if node.op_type == "Cast":
            from_float = self.element_type(node.input[0]) == TensorProto.FLOAT
            return from_float and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
        if node.op_type == "Dropout":
            training = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.False_
            return self.recovering and len(node.output) == 1 and training is not None and not training.any()
        if node.op_type == "Transpose":
            return self._keeps_rows(node)
        return node.op_type in RESHAPES

    def _keeps_rows(self, node: NodeProto) -> bool:
        """Whether a Transpose moves nothing but dimensions of size 1, so that the values keep their order."""
        known = self._inferred.get(node.input[0])
        sizes = [dim.dim_value for dim in known.type.tensor_type.shape.dim] if known is not None else []
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), list[int]())
        if len(perm) != len(sizes):
            return False
        moved = [axis for axis in perm if axis == 0 or sizes[axis] != 1]  # the first one is the batch, even of 1 row
        return moved == sorted(moved)

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators; 0 where the file names none."""
        return next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def live_and_dead(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> tuple[list[NodeProto], list[NodeProto]]:
    """The operators that the outputs depend on, and the others, in order."""
    live, dead, needed = list[NodeProto](), list[NodeProto](), set(outputs)
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed |= values_read(node)
            live.append(node)
        else:
            dead.append(node)
    return live[::-1], dead[::-1]


def values_read(node: NodeProto) -> set[str]:
    """The values that an operator reads, with those that only the bodies of an If, a Loop or a Scan read."""
    names = set(node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            names |= {value.name for value in body.output}
            names = names.union(*map(values_read, body.node))
    return names


def add_outputs(proto: ModelProto, values: Iterable[onnx.ValueInfoProto]) -> None:
    """Make inner values outputs of a file; those that are outputs already stay as they are."""
    outputs = proto.graph.output
    for value in values:
        if all(value.name != output.name for output in outputs):
            outputs.append(value)


def _multiplied(left: Shape, right: Shape) -> Shape | None:
    """The product of two single sizes, at most one of which grows with the batch."""
    if len(left) != 1 or len(right) != 1:
        return None
    (a,), (b,) = left, right
    if isinstance(a, Rows) and isinstance(b, int):
        return (Rows(a.times * b),)
    if isinstance(a, int) and isinstance(b, Rows):
        return (Rows(a * b.times),)
    return (a * b,) if isinstance(a, int) and isinstance(b, int) else None


def is_plain(node: NodeProto) -> bool:
    """Whether a node returns a constant, or its input."""
    return node.op_type in ("Constant", "Identity") and node.domain in ("", "ai.onnx")


def label(node: NodeProto) -> str:
    """How a message names an operator: by its own name or that of its first output."""
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"


def attributes_of(node: NodeProto, opset: int) -> dict[str, Any]:
    """The attributes of a standard operator, with the opset's defaults for those that it does not have."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    defaults = [row.default_value for row in schema.attributes.values() if row.default_value.name]
    return {a.name: onnx.helper.get_attribute_value(a) for a in (*defaults, *node.attribute)}


def row_shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """The shape of a row of an input or output, without its first dimension."""
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)[1:]
