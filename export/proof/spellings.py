"""How a block may stand in an ONNX file: every row is a small graph of operators that means the block.

It is what the verifier accepts, written apart from what the exporter writes (``export.operators``), and takes in what
other exporters write as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import pi, sqrt

import numpy as np

from export.graph import Node

Value = float | int | str | tuple[int, ...] | Callable[[Node], float]


@dataclass(frozen=True)
class Tensor:
    """A constant that must have the bits of the block's tensor ``role``; ``transposed`` for a matrix stored (in, out).

    ``default`` stands for every entry where the block has no such tensor; None means that the input is then left out.
    """

    role: str
    transposed: bool = False
    default: float | None = None


@dataclass(frozen=True)
class Constant:
    """A float32 number that is no tensor of the module."""

    value: Value


Source = int | str | Tensor | Constant
"""What an operator reads: the block's input "x", "x1" and so on, the value of an earlier step, or a constant."""


@dataclass(frozen=True)
class Step:
    """One operator. Attributes that are not named have their default in ONNX; those that are belong to the operator in
    the opset of the file, so that a spelling of another opset does not fit.
    """

    op: str
    inputs: tuple[Source, ...]
    attributes: Mapping[str, Value] = field(default_factory=dict)


Spelling = tuple[Step, ...]
COMMUTATIVE = ("Add", "Mul")
WITHOUT_EFFECT = {("BatchNormalization", "momentum")}
"""Attributes that inference does not read."""


def _one(op: str, **attributes: Value) -> list[Spelling]:
    return [(Step(op, ("x",), attributes),)]


def _option(name: str) -> Callable[[Node], float]:
    return lambda node: float(node.attributes[name])


def _last(node: Node) -> float:
    return len(node.shape)


def _linear(node: Node) -> list[Spelling]:
    weight, turned, bias = Tensor("weight"), Tensor("weight", transposed=True), Tensor("bias")
    product = Step("MatMul", ("x", turned))
    added = (product, Step("Add", (0, bias))) if "bias" in node.tensors else (product,)
    return [(Step("Gemm", ("x", weight, bias), {"transB": 1}),), (Step("Gemm", ("x", turned, bias)),), added]


def _gelu(node: Node) -> list[Spelling]:
    half, one = Constant(0.5), Constant(1.0)
    whole: list[Spelling] = [(Step("Gelu", ("x",), {"approximate": str(node.attributes["approximate"])}),)]
    if node.attributes["approximate"] == "tanh":
        inner: list[Spelling] = [
            (
                Step("Mul", ("x", "x")),
                Step("Mul", (0, "x")),
                Step("Mul", (1, Constant(0.044715))),
                Step("Add", ("x", 2)),
                Step("Mul", (3, Constant(sqrt(2 / pi)))),
                Step("Tanh", (4,)),
                Step("Add", (5, one)),
            )
        ]
    else:
        scaled = [Step("Div", ("x", Constant(sqrt(2)))), Step("Mul", ("x", Constant(sqrt(0.5))))]
        inner = [(first, Step("Erf", (0,)), Step("Add", (1, one))) for first in scaled]
    for steps in inner:
        raised = len(steps) - 1
        whole.append((*steps, Step("Mul", ("x", raised)), Step("Mul", (raised + 1, half))))
        whole.append((*steps, Step("Mul", (raised, half)), Step("Mul", ("x", raised + 1))))
        whole.append((*steps, Step("Mul", ("x", half)), Step("Mul", (raised + 1, raised))))
    return whole


def _softplus(node: Node) -> list[Spelling]:
    beta, threshold = Constant(_option("beta")), Constant(_option("threshold"))
    plain = node.attributes["beta"] == 1
    steps: list[Step] = [] if plain else [Step("Mul", ("x", beta))]
    scaled: Source = "x" if plain else 0
    steps.append(Step("Softplus", (scaled,)))
    if not plain:
        steps.append(Step("Div", (len(steps) - 1, beta)))
    value = len(steps) - 1
    chosen = (*steps, Step("Greater", (scaled, threshold)), Step("Where", (len(steps), "x", value)))
    # From 20 on both branches are the same float32 number, so choosing may be left out.
    return [chosen] if node.attributes["threshold"] < 20 else [chosen, tuple(steps)]


