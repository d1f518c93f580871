"""The linear layers of an ONNX file: what the files of reduced precision spell anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto

from export.onnxfile.reading import Model


@dataclass(frozen=True)
class Layer:
    """y = x · weight + bias, with a float32 weight (in_features, out_features)."""

    name: str
    nodes: tuple[NodeProto, ...]
    """The operators that it replaces: a Gemm, a MatMul, or a MatMul and the Add behind it."""
    input: str
    output: str
    weight: np.ndarray
    bias: np.ndarray | None
    """(out_features,)"""


def linear_layers(model: Model) -> list[Layer]:
    """Every Gemm, MatMul and MatMul with Add of rows of one dimension with a constant float32 weight, in order.

    Others stay as they are: a product of two values, or of rows of more than one dimension.
    """
    found = [_gemm(model, node) if node.op_type == "Gemm" else _matmul(model, node) for node in _products(model)]
    return [layer for layer in found if layer is not None]


def _products(model: Model) -> list[NodeProto]:
    nodes = model.proto.graph.node
    return [node for node in nodes if node.op_type in ("Gemm", "MatMul") and node.domain in ("", "ai.onnx")]


def _gemm(model: Model, node: NodeProto) -> Layer | None:
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    weight = _matrix(model, node)
    if weight is None or given.get("transA", 0):
        return None
    weight = np.float32(given.get("alpha", 1.0)) * (weight.T if given.get("transB", 0) else weight)
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = _bias(model, node.input[2], weight.shape[1])
        if bias is None:
            return None
        bias = np.float32(given.get("beta", 1.0)) * bias
    return Layer(node.name or node.output[0], (node,), node.input[0], node.output[0], weight, bias)


def _matmul(model: Model, node: NodeProto) -> Layer | None:
    weight = _matrix(model, node)
    if weight is None or len(model.rows.get(node.input[0], ())) != 1:
        return None
    name, output = node.name or node.output[0], node.output[0]
    readers = [other for other in model.proto.graph.node if output in other.input]
    shown = any(value.name == output for value in model.proto.graph.output)
    if len(readers) == 1 and readers[0].op_type == "Add" and not shown:
        (add,) = readers
        other = add.input[1] if add.input[0] == output else add.input[0]
        bias = _bias(model, other, weight.shape[1])
        if bias is not None:
            return Layer(name, (node, add), node.input[0], add.output[0], weight, bias)
    return Layer(name, (node,), node.input[0], output, weight, None)


def _matrix(model: Model, node: NodeProto) -> np.ndarray | None:
    """The constant right operand, where the left one is a value."""
    values = model.constants.get(node.input[1])
    if node.input[0] in model.constants or values is None or values.ndim != 2 or not values.size:
        return None
    return values if values.dtype == np.float32 else None


def _bias(model: Model, name: str, width: int) -> np.ndarray | None:
    """A constant that is added to every row, as (width,)."""
    values = model.constants.get(name)
    if values is None or values.dtype != np.float32 or values.shape not in ((), (1,), (width,), (1, 1), (1, width)):
        return None
    return np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (width,)))
