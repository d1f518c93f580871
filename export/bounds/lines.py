"""Straight lines that a function of one value stays between, over intervals of its argument.

Each line is the function's own slope at one end, or that of its chord, moved up or down until it is beyond the function
(as in CROWN: Zhang et al., Efficient Neural Network Robustness Certification with General Activation Functions, NeurIPS
2018; for a ReLU the lines are the same). How far to move is found cell by cell: between two points a function is below
the two lines that start there with the largest and the smallest slope that it has between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node
from export.proof.rules import FUNCTIONS
from export.proof.rules.spans import OUTWARDS, SMALLEST, Span
from export.proof.slopes import slopes

_CELLS = 24
"""Of the interval of a curved function."""
_STRAIGHT = ("relu", "abs", "leaky_relu", "_prelu_kernel", "clamp", "hardsigmoid")
"""Functions that are straight between their breaks."""


@dataclass(frozen=True)
class Lines:
    """``slope·x + offset``, above and below a function: tensors like its argument."""

    upper: Tensor
    upper_offset: Tensor
    lower: Tensor
    lower_offset: Tensor


def lines(node: Node, x: Span, y: Span) -> Lines:
    """The lines for ``node``, an affine operator or one of ``FUNCTIONS``, with the result ``y`` for arguments ``x``.

    Where it has no finite slope they are the ends of ``y``.
    """
    cells = _cells(node, x)
    values = torch.stack([evaluate(node, [point], precision=torch.float64) for point in cells])
    width = x.high - x.low
    if node.op in FUNCTIONS:
        found = slopes(node, cells[:-1].flatten(0, 1), cells[1:].flatten(0, 1))
        least, most = (part.reshape(len(cells) - 1, *x.low.shape) for part in found)
    else:  # an affine operator is its chord
        least = most = (values[1:] - values[:-1]) / torch.where(width > 0, width, 1.0)
    known = (least.isfinite() & most.isfinite()).all(dim=0) & values.isfinite().all(dim=0)
    least, most, values = (torch.where(known, part, 0.0) for part in (least, most, values))
    chord = torch.where(width > 0, (values[-1] - values[0]) / torch.where(width > 0, width, 1.0), least[0])
    candidates = [chord, (least[0] + most[0]) / 2, (least[-1] + most[-1]) / 2]
    function = FUNCTIONS.get(node.op)
    lost = 0.0 if function is None else 4 * function.lost(node, x.largest)
    offsets_of = [_offsets(slope, cells, values, least, most, lost) for slope in candidates]
    middle = x.middle
    above = torch.stack([slope * middle + offset for slope, (_, offset) in zip(candidates, offsets_of, strict=True)])
    below = torch.stack([slope * middle + offset for slope, (offset, _) in zip(candidates, offsets_of, strict=True)])
    slopes_, offsets = torch.stack(candidates), torch.stack([torch.stack(pair) for pair in offsets_of])

    def chosen(parts: Tensor, index: Tensor) -> Tensor:
        return parts.gather(0, index[None])[0]

    top, bottom = above.argmin(dim=0), below.argmax(dim=0)
    zero = torch.zeros_like(middle)
    return Lines(
        upper=torch.where(known, chosen(slopes_, top), zero),
        upper_offset=torch.where(known, chosen(offsets[:, 1], top), y.high),
        lower=torch.where(known, chosen(slopes_, bottom), zero),
        lower_offset=torch.where(known, chosen(offsets[:, 0], bottom), y.low),
    )


def _cells(node: Node, x: Span) -> Tensor:
    """Points from the lower to the upper end, in order: (points, ...)."""
    function = FUNCTIONS.get(node.op)
    if function is None:
        return torch.stack([x.low, x.high])
    points = [x.low, x.high]
    places = [*function.breaks(node), *function.turns(node)]
    points += [torch.full_like(x.low, place).clamp(x.low, x.high) for place in places]
    if node.op not in _STRAIGHT:
        points += [x.low + (x.high - x.low) * (k / _CELLS) for k in range(1, _CELLS)]
    return torch.stack(points).sort(dim=0).values.clamp(x.low, x.high)


def _offsets(
    slope: Tensor, cells: Tensor, values: Tensor, least: Tensor, most: Tensor, lost: Tensor | float
) -> tuple[Tensor, Tensor]:
    """How low and how high f(x) - slope·x can be: within each cell, between lines from its two ends."""
    rest = values - slope * cells
    start, end, width = rest[:-1], rest[1:], cells[1:] - cells[:-1]
    falling, rising = least - slope, most - slope
    spread = (rising - falling).clamp(min=2.0**-1000)
    # Up from the start and down to the end, or down from the start and up to the end.
    peak = start + rising * ((end - start - falling * width) / spread).clamp(min=0).minimum(width)
    dip = start + falling * ((rising * width - end + start) / spread).clamp(min=0).minimum(width)
    high = torch.where((rising > 0) & (falling < 0), torch.maximum(peak, torch.maximum(start, end)), start.maximum(end))
    low = torch.where((rising > 0) & (falling < 0), torch.minimum(dip, torch.minimum(start, end)), start.minimum(end))
    size = (values.abs() + slope.abs() * cells.abs()).amax(dim=0)
    lost = lost + 4 * OUTWARDS * size + SMALLEST
    return low.amin(dim=0) - lost, high.amax(dim=0) + lost
