"""Activations: functions of one value, and softmax."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import numpy as np

from export.graph import Node

from .language import ABSENT, Constant, Input, NodeTensor, Op, Pattern, X, axis, each, op, option, patterns, single
from .reductions import reduced

_LARGEST = float(np.finfo(np.float32).max)


def _one_plus_exp() -> Op:
    return op("Add", op("Exp", op("Neg", X)), 1.0)


def _relu(_node: Node) -> list[Pattern]:
    return patterns(op("Relu", X), op("Max", X, 0.0))


def _clamp(node: Node) -> list[Pattern]:
    """Two inputs from opset 11 on, two attributes before; a bound of the largest float32 may be left out."""
    low, high = (bound if node.dtype == "int64" else float(np.float32(bound)) for bound in _bounds(node))
    lower, upper = Constant(low), Constant(high)
    roots = [op("Clip", X, lower, upper), op("Clip", X, min=lower.value, max=upper.value)]
    roots += [op("Min", op("Max", X, lower), upper), op("Max", op("Min", X, upper), lower)]
    # A Clip without a bound ends at the largest float32, a Max or Min does not.
    if high == _LARGEST:
        roots.append(op("Clip", X, lower))
    if low == -_LARGEST:
        roots.append(op("Clip", X, ABSENT, upper))
    if high == np.inf:
        roots.append(op("Max", X, lower))
    if low == -np.inf:
        roots.append(op("Min", X, upper))
    if low == 0:
        positive = (op("Relu", X), op("Max", X, 0.0))
        roots += each(lambda x: (op("Clip", x, 0.0, upper), op("Clip", x, min=0.0, max=upper.value)), (positive[0],))
        roots += each(lambda x: op("Min", x, upper), positive)
    return patterns(*roots)


def _bounds(node: Node) -> tuple[float, float]:
    low, high = node.attributes["min"], node.attributes["max"]
    return -np.inf if low is None else low, np.inf if high is None else high


def _leaky_relu(node: Node) -> list[Pattern]:
    slope = Constant(option("negative_slope"))
    roots = [op("LeakyRelu", X, alpha=slope.value), op("PRelu", X, slope)]
    if 0 <= node.attributes["negative_slope"] <= 1:
        roots.append(op("Max", X, op("Mul", X, slope)))
    return patterns(*roots)


def _hardsigmoids() -> list[Op]:
    shifted = [op("Clip", op("Add", X, 3.0), 0.0, 6.0), op("Clip", op("Add", X, 3.0), min=0.0, max=6.0)]
    sloped = [op("Add", part, 0.5) for part in (op("Mul", X, 1 / 6), op("Div", X, 6.0))]
    roots = [op("HardSigmoid", X, alpha=1 / 6, beta=0.5)]
    roots += each(lambda x: (op("Div", x, 6.0), op("Mul", x, 1 / 6)), shifted)
    return roots + each(lambda x: (op("Clip", x, 0.0, 1.0), op("Clip", x, min=0.0, max=1.0)), sloped)


def _hardswish(_node: Node) -> list[Pattern]:
    return patterns(op("HardSwish", X), *(op("Mul", X, gate) for gate in _hardsigmoids()))


def _halves(x: Input) -> tuple[Op, Op]:
    return op("Mul", x, 0.5), op("Div", x, 2.0)


def _gelu(node: Node) -> list[Pattern]:
    """x·t / 2 in any order, where t is 1 + erf(x/√2) or 1 + tanh(√(2/π)·(x + 0.044715·x³))."""
    if node.attributes["approximate"] == "tanh":
        root = sqrt(2 / pi)
        squares = [op("Mul", X, X), op("Pow", X, 2.0)]
        cubes = [op("Pow", X, 3.0), *each(lambda square: op("Mul", square, X), squares)]
        cubic = each(lambda cube: op("Mul", cube, 0.044715), cubes)
        cubic += each(lambda square: op("Mul", op("Mul", X, 0.044715), square), squares)
        factors = each(lambda square: op("Add", op("Mul", square, 0.044715), 1.0), squares)
        inner = each(lambda term: op("Add", X, term), cubic) + each(lambda factor: op("Mul", X, factor), factors)
        scaled = each(lambda term: op("Mul", term, root), inner)
        scaled += each(lambda factor: op("Mul", op("Mul", X, root), factor), factors)
        terms = each(lambda term: op("Add", op("Tanh", term), 1.0), scaled)
    else:
        terms = [op("Add", op("Erf", part), 1.0) for part in (op("Div", X, sqrt(2)), op("Mul", X, sqrt(0.5)))]
    roots = [op("Gelu", X, approximate=str(node.attributes["approximate"]))]
    for term in terms:
        roots += [*_halves(op("Mul", X, term)), *(op("Mul", X, half) for half in _halves(term))]
        roots += [op("Mul", half, term) for half in _halves(X)]
    return patterns(*roots)


def _softplus(node: Node) -> list[Pattern]:
    beta, threshold = Constant(option("beta")), Constant(option("threshold"))
    scaled: Input = X if node.attributes["beta"] == 1 else op("Mul", X, beta)
    roots: list[Op] = []
    for softplus in (op("Softplus", scaled), op("Log", op("Add", op("Exp", scaled), 1.0))):
        divided = softplus if node.attributes["beta"] == 1 else op("Div", softplus, beta)
        roots.append(op("Where", op("Greater", scaled, threshold), X, divided))
        # From 20 on both branches are the same float32 number, so the choice may be left out.
        roots += [divided] if node.attributes["threshold"] >= 20 else []
    return patterns(*roots)


def _softmax(node: Node) -> list[Pattern]:
    exponentials = [op("Exp", X), *(op("Exp", op("Sub", X, largest)) for largest in reduced(node, "ReduceMax", X))]
    steps = [op("Div", e, total) for e in exponentials for total in reduced(node, "ReduceSum", e)]
    return patterns(op("Softmax", X, axis=axis(node)), *steps)


def _log_softmax(node: Node) -> list[Pattern]:
    return patterns(op("LogSoftmax", X, axis=axis(node)), op("Log", op("Softmax", X, axis=axis(node))))


def _selu(_node: Node) -> list[Pattern]:
    return patterns(op("Selu", X, alpha=1.6732632423543772, gamma=1.0507009873554805))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    "sigmoid": lambda _: patterns(op("Sigmoid", X), op("Div", 1.0, _one_plus_exp()), op("Reciprocal", _one_plus_exp())),
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "_prelu_kernel": lambda _: patterns(op("PRelu", X, NodeTensor("weight"))),
    "elu": lambda _: patterns(op("Elu", X, alpha=option("alpha"))),
    "selu": _selu,
    "celu": lambda _: patterns(op("Celu", X, alpha=option("alpha"))),
    "tanh": single("Tanh"),
    "gelu": _gelu,
    "silu": lambda _: patterns(
        op("Mul", X, op("Sigmoid", X)), op("Div", X, _one_plus_exp()), op("Swish", X, alpha=1.0)
    ),
    "mish": lambda _: patterns(op("Mish", X), op("Mul", X, op("Tanh", op("Softplus", X)))),
    "softplus": _softplus,
    "log_sigmoid": lambda _: patterns(op("Neg", op("Softplus", op("Neg", X))), op("Log", op("Sigmoid", X))),
    "softsign": lambda _: patterns(op("Softsign", X), op("Div", X, op("Add", op("Abs", X), 1.0))),
    "hardsigmoid": lambda _: patterns(*_hardsigmoids()),
    "hardswish": _hardswish,
    "clamp": _clamp,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}
