"""Normalisation of rows: LayerNorm and RMSNorm."""

from __future__ import annotations

from export.emitter import PREVIOUS, Emitter, Operator
from export.graph import Node


def _layer_norm(emit: Emitter, node: Node) -> None:
    if emit.opset < 17:
        _layer_norm_in_steps(emit, node)
        return
    shape = tuple(node.attributes["normalized_shape"])
    constants = [emit.tensor_or(node, "weight", 1.0, shape)]
    constants += [emit.tensor(node.tensors["bias"])] if "bias" in node.tensors else []
    attributes = {"axis": -len(shape), "epsilon": emit.float32(node.attributes["eps"]), "stash_type": 1}
    emit.last("LayerNormalization", node, *node.inputs, *constants, **attributes)


def _layer_norm_in_steps(emit: Emitter, node: Node) -> None:
    """(x - mean) / √(mean of squares + eps) · weight + bias, with the variance in two passes."""
    (x,), rank = node.inputs, len(node.shape)
    # a negative axis is not allowed before opset 11
    axes = list(range(rank - len(node.attributes["normalized_shape"]), rank))
    centred = emit.step("Sub", node, x, emit.reduction("ReduceMean", node, x, axes))
    _over_root(emit, node, centred, axes)


def _rms_norm(emit: Emitter, node: Node) -> None:
    _over_root(emit, node, node.inputs[0], [len(node.shape) - 1])


def _over_root(emit: Emitter, node: Node, x: str, axes: list[int]) -> None:
    """The rows x / √(mean of squares + eps) · weight + bias."""
    mean = emit.reduction("ReduceMean", node, emit.step("Mul", node, x, x), axes)
    raised = emit.step("Add", node, mean, emit.constant(f"{node.home}.eps", node.attributes["eps"]))
    operators = [["Div", x, emit.step("Sqrt", node, raised)]]
    for op_type, role in (("Mul", "weight"), ("Add", "bias")):
        if role in node.tensors:
            operators.append([op_type, PREVIOUS, emit.tensor(node.tensors[role])])
    emit.sequence(node, *operators)


OPERATORS = {
    "layer_norm": Operator(_layer_norm, overloads=()),
    "rms_norm": Operator(_rms_norm, overloads=()),
}
