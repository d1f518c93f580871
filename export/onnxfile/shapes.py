"""The shape of every value of a file as a function of the batch's size alone; unknown where it depends on more.

ONNX's own shape inference runs operator by operator at two sizes of the batch. A size that is the same at both is a
number, one that is the same multiple of both is that multiple of the batch, and any other is unknown. What the file
declares of inner values is not used. A value that is a shape is followed through the few operators that take shapes
apart and put them together, never through arithmetic that a size could overflow or a row could decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper, shape_inference

from export.graph import Row, Rows, Shape, Size

_BATCHES = (10_007, 20_011)
"""Two prime numbers: no other size of a file is a multiple of one of them by chance."""
_WITH_INFERENCE = {"LessOrEqual": "Less", "GreaterOrEqual": "Greater"}
"""Operators for which ONNX has no inference in old opsets, and others of the same shapes and types."""
_MOST_SIZES = 64
"""The most sizes of a shape."""


class Shapes:
    """The types and shapes of a graph's values, and the values that are shapes.

    ``rows`` has the shapes of rows of inputs that the file leaves open.
    """

    def __init__(
        self,
        graph: GraphProto,
        opset: int,
        constants: Mapping[str, np.ndarray],
        inputs: Sequence[ValueInfoProto],
        rows: Mapping[str, Row],
    ):
        self._constants, self._opset = constants, opset
        self._types: tuple[dict[str, TypeProto], ...] = tuple(
            {value.name: _input_type(value, batch, rows.get(value.name)) for value in inputs} for batch in _BATCHES
        )
        self._sizes: dict[str, Shape] = {}
        for node in graph.node:
            if node.output and node.output[0] not in constants and node.domain in ("", "ai.onnx"):
                self._visit(node)

    def element_type(self, name: str) -> int | None:
        """ONNX's number of a value's element type; None where it is not known."""
        known = self._type(name, 0)
        return None if known is None else known.tensor_type.elem_type or None

    def shape(self, name: str) -> Shape | None:
        """The shape of a value; None where it does not follow from the size of the batch alone."""
        dims = [self._dims(name, index) for index in range(len(_BATCHES))]
        if any(each is None for each in dims) or len({len(each or ()) for each in dims}) > 1:
            return None
        sizes = [_linear(pair) for pair in zip(*(each or () for each in dims), strict=True)]
        known = tuple(size for size in sizes if size is not None)
        return known if len(known) == len(sizes) else None

    def sizes(self, name: str) -> Shape | None:
        """What a value that is a shape holds: a constant, or computed from shapes of values; None for any other."""
        constant = self._constants.get(name)
        if constant is not None:
            flat = constant.reshape(-1) if constant.dtype == np.int64 and constant.size <= _MOST_SIZES else None
            return None if flat is None else tuple(flat.tolist())
        return self._sizes.get(name)

    @property
    def computed(self) -> frozenset[str]:
        """The values that are shapes and computed from shapes of values."""
        return frozenset(self._sizes)

    def _type(self, name: str, index: int) -> TypeProto | None:
        constant = self._constants.get(name)
        if constant is None:
            return self._types[index].get(name)
        try:
            return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(constant.dtype), constant.shape)
        except (KeyError, ValueError):  # no type of ONNX's
            return None

    def _dims(self, name: str, index: int) -> list[int] | None:
        known = self._type(name, index)
        if known is None or not known.tensor_type.HasField("shape"):
            return None
        dims = known.tensor_type.shape.dim
        return [dim.dim_value for dim in dims] if all(dim.HasField("dim_value") for dim in dims) else None

    def _visit(self, node: NodeProto) -> None:
        """Infer what a node gives, at each size of the batch, and whether that is a shape."""
        for index, batch in enumerate(_BATCHES):
            self._types[index].update(self._inferred(node, index, batch))
        compute = _OF_SIZES.get(node.op_type)
        try:
            sizes = compute(self, node) if compute is not None and len(node.output) == 1 else None
        except (IndexError, ValueError):  # an operator with too few inputs, or too many
            return
        if sizes is not None and len(sizes) <= _MOST_SIZES:
            self._sizes[node.output[0]] = sizes

    def _inferred(self, node: NodeProto, index: int, batch: int) -> Mapping[str, TypeProto]:
        names = [name for name in dict.fromkeys(node.input) if name]
        types = {name: known for name in names if (known := self._type(name, index)) is not None}
        if len(types) < len(names) or any(a.HasField("g") or a.graphs for a in node.attribute):
            return {}
        if node.op_type == "Squeeze" and len(names) == 1 and not any(a.ints for a in node.attribute):
            grows = any(isinstance(size, Rows) for size in self.shape(names[0]) or (Rows(),))
            if grows:  # it also takes away a batch of one row
                return {}
        data = {name: values for name in names if (values := self._data(name, batch)) is not None}
        opset = max(1, self._opset)
        if (other := _WITH_INFERENCE.get(node.op_type)) is not None:
            node = NodeProto(op_type=other, input=node.input, output=node.output)
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
            opsets = [helper.make_opsetid("", opset)]
            inferred = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
        except Exception:  # an operator that does not fit its inputs, in whatever words of ONNX's
            return {}
        return {name: each for name, each in inferred.items() if each.HasField("tensor_type")}

    def _data(self, name: str, batch: int) -> TensorProto | None:
        """The integers that a value holds, where shapes may depend on them."""
        sizes = self.sizes(name)
        if sizes is None:
            return None
        constant = self._constants.get(name)
        shape = (len(sizes),) if constant is None else constant.shape
        numbers = [size.times * batch if isinstance(size, Rows) else size for size in sizes]
        return numpy_helper.from_array(np.array(numbers, np.int64).reshape(shape), name)


def _input_type(value: ValueInfoProto, batch: int, row: Row | None) -> TypeProto:
    """The type of an input for a batch of so many rows, unless the file fixes the batch."""
    known = TypeProto()
    known.CopyFrom(value.type)
    if row is not None and not known.tensor_type.HasField("shape"):
        for _ in range(len(row) + 1):
            known.tensor_type.shape.dim.add()
    dims = known.tensor_type.shape.dim
    for axis, dim in enumerate(dims):
        if dim.dim_value > 0:
            continue
        dim.Clear()
        if axis == 0:
            dim.dim_value = batch
        elif row is not None and len(row) == len(dims) - 1:
            dim.dim_value = row[axis - 1]
    return known


def _linear(pair: tuple[int, ...]) -> Size | None:
    """A size from what it is at both sizes of the batch."""
    if len(set(pair)) == 1:
        return pair[0]
    times = {size // batch if size % batch == 0 else None for size, batch in zip(pair, _BATCHES, strict=True)}
    (only,) = times if len(times) == 1 else (None,)
    return None if only is None else Rows(only)


def _attribute(node: NodeProto, name: str) -> int | None:
    return next((a.i for a in node.attribute if a.name == name), None)


def _shape(shapes: Shapes, node: NodeProto) -> Shape | None:
    shape = shapes.shape(node.input[0])
    return None if shape is None else shape[_attribute(node, "start") or 0 : _attribute(node, "end")]


def _same(shapes: Shapes, node: NodeProto) -> Shape | None:
    return shapes.sizes(node.input[0])


def _cast(shapes: Shapes, node: NodeProto) -> Shape | None:
    """A type of fewer bits may hold another number."""
    return shapes.sizes(node.input[0]) if _attribute(node, "to") == TensorProto.INT64 else None


def _concat(shapes: Shapes, node: NodeProto) -> Shape | None:
    parts = [shapes.sizes(name) for name in node.input]
    return None if any(part is None for part in parts) else tuple(size for part in parts for size in part or ())


def _integers(shapes: Shapes, name: str) -> list[int] | None:
    sizes = shapes.sizes(name)
    integers = [size for size in sizes or () if isinstance(size, int)]
    return None if sizes is None or len(integers) < len(sizes) else integers


def _gather(shapes: Shapes, node: NodeProto) -> Shape | None:
    sizes, indices = shapes.sizes(node.input[0]), _integers(shapes, node.input[1])
    if sizes is None or indices is None or not all(-len(sizes) <= i < len(sizes) for i in indices):
        return None
    return tuple(sizes[i] for i in indices)


def _slice(shapes: Shapes, node: NodeProto) -> Shape | None:
    sizes = shapes.sizes(node.input[0])
    if len(node.input) == 1:  # before opset 10
        ends = {a.name: list(a.ints) for a in node.attribute}
        numbers: list[list[int] | None] = [ends.get("starts"), ends.get("ends")]
    else:
        numbers = [_integers(shapes, name) for name in node.input[1:] if name]
    single = [each[0] for each in numbers if each is not None and len(each) == 1]
    if sizes is None or len(single) < len(numbers) or len(single) < 2 or any(single[2:3]):
        return None
    step = single[3] if len(single) > 3 else 1
    return sizes[single[0] : single[1] : step] if step > 0 else None


def _multiplied(shapes: Shapes, node: NodeProto) -> Shape | None:
    """The product of two single sizes, at most one of which grows with the batch."""
    left, right = (shapes.sizes(name) for name in node.input)
    if left is None or right is None or len(left) != 1 or len(right) != 1:
        return None
    (a,), (b,) = left, right
    if isinstance(a, Rows) and isinstance(b, Rows):
        return None
    if isinstance(a, Rows) or isinstance(b, Rows):
        rows, factor = (a, b) if isinstance(a, Rows) else (cast("Rows", b), a)
        return (Rows(rows.times * cast("int", factor)),) if cast("int", factor) > 0 else None
    return (a * b,)


_OF_SIZES: dict[str, Callable[[Shapes, NodeProto], Shape | None]] = {
    "Shape": _shape,
    **dict.fromkeys(("Identity", "Squeeze", "Unsqueeze", "Reshape"), _same),
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Mul": _multiplied,
}
"""The operators that take shapes apart and put them together."""
OF_SIZES = tuple(_OF_SIZES)
