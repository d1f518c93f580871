"""An ONNX file in the form that its reader and the proof take: rows of a batch, and a Slice where it selects features.

Before:
- The input is one row without a batch, [features], or inner values are: one row in one dimension.
- A Split, a Gather of neighbours or a Slice gives some of the features.
After:
- Every value is [batch, features], with a batch of 1 where the file takes one row; changes of shape are left out then,
  since a row stays a row.
- A Slice along the features, with constants.
- Every other operator is the file's, with its name, its constants, and the name of its result.

The file itself is run too, as it is: ``RowForm.opener`` runs it on one row after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.onnxfile.model import RESHAPES, Model, add_outputs, attributes_of, label, live_and_dead
from export.proof.running import Opener, Running, on_device
from runtime import Session

from .recovered import NotABlock

_NAME = "rows"
"""The graph's name in this form, which tells its runs from those of a single layer."""
_ALONG_FEATURES = ("Softmax", "LogSoftmax", "LayerNormalization")
_SELECTIONS = ("Split", "Gather", "Slice")
_SAME_ROW = (*RESHAPES, "Identity", "Dropout", "Cast", "Transpose")
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class RowForm:
    """A file in this form. ``one_row`` says that the file itself takes one row at a time."""

    model: Model
    file: Model
    one_row: bool

    def opener(self, device: str) -> Opener:
        """Opens the file itself in place of this form, where it takes one row at a time."""
        return on_device(device) if not self.one_row else lambda source: self._opened(source, device)

    def _opened(self, source: Path | bytes, device: str) -> Running:
        (output,) = self.model.proto.graph.output
        if source == self.file.path:
            (own,) = self.file.proto.graph.output
            return _RowByRow(Session(source, device), self._shape, {own.name: output.name})
        proto = ModelProto.FromString(source if isinstance(source, bytes) else source.read_bytes())
        if proto.graph.name != _NAME:
            return Session(source, device)  # one layer alone
        whole = ModelProto()
        whole.CopyFrom(self.file.proto)
        large = ((name, self.file.constants[name]) for name in self.file.large)
        whole.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in large)
        add_outputs(whole, [helper.make_tensor_value_info(v.name, TensorProto.FLOAT, None) for v in proto.graph.output])
        return _RowByRow(Session(whole.SerializeToString(), device), self._shape, {})

    @property
    def _shape(self) -> Sizes:
        return _input_sizes(self.file.inputs[0])


