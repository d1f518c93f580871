"""The graph of an ONNX file: its operators, its constants, and what is known of its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from export.graph import Row, Rows, Shape

from .shapes import OF_SIZES, Shapes
from .source import Source

RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_SIZED = (*RESHAPES, "Expand")
"""Operators whose second input is a shape, or axes of one."""


@dataclass(frozen=True)
class Model:
    """The graph of a file. ``constants`` has every constant, ``proto`` the small ones; ``large`` names the others.

    Those must be added to ``proto`` again before it is run (``export.proof.running``).
    """

    path: Path
    proto: ModelProto
    constants: dict[str, np.ndarray]
    large: frozenset[str]
    source: Source | None = None
    """What the file consists of, where it was read from one."""
    open_rows: Mapping[str, Row] = field(default_factory=dict[str, Row])
    """The shapes of the module's rows, for inputs whose shapes the file leaves open."""
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
    def shapes(self) -> Shapes:
        """The shapes of the file's values, as far as they follow from the size of the batch alone."""
        return Shapes(self.proto.graph, self.opset, self.constants, self.inputs, self.open_rows)

    @cached_property
    def shape_values(self) -> set[str]:
        """Values that are nothing but the target shape of a change of shape, or compute it from shapes of values.

        Each is constant, or linear in the size of the batch. Any other value that a shape depends on is computed by an
        operator like any other, which the module must have.
        """
        return self._read_as_shapes(self.shapes.computed)

    @cached_property
    def shape_operands(self) -> set[str]:
        """The same, and values that operators of shapes compute from anything, whose ``sizes`` are not known."""
        takes = (node for node in self.proto.graph.node if node.op_type in OF_SIZES)
        return self._read_as_shapes(name for node in takes for name in node.output)

    def _read_as_shapes(self, values: Iterable[str]) -> set[str]:
        """Those of the values that only changes of shape read, as their target, or operators that give such values."""
        known = set(values) - {value.name for value in self.proto.graph.output}
        for node in reversed(self.proto.graph.node):
            targets = set(node.input[1:2]) - set(node.input[:1]) if node.op_type in _SIZED else set[str]()
            if not (node.output and set(node.output) <= known):
                known -= set(node.input) - targets
        return known

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
    def rows(self) -> dict[str, Row]:
        """The shapes of rows of the values whose shapes are known."""
        names = (name for node in self.proto.graph.node for name in (*node.input, *node.output))
        shapes = {name: self.shapes.shape(name) for name in names if name not in self.constants}
        rows = {name: shape[1:] for name, shape in shapes.items() if shape}
        return {
            name: tuple(size for size in row if isinstance(size, int))
            for name, row in rows.items()
            if all(isinstance(size, int) and size > 0 for size in row)
        }

    def has_batch(self, name: str) -> bool:
        """Whether the first dimension of a value is that of the inputs, as far as it is known."""
        shape = self.shapes.shape(name)
        return bool(shape) and shape[:1] == (self.batch or Rows(),)

    def sizes(self, name: str) -> Shape | None:
        """A shape that the file holds, or computes from shapes of values; None where it is computed from anything else.

        The batch is the first dimension of the file's inputs, where it is symbolic.
        """
        return self.shapes.sizes(name)

    def value(self, name: str) -> str:
        """The value that a name is a copy of, or has the rows of in another shape; else the name itself."""
        return self._sources.get(name, name)

    def consumers(self, value: str) -> list[NodeProto]:
        """The operators that read a value, in whatever shape."""
        return self._readers.get(self.value(value), [])

    def _is_constant(self, node: NodeProto) -> bool:
        return bool(node.output) and node.output[0] in self.constants

    def _reshapes(self, node: NodeProto) -> bool:
        """Whether an operator returns the same elements in another shape, which follows from the batch's size alone.

        What it does is then alike for every batch; that rows stay rows is checked when the file runs.
        """
        if node.domain not in ("", "ai.onnx") or self._is_constant(node) or not (node.input and node.output):
            return False
        if node.op_type == "Cast":
            from_float = self.shapes.element_type(node.input[0]) == TensorProto.FLOAT
            return from_float and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
        if node.op_type == "Dropout":
            training = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.False_
            return self.recovering and len(node.output) == 1 and training is not None and not training.any()
        if node.op_type == "Transpose":
            return self._keeps_rows(node)
        return node.op_type in RESHAPES and self.shapes.shape(node.output[0]) is not None

    def _keeps_rows(self, node: NodeProto) -> bool:
        """Whether a Transpose moves nothing but dimensions of size 1, so that the values keep their order."""
        sizes = self.shapes.shape(node.input[0])
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), list[int]())
        if sizes is None or sorted(perm) != list(range(len(sizes))):
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
