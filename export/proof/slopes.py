"""How steep a function of one value is over an interval: between which limits its slope lies there.

By the mean value theorem f(z + d) - f(z) = s·d, where s lies between the smallest and the largest derivative of f
between z and z + d. At a kink those are not near each other: the derivative at z alone would be wrong there.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nextafter, sqrt

import torch
from torch import Tensor

from export.evaluation import evaluate, number
from export.graph import Node

from .rules.arithmetic import is_affine
from .rules.constants import U

Breaks = Callable[[Node], tuple[float, ...]]
_SLACK = 2.0**-20
"""Relative, for derivatives by PyTorch, of which some have float32 constants: hardsigmoid's 1/6 is off by 3e-8."""


def _at(*points: float) -> Breaks:
    return lambda _node: points


def _gelu(node: Node) -> tuple[float, ...]:
    steepest = sqrt(2) if node.attributes["approximate"] == "none" else 1.4185040087908284
    return -steepest, steepest


def _clamp(node: Node) -> tuple[float, ...]:
    return tuple(number(node, role) for role in ("min", "max") if node.attributes.get(role) is not None)


BREAKS: dict[str, Breaks] = {
    **dict.fromkeys(("exp", "expm1", "log_sigmoid", "softplus"), _at()),
    **dict.fromkeys(("relu", "leaky_relu", "_prelu_kernel", "abs", "elu", "celu", "selu"), _at(0.0)),
    **dict.fromkeys(("sigmoid", "tanh", "erf", "atan", "asinh"), _at(0.0)),
    **dict.fromkeys(("hardsigmoid", "hardswish"), _at(-3.0, 3.0)),
    "clamp": _clamp,
    "gelu": _gelu,
    "silu": _at(-2.3993572805154677, 2.3993572805154677),
    "mish": _at(-2.2563763963607931, 1.4905711794854594),
}
"""Where the derivative of each function jumps or turns: between two of these, and beyond, it is monotone.

Those of gelu, silu and mish are the zeros of the second derivative.
"""


def slopes(node: Node, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest slope of an affine operator, or one of ``BREAKS``, over each interval.

    A monotone derivative has its extremes at the ends, and each kink inside an interval counts from both sides.
    NaN where a softplus may jump at its threshold.
    """
    points = [low] if is_affine(node) else [low, high]
    for place in BREAKS[node.op](node) if node.op in BREAKS else ():
        points += [torch.full_like(low, nextafter(place, side)).clamp(low, high) for side in (-inf, inf)]
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [point.clone().requires_grad_() for point in points]
        total = torch.stack([evaluate(node, [each], precision=torch.float64).sum() for each in inputs]).sum()
        found = torch.stack(torch.autograd.grad(total, inputs))
    least, most = found.amin(dim=0), found.amax(dim=0)
    least, most = least - _SLACK * least.abs(), most + _SLACK * most.abs()
    if node.op == "softplus":
        beta, threshold = number(node, "beta"), number(node, "threshold")
        middle, half = beta * (low + high) / 2, abs(beta) * (high - low) / 2
        jumps = (middle - threshold).abs() <= 1.001 * half + 8 * U * abs(threshold)
        least, most = torch.where(jumps, torch.nan, least), torch.where(jumps, torch.nan, most)
    return least, most
