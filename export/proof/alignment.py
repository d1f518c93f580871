"""Whether a layer's operators act along the module's dimensions, in whatever shape the file has their inputs.

A file may hold a value in another shape than the module: (batch, 1, 4) or (2·batch, 2) for (batch, 4). That its
operators have the module's axes and constants is then not enough. Values on rows that are tried may hide which elements
are taken together, so it is decided by the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto

from export.graph import Node, Rows, Shape
from export.onnxfile.model import Model

from .layer import Layer

Shapes = tuple[Shape, ...]
_ALONG_AXES = (
    *("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "BatchNormalization", "CumSum", "TopK"),
    *("ArgMax", "ArgMin", "Gather", "GatherElements", "Slice", "Concat", "Transpose"),
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"),
)
_ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Sum", "Max", "Min", "PRelu", "Where", "And", "Or"),
    *("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"),
)


def misaligned(layer: Layer, model: Model) -> str | None:
    """The name of an operator that takes other elements together than the module does; None where all are right.

    A value of unknown shape has had no change of shape: those are not looked through.
    """
    expected = dict[str, Shapes]()  # a layer may read a value in two shapes
    for name, shape in zip(layer.inputs, layer.input_shapes, strict=True):
        expected[name] = (*expected.get(name, ()), _sized(shape, model.batch))
    whole = _sized(layer.input_shapes[0], model.batch) if layer.input_shapes else ()
    for node in layer.nodes:
        shapes = {
            name: shape
            for name in node.input
            if name and name not in model.constants and (shape := model.shapes.shape(name)) is not None
        }
        if node.op_type in _ALONG_AXES and not all(
            any(_acts_alike(layer, node, model, shape, own) for own in expected.get(model.value(name), (whole,)))
            for name, shape in shapes.items()
        ):
            return node.name or node.output[0]
        if node.op_type == "MatMul" and not _multiplies_alike(layer, node, model, shapes, expected):
            return node.name or node.output[0]
        if node.op_type in _ELEMENTWISE and not _broadcasts_alike(layer, node, model, shapes, expected):
            return node.name or node.output[0]
    return None


def _acts_alike(layer: Layer, node: NodeProto, model: Model, shape: Shape, whole: Shape) -> bool:
    """Whether an operator along axes reads the dimensions of ``whole``, the module's, from the first of its axes on."""
    if node.op_type == "Gather" and node.input[0] in model.constants:  # a lookup, element by element
        return True
    axes = _axes(layer.expected, len(whole))
    count = len(whole) - min(axes, default=len(whole))
    if shape[len(shape) - count :] != whole[len(whole) - count :] or len(shape) < count:
        return False
    return len(shape) == len(whole) or all(axis < 0 for axis in _given_axes(node, model))


def _multiplies_alike(
    layer: Layer, node: NodeProto, model: Model, shapes: Mapping[str, Shape], expected: Mapping[str, Shapes]
) -> bool:
    """Whether a product with a matrix runs over the module's dimensions, and matrices meet as the module's do."""
    left = node.input[0] in model.constants
    if layer.expected.op != "matmul":  # a layer: its features are last, or before one dimension of 1
        features = layer.input_shapes[0][-1]
        return all(shape[-2:] == (features, 1) if left else shape[-1:] == (features,) for shape in shapes.values())
    owns = {name: expected.get(model.value(name), (shape,)) for name, shape in shapes.items()}
    if node.input[1] in model.constants:
        return all(any(shape[-1:] == own[-1:] for own in owns[name]) for name, shape in shapes.items())
    same = all(_trimmed(shape) in map(_trimmed, owns[name]) for name, shape in shapes.items())
    together = not left and len({shape[:-2] for shape in shapes.values()}) == 1
    matrices = all(any(shape[-2:] == own[-2:] for own in owns[name]) for name, shape in shapes.items())
    return same or (together and matrices)


def _axes(node: Node, rank: int) -> set[int]:
    """The dimensions along which a node acts, counted from the front."""
    if node.op == "permute":
        return {axis for axis, dim in enumerate(node.attributes["dims"]) if axis != dim}
    if node.op == "layer_norm":
        return set(range(rank - len(node.attributes["normalized_shape"]), rank))
    if node.op == "rms_norm":
        return {rank - 1}
    dim = node.attributes.get("dim")
    dims = (dim,) if isinstance(dim, int) else dim
    return {each % max(1, rank) for each in dims} if dims else set(range(rank))


def _given_axes(node: NodeProto, model: Model) -> list[int]:
    """The axes that the file gives, as it counts them; 0 where it leaves them out."""
    for attribute in node.attribute:
        if attribute.name in ("axis", "axes"):
            return list(attribute.ints) or [attribute.i]
    given = model.constants.get(node.input[1]) if node.op_type.startswith("Reduce") and len(node.input) > 1 else None
    if node.op_type == "CumSum":
        given = model.constants.get(node.input[1])
    if node.op_type in ("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization") and model.opset >= 13:
        return [-1]
    return [0] if given is None else given.reshape(-1).tolist()


def _broadcasts_alike(
    layer: Layer, node: NodeProto, model: Model, shapes: Mapping[str, Shape], expected: Mapping[str, Shapes]
) -> bool:
    """Whether the inputs of an elementwise operator meet as the module's do: equal shapes, or the module's own."""
    trimmed = {name: _trimmed(shape) for name, shape in shapes.items()}
    whole = _sized(layer.input_shapes[0], model.batch) if layer.input_shapes else ()
    if len(set(trimmed.values())) > 1:
        axes = _axes(layer.expected, len(whole))
        reduced = tuple(1 if axis in axes else size for axis, size in enumerate(whole))
        owns = {name: expected.get(model.value(name), (whole, reduced)) for name in trimmed}
        if not all(shape in map(_trimmed, owns[name]) for name, shape in trimmed.items()):
            return False
    if all(shape in map(_trimmed, expected.get(model.value(n), (whole,))) for n, shape in trimmed.items()):
        return True
    result, largest = _sized(layer.expected.shape, model.batch), max(shapes.values(), key=len, default=())
    constants = [model.constants[name] for name in node.input if name in model.constants]
    varying = [constant for constant in constants if constant.size > 1 and bool((constant != constant.flat[0]).any())]
    return layer.expected.op in ("sort", "topk") or all(_meets(each.shape, largest, result) for each in varying)


def _meets(constant: Shape, value: Shape, result: Shape) -> bool:
    """Whether a constant meets the dimensions of a value that the result of the module's layer has there."""
    own = _trimmed(constant)
    while own and value and own[-1] == value[-1] == 1:
        own, value = own[:-1], value[:-1]
    return value[len(value) - len(own) :] == result[len(result) - len(own) :]


def _sized(shape: Shape, batch: int | None) -> Shape:
    """A module's shape as a file has it that fixes the batch."""
    return tuple(size.times * batch if isinstance(size, Rows) and batch is not None else size for size in shape)


def _trimmed(shape: Shape) -> Shape:
    """Without leading dimensions of 1."""
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]
