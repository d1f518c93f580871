"""Products with matrices, and BatchNorm with running statistics."""

from __future__ import annotations

from math import prod
from typing import Any

from export.emitter import Emitter, Operator, single
from export.graph import Node, width


def _linear(emit: Emitter, node: Node) -> None:
    """A Gemm; rows of other than one dimension are reshaped to the rows of one matrix before it, and back after it."""
    out, features = node.tensors["weight"].values.shape
    constants = [emit.tensor(node.tensors["weight"])]
    if "bias" in node.tensors or emit.opset < 11:  # a Gemm must have a bias there
        constants.append(emit.tensor_or(node, "bias", 0.0, (out,)))
    attributes: dict[str, Any] = {"alpha": 1.0, "beta": 1.0, "transB": 1}
    (x,) = node.inputs
    if len(node.shape) == 2:
        emit.last("Gemm", node, x, *constants, **attributes)
        return
    x = emit.step("Reshape", node, x, emit.integers(f"{node.home}.rows", [-1, features]))
    y = emit.step("Gemm", node, x, *constants, **attributes)
    emit.last("Reshape", node, y, emit.open_shape(node, node.shape))


def _refuse_linear(node: Node) -> str | None:
    return None if node.tensors["weight"].values.ndim == 2 else "its weight is not a matrix"


def _batch_norm(emit: Emitter, node: Node) -> None:
    channels = node.tensors["running_mean"].values.shape
    scale, shift = emit.tensor_or(node, "weight", 1.0, channels), emit.tensor_or(node, "bias", 0.0, channels)
    statistics = [emit.tensor(node.tensors[role]) for role in ("running_mean", "running_var")]
    epsilon = emit.float32(node.attributes["eps"])
    emit.last("BatchNormalization", node, *node.inputs, scale, shift, *statistics, epsilon=epsilon)


def _refuse_batch_norm(node: Node) -> str | None:
    if "running_mean" not in node.tensors:
        return "it has no running statistics, so its result depends on the batch (track_running_stats=False)"
    if node.attributes["training"]:
        return "it stays in training mode after eval(), so its result depends on the batch"
    return None


OPERATORS = {
    "linear": Operator(
        _linear,
        refuse=_refuse_linear,
        multiply_adds=lambda node: node.tensors["weight"].values.size * prod(node.row[:-1]),
    ),
    "matmul": Operator(single("MatMul")),
    "batch_norm": Operator(_batch_norm, refuse=_refuse_batch_norm, multiply_adds=width),
}
