"""The blocks as exporters of many kinds have written them: operators of an ONNX file, by a name for each spelling."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np

from tests.support.onnx_drafts import Draft

RNG = np.random.default_rng(7)
W = RNG.normal(size=(6, 4)).astype(np.float32)
B = RNG.normal(size=4).astype(np.float32)
C = RNG.normal(size=6).astype(np.float32)
P = np.abs(RNG.normal(size=6).astype(np.float32)) + 0.5
S = np.float32

Spelling = Callable[[Draft, str], str]


def _erf(d: Draft, x: str) -> str:
    return d("Add", d("Erf", d("Div", x, S(sqrt(2)))), S(1))


def _tanh(d: Draft, inner: str) -> str:
    return d("Add", S(1), d("Tanh", d("Mul", S(sqrt(2 / pi)), inner)))


def _cubed(d: Draft, x: str) -> str:
    return d("Add", x, d("Mul", S(0.044715), d("Pow", x, S(3))))


def _factored(d: Draft, x: str) -> str:
    return d("Mul", x, d("Add", S(1), d("Mul", d("Mul", x, x), S(0.044715))))


def _one_plus(d: Draft, x: str) -> str:
    return d("Add", d("Exp", d("Neg", x)), S(1))


def _norm(d: Draft, x: str, square: bool) -> str:
    off = d("Sub", x, d.axes("ReduceMean", x, [-1], 18))
    squared = d("Mul", off, off) if square else d("Pow", off, S(2))
    deviation = d("Sqrt", d("Add", d.axes("ReduceMean", squared, [1], 18), S(1e-3)))
    return d("Div", off, deviation)


SPELLINGS: dict[str, tuple[Any, Spelling]] = {
    "gemm": ("linear", lambda d, x: d("Gemm", x, W, B)),
    "gemm transB": ("linear", lambda d, x: d("Gemm", x, W.T, B, transB=1)),
    "gemm scaled exactly": ("linear", lambda d, x: d("Gemm", x, W, B, alpha=0.5, beta=2.0)),
    "gemm scaled": ("linear scale", lambda d, x: d("Gemm", x, W, B, alpha=0.3)),
    "gemm scaled alike": ("linear scale", lambda d, x: d("Gemm", x, W, B, alpha=0.3, beta=0.3)),
    "gemm scaled both": ("linear scale", lambda d, x: d("Gemm", x, W, B, alpha=0.3, beta=0.7)),
    "gemm one bias": ("linear", lambda d, x: d("Gemm", x, W, np.ones(1, S))),
    "matmul": ("linear", lambda d, x: d("MatMul", x, W)),
    "matmul add": ("linear", lambda d, x: d("Add", d("MatMul", x, W), B)),
    "add matmul": ("linear", lambda d, x: d("Add", B.reshape(1, 4), d("MatMul", x, W))),
    "matmul sub": ("linear", lambda d, x: d("Sub", d("MatMul", x, W), B)),
    "matmul transposed": ("linear", lambda d, x: d("MatMul", x, d("Transpose", W.T.copy(), perm=[1, 0]))),
    "matmul left": (
        "linear",
        lambda d, x: d.axes(
            "Squeeze",
            d("Add", d("MatMul", W.T.copy(), d.axes("Unsqueeze", x, [2], 13)), B.reshape(4, 1)),
            [2],
            13,
        ),
    ),
    "matmul left turned": (
        "linear",
        lambda d, x: d("Transpose", d("Add", d("MatMul", W.T.copy(), d("Transpose", x)), B.reshape(4, 1))),
    ),
    "gemm left": ("linear", lambda d, x: d("Transpose", d("Gemm", W, x, B.reshape(4, 1), transA=1, transB=1))),
    "sub div": ("standardize", lambda d, x: d("Div", d("Sub", x, C), P)),
    "sub": ("standardize", lambda d, x: d("Sub", x, C)),
    "div": ("standardize", lambda d, x: d("Div", x, P.reshape(1, 6))),
    "add div": ("standardize", lambda d, x: d("Div", d("Add", x, C), P)),
    "sub mul": ("standardize scale", lambda d, x: d("Mul", d("Sub", x, C), P)),
    "mul add": ("scale", lambda d, x: d("Add", C, d("Mul", P, x))),
    "mul sub": ("scale", lambda d, x: d("Sub", d("Mul", x, P), C)),
    "mul": ("scale", lambda d, x: d("Mul", x, S(2.5))),
    "add": ("scale", lambda d, x: d("Add", C.reshape(1, 6), x)),
    "sub from": ("scale", lambda d, x: d("Sub", C, x)),
    "neg": ("scale", lambda d, x: d("Neg", x)),
    "relu": ("relu", lambda d, x: d("Relu", x)),
    "relu max": ("relu", lambda d, x: d("Max", S(0), x)),
    "ramp clip": ("clip", lambda d, x: d("Clip", x, min=0.0) if d.opset < 11 else d("Clip", x, S(0))),
    "leaky": ({"leaky_relu": 0.01}, lambda d, x: d("LeakyRelu", x)),
    "leaky 0.2": ({"leaky_relu": 0.2}, lambda d, x: d("LeakyRelu", x, alpha=0.2)),
    "leaky prelu": ({"leaky_relu": 0.25}, lambda d, x: d("PRelu", x, np.full(6, 0.25, S))),
    "leaky max": ({"leaky_relu": 0.1}, lambda d, x: d("Max", d("Mul", x, S(0.1)), x)),
    "elu": ({"elu": 1.3}, lambda d, x: d("Elu", x, alpha=1.3)),
    "tanh": ("tanh", lambda d, x: d("Tanh", x)),
    "sigmoid": ("sigmoid", lambda d, x: d("Sigmoid", x)),
    "sigmoid div": ("sigmoid", lambda d, x: d("Div", S(1), _one_plus(d, x))),
    "sigmoid reciprocal": ("sigmoid", lambda d, x: d("Reciprocal", _one_plus(d, x))),
    "softsign steps": ("softsign", lambda d, x: d("Div", x, d("Add", S(1), d("Abs", x)))),
    "hardsigmoid": ("hardsigmoid", lambda d, x: d("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "hardsigmoid other": ("scale clip", lambda d, x: d("HardSigmoid", x)),
    "hardsigmoid steps": ("hardsigmoid", lambda d, x: d("Div", d.clip(d("Add", x, S(3)), 0, 6), S(6))),
    "hardsigmoid line": (
        "hardsigmoid",
        lambda d, x: d.clip(d("Add", d("Mul", x, S(1 / 6)), S(0.5)), 0, 1),
    ),
    "silu": ("silu", lambda d, x: d("Mul", x, d("Sigmoid", x))),
    "silu turned": ("silu", lambda d, x: d("Mul", d("Sigmoid", x), x)),
    "silu div": ("silu", lambda d, x: d("Div", x, _one_plus(d, x))),
    "gelu": ("gelu", lambda d, x: d("Mul", d("Mul", x, _erf(d, x)), S(0.5))),
    "gelu half first": ("gelu", lambda d, x: d("Mul", d("Mul", S(0.5), x), _erf(d, x))),
    "gelu half inside": ("gelu", lambda d, x: d("Mul", d("Div", _erf(d, x), S(2)), x)),
    "gelu tanh": ({"gelu": "tanh"}, lambda d, x: d("Mul", d("Mul", x, S(0.5)), _tanh(d, _cubed(d, x)))),
    "gelu tanh factored": (
        {"gelu": "tanh"},
        lambda d, x: d("Mul", S(0.5), d("Mul", _tanh(d, _factored(d, x)), x)),
    ),
    "softplus": ("softplus", lambda d, x: d("Softplus", x)),
    "softplus log": ("softplus", lambda d, x: d("Log", d("Add", d("Exp", x), S(1)))),
    "softplus beta": ({"softplus": 2.5}, lambda d, x: d("Div", d("Softplus", d("Mul", x, S(2.5))), S(2.5))),
    "softplus threshold": (
        {"softplus": {"beta": 1.0, "threshold": 1.5}},
        lambda d, x: d("Where", d("Greater", x, S(1.5)), x, d("Softplus", x)),
    ),
    "softmax": ("softmax", lambda d, x: d("Softmax", x, axis=1)),
    "softmax last": ("softmax", lambda d, x: d("Softmax", x, axis=-1) if d.opset > 10 else d("Softmax", x)),
    "softmax steps": (
        "softmax",
        lambda d, x: (lambda e: d("Div", e, d.axes("ReduceSum", e, [1], 13)))(
            d("Exp", d("Sub", x, d.axes("ReduceMax", x, [1], 18)))
        ),
    ),
    "relu6": ("relu6", lambda d, x: d.clip(x, 0, 6)),
    "relu6 min": ("relu6", lambda d, x: d("Min", d("Relu", x), S(6))),
    "clip": ({"clip": [-0.4, 0.9]}, lambda d, x: d.clip(x, -0.4, 0.9)),
    "clip max min": ({"clip": [-0.4, 0.9]}, lambda d, x: d("Min", d("Max", x, S(-0.4)), S(0.9))),
    "clip min max": ({"clip": [-0.4, 0.9]}, lambda d, x: d("Max", S(-0.4), d("Min", x, S(0.9)))),
    "batch norm": (
        {"batch_norm": {"eps": 1e-3}},
        lambda d, x: d("BatchNormalization", x, P, C, C, P, epsilon=1e-3),
    ),
    "layer norm": ({"layer_norm": {"eps": 1e-3, "elementwise_affine": False}}, lambda d, x: _norm(d, x, False)),
    "layer norm weights": (
        {"layer_norm": 1e-3},
        lambda d, x: d("Add", d("Mul", P, _norm(d, x, True)), C),
    ),
    "residual": ("residual", lambda d, x: d("Add", x, d("Tanh", x))),
    "residual turned": ("residual", lambda d, x: d("Sum", d("Relu", d("Mul", x, P)), x)),
    "flatten": ("scale", lambda d, x: d("Neg", d("Flatten", x))),
    "reshape": ("relu", lambda d, x: d("Relu", d("Reshape", x, np.array([-1, 6])))),
    "reshape copy": ("relu", lambda d, x: d("Relu", d("Reshape", x, np.array([0, -1])))),
    "dropout": ("tanh", lambda d, x: d("Dropout", d("Tanh", d("Identity", x)))),
    "cast": ("tanh", lambda d, x: d("Tanh", d("Cast", x, to=1))),
}
"""The block that each is, or the names of several, and how it is written after a value of 6 features."""
