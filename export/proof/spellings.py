"""How blocks may stand in an ONNX file: every row is the spellings of one block.

It is what the verifier accepts, written apart from what the exporter writes (``export.operators``), and takes in what
other exporters write as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import pi, sqrt

import numpy as np

from export.graph import Node

from .spelling import ABSENT, Constant, Input, Integers, Op, Spelling, Tensor, Value, X, each, op, spelt

COMMUTATIVE = ("Add", "Mul", "Sum", "Min", "Max")
WITHOUT_EFFECT = {("BatchNormalization", "momentum")}
"""Attributes that inference does not read."""
_LARGEST = float(np.finfo(np.float32).max)


def _option(name: str) -> Callable[[Node], float]:
    return lambda node: float(node.attributes[name])


def _gemm(*inputs: Input, **attributes: Value) -> Op:
    """A Gemm whose alpha and beta are part of its constants."""
    return replace(op("Gemm", *inputs, **attributes), free=("alpha", "beta"))


def _linear(node: Node) -> list[Spelling]:
    weight, turned = Tensor("weight", times="alpha"), Tensor("weight", transposed=True, times="alpha")
    bias = Tensor("bias", times="beta")
    products = [op("MatMul", X, Tensor("weight", transposed=True)), op("MatMul", Tensor("weight"), X)]
    if "bias" in node.tensors:
        added = [op("Add", product, Tensor("bias")) for product in products]
        added += [op("Sub", product, Tensor("bias", negated=True)) for product in products]
        products = added
    return spelt(_gemm(X, weight, bias, transB=1), _gemm(X, turned, bias), *products)


def _scaled_linear(node: Node) -> list[Spelling]:
    """A linear and a scale by one number, as a Gemm with that alpha; see ``export.proof.structure``."""
    alpha = {"alpha": _option("alpha")}
    held = Tensor("bias", times="beta") if "bias" in node.tensors else None
    bias = (held,) if held is not None else ()
    products = [op("Gemm", X, Tensor("weight"), *bias, transB=1, **alpha)]
    products.append(op("Gemm", X, Tensor("weight", transposed=True), *bias, **alpha))
    return spelt(*(replace(product, free=("beta",)) for product in products))


def _one_plus_exp() -> Op:
    return op("Add", op("Exp", op("Neg", X)), 1.0)


def _relu(node: Node) -> list[Spelling]:
    return spelt(op("Relu", X), op("Max", X, 0.0))


def _relu6(node: Node) -> list[Spelling]:
    positive = (op("Relu", X), op("Max", X, 0.0))
    clipped = each(lambda x: (op("Clip", x, 0.0, 6.0), op("Clip", x, min=0.0, max=6.0)), (op("Relu", X),))
    plain = (op("Clip", X, 0.0, 6.0), op("Clip", X, min=0.0, max=6.0), op("Max", op("Min", X, 6.0), 0.0))
    return spelt(*plain, *clipped, *each(lambda x: op("Min", x, 6.0), positive))


def _clip(node: Node) -> list[Spelling]:
    """Two inputs from opset 11 on, two attributes before; a bound of the largest float32 may be left out."""
    low, high = Constant(_option("min_val")), Constant(_option("max_val"))
    found = [op("Clip", X, low, high), op("Clip", X, min=low.value, max=high.value)]
    found += [op("Min", op("Max", X, low), high), op("Max", op("Min", X, high), low)]
    # A Clip without a bound ends at the largest float32, a Max or Min does not.
    if node.attributes["max_val"] == _LARGEST:
        found.append(op("Clip", X, low))
    if node.attributes["min_val"] == -_LARGEST:
        found.append(op("Clip", X, ABSENT, high))
    if node.attributes["max_val"] == np.inf:
        found.append(op("Max", X, low))
    if node.attributes["min_val"] == -np.inf:
        found.append(op("Min", X, high))
    return spelt(*found)


def _leaky_relu(node: Node) -> list[Spelling]:
    slope = Constant(_option("negative_slope"))
    found = [op("LeakyRelu", X, alpha=slope.value), op("PRelu", X, slope)]
    if 0 <= node.attributes["negative_slope"] <= 1:
        found.append(op("Max", X, op("Mul", X, slope)))
    return spelt(*found)


def _hardsigmoid(node: Node) -> list[Spelling]:
    shifted = [op("Clip", op("Add", X, 3.0), 0.0, 6.0), op("Clip", op("Add", X, 3.0), min=0.0, max=6.0)]
    sloped = [op("Add", part, 0.5) for part in (op("Mul", X, 1 / 6), op("Div", X, 6.0))]
    found = [op("HardSigmoid", X, alpha=1 / 6, beta=0.5)]
    found += each(lambda x: (op("Div", x, 6.0), op("Mul", x, 1 / 6)), shifted)
    return spelt(*found, *each(lambda x: (op("Clip", x, 0.0, 1.0), op("Clip", x, min=0.0, max=1.0)), sloped))


def _halves(x: Op) -> tuple[Op, Op]:
    return op("Mul", x, 0.5), op("Div", x, 2.0)


def _gelu(node: Node) -> list[Spelling]:
    """x·one_more / 2 in any order, where one_more is 1 + erf(x/√2) or 1 + tanh(√(2/π)·(x + 0.044715·x³))."""
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
        ones = each(lambda term: op("Add", op("Tanh", term), 1.0), scaled)
    else:
        ones = [op("Add", op("Erf", part), 1.0) for part in (op("Div", X, sqrt(2)), op("Mul", X, sqrt(0.5)))]
    found = [op("Gelu", X, approximate=str(node.attributes["approximate"]))]
    for one in ones:
        found += [*_halves(op("Mul", X, one)), *(op("Mul", X, half) for half in _halves(one))]
        found += [op("Mul", half, one) for half in (op("Mul", X, 0.5), op("Div", X, 2.0))]
    return spelt(*found)


def _softplus(node: Node) -> list[Spelling]:
    beta, threshold = Constant(_option("beta")), Constant(_option("threshold"))
    scaled: Input = X if node.attributes["beta"] == 1 else op("Mul", X, beta)
    found = []
    for value in (op("Softplus", scaled), op("Log", op("Add", op("Exp", scaled), 1.0))):
        divided = value if node.attributes["beta"] == 1 else op("Div", value, beta)
        found.append(op("Where", op("Greater", scaled, threshold), X, divided))
        # From 20 on both branches are the same float32 number, so choosing may be left out.
        found += [divided] if node.attributes["threshold"] >= 20 else []
    return spelt(*found)


def _reduced(node: Node, name: str, x: Input) -> list[Op]:
    """Along the features; the axes are an attribute, or in newer opsets an input."""
    axes = (-1, len(node.shape))
    return [made for axis in axes for made in (op(name, x, axes=(axis,)), op(name, x, Integers((axis,))))]


def _softmax(node: Node) -> list[Spelling]:
    exponentials = [op("Exp", X), *(op("Exp", op("Sub", X, most)) for most in _reduced(node, "ReduceMax", X))]
    steps = [op("Div", e, total) for e in exponentials for total in _reduced(node, "ReduceSum", e)]
    return spelt(*(op("Softmax", X, axis=axis) for axis in (-1, len(node.shape))), *steps)


def _layer_norm(node: Node) -> list[Spelling]:
    """One operator from opset 17 on, or in steps."""
    eps, inputs = _option("eps"), (X, Tensor("weight", default=1.0), Tensor("bias"))
    found = [op("LayerNormalization", *inputs, epsilon=eps, axis=axis) for axis in (-1, len(node.shape))]
    for mean in _reduced(node, "ReduceMean", X):
        off = op("Sub", X, mean)
        for square in (op("Mul", off, off), op("Pow", off, 2.0)):
            for variance in _reduced(node, "ReduceMean", square):
                deviation = op("Sqrt", op("Add", variance, Constant(eps)))
                ends = [op("Div", off, deviation), op("Mul", off, op("Reciprocal", deviation))]
                for name, role in (("Mul", "weight"), ("Add", "bias")):
                    ends = [op(name, end, Tensor(role)) if role in node.tensors else end for end in ends]
                found += ends
    return spelt(*found)


def _batch_norm(node: Node) -> list[Spelling]:
    tensors = Tensor("weight", default=1.0), Tensor("bias", default=0.0), Tensor("running_mean"), Tensor("running_var")
    return spelt(op("BatchNormalization", X, *tensors, epsilon=_option("eps")))


def _standardize(node: Node) -> list[Spelling]:
    mean, std = _held(node, "mean"), _held(node, "std")
    minus = [op("Sub", X, mean)] if mean is not None else []
    minus += [op("Add", X, replace(mean, negated=True))] if isinstance(mean, Tensor) else []
    found = each(lambda x: op("Div", x, std), minus) if std is not None else []
    found += minus if std is None or _is(node, "std", 1) else []
    found += [op("Div", X, std)] if std is not None and (mean is None or _is(node, "mean", 0)) else []
    return spelt(*found)


def _scale(node: Node) -> list[Spelling]:
    factor, offset = _held(node, "factor"), _held(node, "offset")
    times = [op("Mul", X, factor)] if factor is not None else []
    found = each(lambda x: op("Add", x, offset), times) if offset is not None else []
    if isinstance(offset, Tensor):
        found += each(lambda x: op("Sub", x, replace(offset, negated=True)), times)
        found += [op("Sub", X, replace(offset, negated=True))] if _is(node, "factor", 1) else []
    if offset is not None:
        found += [op("Add", X, offset)] if factor is None or _is(node, "factor", 1) else []
        found += [op("Sub", offset, X)] if _is(node, "factor", -1) else []
    if offset is None or _is(node, "offset", 0):
        found += [*times, *([op("Neg", X)] if _is(node, "factor", -1) else [])]
    return spelt(*found)


def _held(node: Node, role: str) -> Tensor | Constant | None:
    """How a block's constant stands in a file; None where the block has none."""
    if role in node.tensors:
        return Tensor(role)
    return Constant(_option(role)) if role in node.attributes else None


