"""Activations: functions of one value, and softmax.

Where an opset does not have an operator yet, it is written in older ones.
"""

from __future__ import annotations

from functools import partial
from math import pi, sqrt

from export.emitter import PREVIOUS, Emitter, Operator, chain, single
from export.graph import Node


def _gelu(emit: Emitter, node: Node) -> None:
    """The chain x / √2 → Erf → + 1 → · x → · 1/2, which ONNX Runtime fuses into one kernel, or the tanh formula.

    From opset 20 on it is one operator.
    """
    if emit.opset >= 20:
        emit.last("Gelu", node, *node.inputs, approximate=node.attributes["approximate"])
        return
    (x,) = node.inputs
    if node.attributes["approximate"] == "tanh":
        cube = emit.step("Mul", node, emit.step("Mul", node, x, x), x)
        inner = emit.step("Add", node, x, emit.step("Mul", node, cube, emit.constant("gelu.cubic", 0.044715)))
        bell = emit.step("Tanh", node, emit.step("Mul", node, inner, emit.constant("gelu.scale", sqrt(2 / pi))))
    else:
        bell = emit.step("Erf", node, emit.step("Div", node, x, emit.constant("gelu.sqrt2", sqrt(2))))
    raised = emit.step("Add", node, bell, emit.constant("one", 1.0))
    emit.last("Mul", node, emit.step("Mul", node, x, raised), emit.constant("half", 0.5))


def _silu(emit: Emitter, node: Node) -> None:
    (x,) = node.inputs
    emit.last("Mul", node, x, emit.step("Sigmoid", node, x))


def _mish(emit: Emitter, node: Node) -> None:
    """x·tanh(softplus(x))."""
    (x,) = node.inputs
    emit.last("Mul", node, x, emit.step("Tanh", node, emit.step("Softplus", node, x)))


def _hardswish(emit: Emitter, node: Node) -> None:
    (x,) = node.inputs
    emit.last("Mul", node, x, emit.step("HardSigmoid", node, x, alpha=emit.float32(1 / 6), beta=0.5))


def _softplus(emit: Emitter, node: Node) -> None:
    """Softplus(beta·x) / beta; from the threshold on x itself, unless that is the same in float32 anyway."""
    (x,), beta, threshold = node.inputs, node.attributes["beta"], node.attributes["threshold"]
    scaled = x if beta == 1 else emit.step("Mul", node, x, emit.constant(f"{node.home}.beta", beta))
    steps = [["Softplus", scaled]]
    if beta != 1:
        steps.append(["Div", PREVIOUS, emit.constant(f"{node.home}.beta", beta)])
    if threshold < 20:  # log1p(e^-20) is below half an ulp of 20
        above = emit.step("Greater", node, scaled, emit.constant(f"{node.home}.threshold", threshold))
        steps.append(["Where", above, x, PREVIOUS])
    emit.sequence(node, *steps)


def _clamp(emit: Emitter, node: Node) -> None:
    """A Clip with two bounds, a Max or a Min with one."""
    bounds = {role: value for role in ("min", "max") if (value := node.attributes[role]) is not None}
    if emit.opset < 11:
        emit.last("Clip", node, *node.inputs, **{role: emit.float32(value) for role, value in bounds.items()})
        return
    # a Clip without a bound ends at the largest float32, a Max or Min does not
    op_type = "Clip" if len(bounds) == 2 else "Max" if "min" in bounds else "Min"
    emit.last(op_type, node, *node.inputs, *(emit.number(node, role) for role in bounds))


def _softmax(emit: Emitter, node: Node, op_type: str) -> None:
    """Along a dimension; before opset 13 along the last one, counted from the front."""
    axis = node.attributes["dim"]
    last = axis == len(node.shape) - 1
    if emit.opset < 13 and not last:
        emit.refuse(node, 13, f"{op_type} along dimension {axis}")
    emit.last(op_type, node, *node.inputs, axis=-1 if last and emit.opset >= 13 else axis)


def _refuse_scaled(node: Node) -> str | None:
    unscaled = all(node.attributes.get(name, 1) == 1 for name in ("scale", "input_scale"))
    return None if unscaled else "its scale or input_scale is not 1"


OPERATORS = {
    "sigmoid": Operator(single("Sigmoid")),
    "relu": Operator(single("Relu")),
    "leaky_relu": Operator(single("LeakyRelu", alpha="negative_slope")),
    "_prelu_kernel": Operator(single("PRelu")),
    "elu": Operator(single("Elu", alpha="alpha"), refuse=_refuse_scaled),
    # PyTorch's constants, which have more digits than float32 keeps
    "selu": Operator(single("Selu", alpha=1.6732632423543772848170429916717, gamma=1.0507009873554804934193349852946)),
    "celu": Operator(single("Celu", alpha="alpha")),
    "tanh": Operator(single("Tanh")),
    "gelu": Operator(_gelu),
    "silu": Operator(_silu),
    "mish": Operator(_mish),
    "softplus": Operator(_softplus),
    "log_sigmoid": Operator(chain("Neg", "Softplus", "Neg")),
    "hardsigmoid": Operator(single("HardSigmoid", alpha=1 / 6, beta=0.5)),
    "hardswish": Operator(_hardswish),
    "clamp": Operator(_clamp, overloads=()),
    "softmax": Operator(partial(_softmax, op_type="Softmax"), overloads=()),
    "log_softmax": Operator(partial(_softmax, op_type="LogSoftmax"), overloads=()),
}
