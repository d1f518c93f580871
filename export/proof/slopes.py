"""How steep a function of one value is over an interval: between which limits its slope lies there.

By the mean value theorem f(z + d) - f(z) = s·d, where s lies between the smallest and the largest derivative of f
between z and z + d. At a kink those are not near each other: the derivative at z alone would be wrong there.
"""

from __future__ import annotations

from math import inf, nextafter

import torch
from torch import Tensor

from export.evaluation import evaluate, number
from export.graph import Node

from .rules import FUNCTIONS
from .rules.arithmetic import is_affine
from .rules.constants import U

_SLACK = 2.0**-20
"""Relative, for derivatives by PyTorch, of which some have float32 constants: hardsigmoid's 1/6 is off by 3e-8."""


def slopes(node: Node, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest slope of an affine operator, or one of ``FUNCTIONS``, over each interval.

    A monotone derivative has its extremes at the ends, and each kink inside an interval counts from both sides.
    NaN where a softplus may jump at its threshold, or an interval leaves the numbers that a function is defined for.
    """
    points = [low] if is_affine(node) else [low, high]
    function = FUNCTIONS.get(node.op)
    for place in () if function is None else function.breaks(node):
        points += [torch.full_like(low, nextafter(place, side)).clamp(low, high) for side in (-inf, inf)]
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [point.clone().requires_grad_() for point in points]
        total = torch.stack([evaluate(node, [each], precision=torch.float64).sum() for each in inputs]).sum()
        found = torch.stack(torch.autograd.grad(total, inputs))
    least, most = found.amin(dim=0), found.amax(dim=0)
    least, most = least - _SLACK * least.abs(), most + _SLACK * most.abs()
    if function is not None and function.above > -inf:
        outside = low <= function.above
        least, most = torch.where(outside, torch.nan, least), torch.where(outside, torch.nan, most)
    if node.op == "softplus":
        beta, threshold = number(node, "beta"), number(node, "threshold")
        middle, half = beta * (low + high) / 2, abs(beta) * (high - low) / 2
        jumps = (middle - threshold).abs() <= 1.001 * half + 8 * U * abs(threshold)
        least, most = torch.where(jumps, torch.nan, least), torch.where(jumps, torch.nan, most)
    return least, most