def _is(node: Node, role: str, number: float) -> bool:
    """Whether a constant of the block is one number for every feature, so that another operator does the same."""
    held = node.tensors[role].values if role in node.tensors else node.attributes.get(role)
    return held is not None and bool(np.all(np.asarray(held) == number))


def _concat(node: Node) -> list[Spelling]:
    inputs = [X if i == 0 else f"x{i}" for i in range(len(node.inputs))]
    return spelt(*(op("Concat", *inputs, axis=axis) for axis in (1, -1)))


SPELLINGS: dict[str, Callable[[Node], list[Spelling]]] = {
    "linear": _linear,
    "scaled linear": _scaled_linear,
    "sigmoid": lambda node: spelt(op("Sigmoid", X), op("Div", 1.0, _one_plus_exp()), op("Reciprocal", _one_plus_exp())),
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": lambda node: spelt(op("Elu", X, alpha=_option("alpha"))),
    "tanh": lambda node: spelt(op("Tanh", X)),
    "gelu": _gelu,
    "silu": lambda node: spelt(
        op("Mul", X, op("Sigmoid", X)), op("Div", X, _one_plus_exp()), op("Swish", X, alpha=1.0)
    ),
    "softplus": _softplus,
    "softmax": _softmax,
    "relu6": _relu6,
    "hardsigmoid": _hardsigmoid,
    "clip": _clip,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "standardize": _standardize,
    "scale": _scale,
    "add": lambda node: spelt(op("Add", X, "x1"), op("Sum", X, "x1")),
    "subtract": lambda node: spelt(op("Sub", X, "x1")),
    "multiply": lambda node: spelt(op("Mul", X, "x1")),
    "concat": _concat,
}
"""Every block that computes something in evaluation mode."""
