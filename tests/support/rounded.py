"""Running error analysis of the operators: each in the ways it is usually spelt, with the error that roundings add."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

U = 2.0**-24
TINY = 2.0**-126  # some kernels flush denormals


class Rounded:
    """An exact value and how far float32 may be from it, carried step by step (Wilkinson's running error analysis).

    Every operator adds what its operands' errors make of its result, and one rounding of what it may be then.
    """

    def __init__(self, value: Any, error: Any = 0.0):
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    def __add__(self, other: Rounded) -> Rounded:
        return _step(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Rounded) -> Rounded:
        return _step(self.value - other.value, self.error + other.error)

    def __mul__(self, other: Rounded) -> Rounded:
        a, b = np.abs(self.value), np.abs(other.value)
        return _step(self.value * other.value, self.error * b + other.error * a + self.error * other.error)

    def __truediv__(self, other: Rounded) -> Rounded:
        y, least = self.value / other.value, np.abs(other.value) - other.error
        p = (self.error + np.abs(y) * other.error) / np.where(least > 0, least, np.nan)
        return _step(y, np.where(np.isnan(p), np.inf, p))

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.error)

    def __getitem__(self, at: Any) -> Rounded:
        return Rounded(self.value[at], self.error[at])

    def monotone(self, f: Callable[[np.ndarray], np.ndarray], units: float = 0.0) -> Rounded:
        """A monotone function that a library computes to ``units``·u of its result."""
        y = f(self.value)
        p = np.maximum(np.abs(f(self.value + self.error) - y), np.abs(y - f(self.value - self.error)))
        p = np.where(np.isnan(p), np.inf, p)
        return Rounded(y, p + units * U * (np.abs(y) + p) + TINY * (units > 0))

    def steep(self, f: Callable[[np.ndarray], np.ndarray], slope: float, absolute: float) -> Rounded:
        return Rounded(f(self.value), slope * self.error + absolute * U)

    def sum(self, axis: int, *, keepdims: bool = True) -> Rounded:
        """One after the other."""
        total = self[self._at(axis, 0)]
        for i in range(1, self.value.shape[axis]):
            total = total + self[self._at(axis, i)]
        if not keepdims:
            return total
        return Rounded(np.expand_dims(total.value, axis), np.expand_dims(total.error, axis))

    def _at(self, axis: int, i: int) -> tuple[Any, ...]:
        return (*[slice(None)] * (axis % self.value.ndim), i)

    def mean(self, axis: int) -> Rounded:
        return self.sum(axis) / Rounded(float(self.value.shape[axis]))

    def largest(self, axis: int) -> Rounded:
        return Rounded(self.value.max(axis, keepdims=True), self.error.max(axis, keepdims=True))


def _step(y: np.ndarray, p: np.ndarray) -> Rounded:
    return Rounded(y, p + U * (np.abs(y) + p) + TINY)


def _number(value: float) -> Rounded:
    """A constant that float32 does not have."""
    return Rounded(value, U * abs(value))


ONE = Rounded(1.0)
HALF = Rounded(0.5)
_ERF = np.vectorize(math.erf, otypes=[np.float64])


def _exp(x: Rounded) -> Rounded:
    return x.monotone(np.exp, 2)


def _log(x: Rounded) -> Rounded:
    return x.monotone(np.log, 3)


def _tanh(x: Rounded) -> Rounded:
    return x.monotone(np.tanh, 5)


def _root(x: Rounded) -> Rounded:
    return x.monotone(lambda v: np.sqrt(np.maximum(v, 0.0)), 1)


def _clipped(x: Rounded, low: float, high: float) -> Rounded:
    return x.monotone(lambda v: np.clip(v, low, high))


def _logistic(x: Rounded) -> Rounded:
    return ONE / (ONE + _exp(-x))


def _raised(x: Rounded, bell: Rounded) -> Rounded:
    return x * (ONE + bell) * HALF


def _bell(x: Rounded) -> Rounded:
    inner = x + x * x * x * _number(0.044715)
    return _tanh(inner * _number(math.sqrt(2 / math.pi)))


def _below(x: Rounded, low: Rounded) -> Rounded:
    """``x`` above zero, else ``low``; the larger error where it may be either."""
    error = np.where(x.value - x.error > 0, x.error, np.maximum(x.error, low.error))
    return Rounded(np.where(x.value > 0, x.value, low.value), error)


def _log_sum(x: Rounded, axis: int) -> tuple[Rounded, Rounded]:
    """The distance from the largest, and the logarithm of the sum of exponentials."""
    from_largest = x - x.largest(axis)
    return from_largest, _log(_exp(from_largest).sum(axis))


def _softmax(x: Rounded, axis: int) -> Rounded:
    terms = _exp(x - x.largest(axis))
    return terms / terms.sum(axis)


def _off(x: Rounded, axis: int) -> Rounded:
    return x - x.mean(axis)


def _layer_norm(x: Rounded, weight: Rounded, bias: Rounded, eps: float) -> list[Rounded]:
    centred = _off(x, -1)
    size = _root((centred * centred).mean(-1) + _number(eps))
    return [centred / size * weight + bias, centred * (ONE / size) * weight + bias]


def _rms_norm(x: Rounded, weight: Rounded, eps: float) -> list[Rounded]:
    size = _root((x * x).mean(-1) + _number(eps))
    return [x / size * weight, x * (ONE / size) * weight]


def _variance(x: Rounded, axis: int, correction: float) -> list[Rounded]:
    n, centred, mean = x.value.shape[axis], _off(x, axis), x.mean(axis)
    two = (centred * centred).sum(axis, keepdims=False) / Rounded(n - correction)
    one = (x * x).mean(axis) - mean * mean
    one = Rounded(one.value.squeeze(axis), one.error.squeeze(axis)) * _number(n / (n - correction))
    return [two, one]


def _batch_norm(x: Rounded, weight: Rounded, bias: Rounded, mean: Rounded, var: Rounded, eps: float) -> list[Rounded]:
    factor = weight / _root(var + _number(eps))
    return [
        (x - mean) * factor + bias,
        x * factor + (bias - mean * factor),
        (x - mean) / _root(var + _number(eps)) * weight + bias,
    ]


def _matmul(a: Rounded, b: Rounded) -> Rounded:
    products = Rounded(a.value[..., :, :, None], a.error[..., :, :, None]) * Rounded(
        b.value[..., None, :, :], b.error[..., None, :, :]
    )
    return products.sum(-2, keepdims=False)


def _linear(x: Rounded, weight: Rounded, bias: Rounded | None) -> Rounded:
    products = Rounded(x.value[..., None, :], x.error[..., None, :]) * weight
    y = products.sum(-1, keepdims=False)
    return y if bias is None else y + bias


def _running(x: Rounded, axis: int) -> Rounded:
    sums = [x[x._at(axis, 0)]]
    for i in range(1, x.value.shape[axis]):
        sums.append(sums[-1] + x[x._at(axis, i)])
    return Rounded(np.stack([s.value for s in sums], axis), np.stack([s.error for s in sums], axis))


def _norm(x: Rounded, axis: int, order: int) -> Rounded:
    if order == 1:
        return Rounded(np.abs(x.value), x.error).sum(axis, keepdims=False)
    return _root((x * x).sum(axis, keepdims=False))


Spellings = Callable[..., Rounded | list[Rounded]]
TWINS: dict[str, Spellings] = {
    "linear": _linear,
    "matmul": _matmul,
    "batch_norm": _batch_norm,
    "addcmul": lambda offset, x, factor: [x * factor + offset],
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "div by a constant": lambda a, b: [a / b, a * (ONE / b)],
    "maximum": lambda a, b: Rounded(np.maximum(a.value, b.value), np.where(a.value > b.value, a.error, b.error)),
    "minimum": lambda a, b: Rounded(np.minimum(a.value, b.value), np.where(a.value < b.value, a.error, b.error)),
    "neg": lambda x: -x,
    "abs": lambda x: Rounded(np.abs(x.value), x.error),
    "reciprocal": lambda x: ONE / x,
    "sqrt": lambda x: x.monotone(lambda v: np.sqrt(np.maximum(v, 0)), 1.5),
    "rsqrt": lambda x: [ONE / _root(x), _root(ONE / x)],
    "exp": _exp,
    "log": _log,
    "log1p": lambda x: [_log(ONE + x), x.monotone(np.log1p, 1)],
    "expm1": lambda x: [_exp(x) - ONE, x.monotone(np.expm1, 1)],
    "sin": lambda x: x.steep(np.sin, 1.0, 1.5),
    "cos": lambda x: x.steep(np.cos, 1.0, 1.5),
    "erf": lambda x: x.monotone(_ERF, 2),
    "atan": lambda x: x.monotone(np.arctan, 2.6),
    "asinh": lambda x: x.monotone(np.arcsinh, 2.6),
    "pow": lambda x, c: x.monotone(lambda v: np.maximum(v, 0) ** c.value, 2),
    "sigmoid": _logistic,
    "tanh": _tanh,
    "relu": lambda x: x.monotone(lambda v: np.maximum(v, 0)),
    "clamp": lambda x, low, high: _clipped(x, low, high),
    "leaky_relu": lambda x, slope: _below(x, x * Rounded(slope)),
    "_prelu_kernel": lambda x, slope: _below(x, x * slope),
    "elu": lambda x, alpha: _below(x, (_exp(x) - ONE) * Rounded(alpha)),
    "celu": lambda x, alpha: _below(x, (_exp(x / Rounded(alpha)) - ONE) * Rounded(alpha)),
    "selu": lambda x: _below(x, (_exp(x) - ONE) * _number(1.6732632423543772)) * _number(1.0507009873554805),
    "gelu": lambda x: _raised(x, (x / _number(math.sqrt(2))).monotone(_ERF, 2)),
    "gelu tanh": lambda x: _raised(x, _bell(x)),
    "silu": lambda x: [x * _logistic(x), x / (ONE + _exp(-x))],
    "mish": lambda x: x * _tanh(_log(ONE + _exp(x))),
    "softplus": lambda x, beta: _log(ONE + _exp(x * Rounded(beta))) / Rounded(beta),
    "log_sigmoid": lambda x: [-_log(ONE + _exp(-x))],
    "hardsigmoid": lambda x: [
        _clipped(x * _number(1 / 6) + HALF, 0, 1),
        _clipped(x + Rounded(3.0), 0, 6) / Rounded(6.0),
    ],
    "hardswish": lambda x: [
        x * _clipped(x * _number(1 / 6) + HALF, 0, 1),
        x * _clipped(x + Rounded(3.0), 0, 6) / Rounded(6.0),
    ],
    "softmax": _softmax,
    "log_softmax": lambda x, axis: [
        (parts := _log_sum(x, axis))[0] - parts[1],
        x - (x.largest(axis) + parts[1]),
    ],
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "sum": lambda x, axis: x.sum(axis, keepdims=False),
    "mean": lambda x, axis: x.mean(axis)[x._at(axis, 0)],
    "cumsum": _running,
    "linalg_vector_norm": _norm,
    "var": _variance,
}
"""By the operator (gelu and div have a second row): value and error for its arguments, in each usual spelling."""


def spelt(name: str, *arguments: Any) -> list[Rounded]:
    """The spellings of an operator, evaluated."""
    with np.errstate(all="ignore"):
        found = TWINS[name](*arguments)
    return found if isinstance(found, list) else [found]