class _RowByRow:
    """A file that takes one row at a time, run on rows of a batch; ``names`` are the outputs that get other names."""

    def __init__(self, session: Session, shape: Sizes, names: Mapping[str, str]):
        self._session, self._shape, self._names = session, shape, names

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows (batch, features) to the values (batch, features) by name."""
        ((name, rows),) = x.items()
        results = [self._session.run({name: row.reshape(self._shape)}) for row in rows]
        values = {key: np.stack([result[key].reshape(-1) for result in results]) for key in results[0]}
        return {self._names.get(key, key): value for key, value in values.items()}

    def close(self) -> None:
        """Free what the session holds."""
        self._session.close()


def in_row_form(model: Model) -> RowForm | None:
    """The file in this form; None where it has it already, or cannot have it: its reader then says what it is.

    Raises NotABlock: an operator splits something else than the features of a row, or takes no value of its shape.
    """
    one_row = _takes_one_row(model)
    if one_row:  # whose operators are rewritten, so that their own shapes are seen no more
        _check_shapes(model)
    selects = any(node.op_type in _SELECTIONS and node.output[0] not in model.shape_operands for node in model.nodes)
    if not one_row and not selects:
        return None
    return RowForm(_Rewriting(model, one_row).run(), model, one_row)


def _check_shapes(model: Model) -> None:
    """Raise NotABlock if an operator does not take values of the shape that it gets."""
    whole = ModelProto()
    whole.CopyFrom(model.proto)
    for name in model.large:
        values = model.constants[name]
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        whole.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    try:
        onnx.shape_inference.infer_shapes(whole, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).rpartition("[ShapeInferenceError]")[2].split())
        raise NotABlock(f"has an operator that does not take values of this shape: {reason}") from None


def _takes_one_row(model: Model) -> bool:
    """Whether all values are one row, some without a batch."""
    (source,) = model.inputs
    sizes = _input_sizes(source)
    if not sizes or len(sizes) > 2 or 0 in sizes or (len(sizes) == 2 and sizes[0] != 1):
        return False
    other = model.constants.keys() | model.shape_operands
    values = [name for node in model.proto.graph.node for name in node.output if name and name not in other]
    shapes = [sizes, *(_sizes_of(model, name) for name in values)]
    rows = all(shape is not None and all(size == 1 for size in shape[:-1]) for shape in shapes)
    return rows and any(shape is not None and len(shape) != 2 for shape in shapes)


def _input_sizes(value: onnx.ValueInfoProto) -> Sizes:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _sizes_of(model: Model, name: str) -> Sizes | None:
    shape = model.shapes.shape(name)
    sizes = tuple(size for size in shape or () if isinstance(size, int))
    return sizes if shape is not None and len(sizes) == len(shape) else None


class _Rewriting:
    """The operators of a file, one after another. ``names`` has the values that stand for others."""

    def __init__(self, model: Model, one_row: bool):
        self.model, self.one_row = model, one_row
        self.constants, self.added = dict(model.constants), set[str]()
        self.names: dict[str, str] = {}
        self.nodes: list[NodeProto] = []

    def run(self) -> Model:
        other = self.model.constants.keys() | self.model.shape_operands
        for node in self.model.proto.graph.node:
            parts = () if node.output[0] in other else self._parts(node)
            if node.output[0] in other:
                self.nodes.append(node)
            elif self.one_row and (self._is_same_row(node) or self._takes_the_row(node)):
                self.names[node.output[0]] = self._name(node.input[0])
            elif parts:
                for name, (start, end) in zip(node.output, parts, strict=True):
                    self._select(node, name, start, end)
            else:
                self._keep(node)
        return self._model()

    def _is_same_row(self, node: NodeProto) -> bool:
        """Whether an operator changes at most the shape of the row. Raises NotABlock: it names an axis that is not."""
        if node.op_type == "Cast":  # others are refused by their reader
            return attributes_of(node, self.model.opset)["to"] == TensorProto.FLOAT
        rank = len(self.model.shapes.shape(node.input[0]) or ())
        if node.op_type == "Transpose":
            order = attributes_of(node, self.model.opset).get("perm")
            if order is not None and sorted(order) != list(range(rank)):
                raise NotABlock(f"{label(node)} orders {len(order)} dimensions of a value of {rank}")
        if node.op_type in ("Squeeze", "Unsqueeze"):
            axes = attributes_of(node, self.model.opset).get("axes")
            if len(node.input) > 1:
                axes = self.constants.get(node.input[1])
            given = [] if axes is None else np.asarray(axes).reshape(-1).tolist()
            rank += len(given) if node.op_type == "Unsqueeze" else 0
            if any(not -rank <= axis < rank for axis in given):
                raise NotABlock(f"{label(node)} names an axis of {given} that a value of {rank} dimensions has not")
        if node.op_type not in _SAME_ROW:
            return False
        before, after = (_sizes_of(self.model, name) for name in (node.input[0], node.output[0]))
        if before is not None and after is not None and prod(before) != prod(after):
            raise NotABlock(f"{label(node)} makes {list(after)} of a value of {list(before)}, which it cannot hold")
        return True

    def _name(self, name: str) -> str:
        return self.names.get(name, name)

    def _features(self, name: str) -> tuple[int, int]:
        """The axis of the features of a value and their number; 0 of them where it is not a row, or rows of a batch."""
        shape = self.model.shapes.shape(name) or ()
        rows = self.one_row or (len(shape) == 2 and self.model.has_batch(name))
        return (len(shape) - 1, size) if shape and rows and isinstance(size := shape[-1], int) else (0, 0)

    def _takes_the_row(self, node: NodeProto) -> bool:
        """Whether a Gather takes the one row out of its batch."""
        index = self.constants.get(node.input[1]) if node.op_type == "Gather" else None
        before, after = self._features(node.input[0]), self._features(node.output[0])
        return index is not None and index.size == 1 and before[0] > after[0] and before[1] == after[1]

    def _parts(self, node: NodeProto) -> tuple[tuple[int, int], ...]:
        """The first feature of each result of a selection, and the one after the last; none if it is no selection.

        Raises NotABlock.
        """
        axis, count = self._features(node.input[0]) if node.op_type in _SELECTIONS else (0, 0)
        if not count:
            return ()
        attributes = attributes_of(node, self.model.opset)
        values = [self.constants.get(name) for name in node.input[1:]]
        given = attributes.get("axis", 0)
        if node.op_type == "Split":
            ends = np.cumsum([self._features(name)[1] for name in node.output]).tolist()
            if given % (axis + 1) != axis or ends[-1] != count:
                raise NotABlock(f"{label(node)} is a split into several values, not of the features of a row")
            return tuple(zip([0, *ends[:-1]], ends, strict=True))
        if node.op_type == "Gather":
            indices = values[0].reshape(-1) if values[0] is not None else np.array([])
            indices = np.where(indices < 0, indices + count, indices)
            neighbours = len(indices) > 0 and np.array_equal(indices, np.arange(len(indices)) + indices[0])
            return (
                ((int(indices[0]), int(indices[0]) + len(indices)),)
                if given % (axis + 1) == axis and neighbours
                else ()
            )
        given = [attributes.get(name) for name in ("starts", "ends", "axes")] if len(node.input) == 1 else values
        start, end, along, step = (_only(each) for each in (*given, None, None)[:4])
        if (
            start is None
            or end is None
            or along is None
            or along % (axis + 1) != axis
            or (len(given) > 3 and step != 1)
        ):
            return ()
        start, end, _ = slice(start, end).indices(count)
        return ((start, end),) if start < end else ()

    def _select(self, node: NodeProto, output: str, start: int, end: int) -> None:
        """A Slice, or nothing where it gives all features."""
        source = self._name(node.input[0])
        if end - start == self._features(node.input[0])[1]:
            self.names[output] = source
            return
        values = {"starts": start, "ends": end, "axes": 1}
        if self.model.opset < 10:
            attributes: dict[str, Any] = {name: [value] for name, value in values.items()}
            self.nodes.append(helper.make_node("Slice", [source], [output], name=node.name, **attributes))
            return
        inputs = [self._constant(f"{output}.{name}", np.array([value])) for name, value in values.items()]
        self.nodes.append(helper.make_node("Slice", [source, *inputs], [output], name=node.name))

    def _constant(self, name: str, values: np.ndarray) -> str:
        while name in self.constants and name not in self.added:
            name += "_"
        self.constants[name] = values
        self.added.add(name)
        return name

    def _keep(self, node: NodeProto) -> None:
        kept = NodeProto()
        kept.CopyFrom(node)
        kept.input[:] = [self._name(name) for name in node.input]
        if self.one_row:
            self._from_vectors(node, kept)
        self.nodes.append(kept)

    def _from_vectors(self, node: NodeProto, kept: NodeProto) -> None:
        """Make an operator on one row one on rows of a batch: its axis, and its constants of other dimensions."""
        sizes = _sizes_of(self.model, node.input[0]) or ()
        if node.op_type == "BatchNormalization" and sizes[1:2] != (prod(sizes),):
            raise NotABlock(f"{label(node)} normalises axis 1 of {list(sizes)}, which is not the features of a row")
        if node.op_type in _ALONG_FEATURES:
            self._check_along_features(node)
            for attribute in kept.attribute:
                attribute.i = 1 if attribute.name == "axis" else attribute.i
        if node.op_type.startswith("Reduce"):
            self._check_reduces_features(node)
        for index, name in enumerate(kept.input):
            constant = self.constants.get(name)
            if constant is not None and constant.ndim > 2 and constant.dtype == np.float32:
                if prod(constant.shape[:-2]) != 1:
                    raise NotABlock(f"{label(node)} takes constants of shape {list(constant.shape)} beside a row")
                kept.input[index] = self._constant(f"{name}.flat", constant.reshape(constant.shape[-2:]))
        if node.op_type == "MatMul" and kept.input[0] in self.constants:  # of a matrix with a column
            matrix = self.constants[kept.input[0]]
            kept.input[:] = [kept.input[1], self._constant(f"{kept.input[0]}.T", np.ascontiguousarray(matrix.T))]

    def _check_along_features(self, node: NodeProto) -> None:
        """Raise NotABlock if an operator with an axis does not run along all features of the row."""
        sizes = _sizes_of(self.model, node.input[0]) or ()
        axis = attributes_of(node, self.model.opset)["axis"]
        merged = node.op_type == "LayerNormalization" or self.model.opset < 13  # it and the dimensions after it are one
        along = sizes[axis:] if merged else sizes[axis : axis + 1 or None]
        if not -len(sizes) <= axis < len(sizes) or prod(along) != prod(sizes):
            raise NotABlock(
                f"{label(node)} runs along axis {axis} of {list(sizes)}, which is not the features of a row"
            )

    def _check_reduces_features(self, node: NodeProto) -> None:
        """Raise NotABlock if a reduction is not over all features of the row, whose axis is another one after this."""
        sizes = _sizes_of(self.model, node.input[0]) or ()
        axes = attributes_of(node, self.model.opset).get("axes", self.constants.get(next(iter(node.input[1:]), "")))
        given: list[int] = [] if axes is None else np.asarray(axes).reshape(-1).tolist()
        if any(not -len(sizes) <= axis < len(sizes) for axis in given) or (
            given and prod(sizes[axis] for axis in {axis % len(sizes) for axis in given}) != prod(sizes)
        ):
            raise NotABlock(
                f"{label(node)} runs along axes {given} of {list(sizes)}, which are not the features of a row"
            )

    def _model(self) -> Model:
        """The file with these operators, without those that nothing reads any more."""
        graph, proto = self.model.proto.graph, ModelProto()
        proto.CopyFrom(self.model.proto)
        output = self._name(graph.output[0].name)
        nodes, _ = live_and_dead(self.nodes, [output])
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        proto.graph.name = _NAME
        if self.one_row:
            (source,) = self.model.inputs
            first, last = _input_sizes(source)[-1], (_sizes_of(self.model, graph.output[0].name) or (1,))[-1:]
            (position,) = [i for i, value in enumerate(graph.input) if value.name == source.name]
            ports = (source.name, first), (output, last[0] if last else 1)
            inputs, outputs = [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in ports
            ]
            proto.graph.input[position].CopyFrom(inputs)
            proto.graph.output[0].CopyFrom(outputs)
        used = {name for node in nodes for name in node.input}
        kept = {name for name in self.added if name in used}
        constants = {k: v for k, v in self.constants.items() if k not in self.added or k in kept}
        return replace(self.model, proto=proto, constants=constants, large=self.model.large | kept)


def _only(values: Any) -> int | None:
    """The only number of an array or a list; None for several, or none."""
    numbers = [] if values is None else np.asarray(values).reshape(-1).tolist()
    return int(numbers[0]) if len(numbers) == 1 else None