def _clip(low: Value, high: Value) -> list[Spelling]:
    """Two inputs from opset 11 on, two attributes before."""
    return [(Step("Clip", ("x", Constant(low), Constant(high))),), (Step("Clip", ("x",), {"min": low, "max": high}),)]


def _softmax(node: Node) -> list[Spelling]:
    return [*_one("Softmax", axis=-1), *_one("Softmax", axis=_last)]


def _layer_norm(node: Node) -> list[Spelling]:
    """One operator from opset 17 on; in steps, with the axes as an attribute, before opset 18."""
    inputs = ("x", Tensor("weight", default=1.0), Tensor("bias"))
    found: list[Spelling] = []
    for axis in (-1, len(node.shape)):
        found.append((Step("LayerNormalization", inputs, {"epsilon": _option("eps"), "axis": axis}),))
        for square in (Step("Mul", (1, 1)), Step("Pow", (1, Constant(2.0)))):
            steps = [
                Step("ReduceMean", ("x",), {"axes": (axis,)}),
                Step("Sub", ("x", 0)),
                square,
                Step("ReduceMean", (2,), {"axes": (axis,)}),
                Step("Add", (3, Constant(_option("eps")))),
                Step("Sqrt", (4,)),
                Step("Div", (1, 5)),
            ]
            for op, role in (("Mul", "weight"), ("Add", "bias")):
                if role in node.tensors:
                    steps.append(Step(op, (len(steps) - 1, Tensor(role))))
            found.append(tuple(steps))
    return found


def _batch_norm(node: Node) -> list[Spelling]:
    tensors = Tensor("weight", default=1.0), Tensor("bias", default=0.0), Tensor("running_mean"), Tensor("running_var")
    return [(Step("BatchNormalization", ("x", *tensors), {"epsilon": _option("eps")}),)]


def _in_turn(node: Node, *steps: tuple[str, str]) -> list[Spelling]:
    """Elementwise operators with the constant of a role each: those that the block has, or those that do something."""
    held = [(op, role) for op, role in steps if role in node.tensors or role in node.attributes]
    neutral = [step for step in held if _is_neutral(node, *step)]
    alone = [[step] for step in held if len(held) > 1 and all(other in neutral for other in held if other != step)]
    spelt = []
    for chosen in [held, *alone]:
        spelling: list[Step] = []
        for index, (op, role) in enumerate(chosen):
            constant: Source = Tensor(role) if role in node.tensors else Constant(_option(role))
            spelling.append(Step(op, ("x" if index == 0 else index - 1, constant)))
        spelt.append(tuple(spelling))
    return spelt


def _is_neutral(node: Node, op: str, role: str) -> bool:
    """A sum with zeros, a product with ones."""
    held = node.tensors[role].values if role in node.tensors else np.float32(node.attributes[role])
    return bool(np.all(held == (0 if op in ("Add", "Sub") else 1)))


SPELLINGS: dict[str, Callable[[Node], list[Spelling]]] = {
    "linear": _linear,
    "sigmoid": lambda node: _one("Sigmoid"),
    "relu": lambda node: _one("Relu"),
    "leaky_relu": lambda node: _one("LeakyRelu", alpha=_option("negative_slope")),
    "elu": lambda node: _one("Elu", alpha=_option("alpha")),
    "tanh": lambda node: _one("Tanh"),
    "gelu": _gelu,
    "silu": lambda node: [(Step("Sigmoid", ("x",)), Step("Mul", ("x", 0)))],
    "softplus": _softplus,
    "softmax": _softmax,
    "relu6": lambda node: _clip(0.0, 6.0),
    "hardsigmoid": lambda node: _one("HardSigmoid", alpha=1 / 6, beta=0.5),
    "clip": lambda node: _clip(_option("min_val"), _option("max_val")),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "standardize": lambda node: _in_turn(node, ("Sub", "mean"), ("Div", "std")),
    "scale": lambda node: _in_turn(node, ("Mul", "factor"), ("Add", "offset")),
    "add": lambda node: [(Step("Add", ("x", "x1")),)],
    "subtract": lambda node: [(Step("Sub", ("x", "x1")),)],
    "multiply": lambda node: [(Step("Mul", ("x", "x1")),)],
    "concat": lambda node: [
        (Step("Concat", tuple("x" if i == 0 else f"x{i}" for i in range(len(node.inputs))), {"axis": axis}),)
        for axis in (1, -1)
    ],
}
"""Every block that acts in evaluation mode."""
