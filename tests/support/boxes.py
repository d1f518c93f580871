"""Boxes of inputs for operators, points in them, and what encloses their values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node
from export.proof.rules import ENCLOSURES, RULES
from export.proof.rules.common import Radius
from export.proof.rules.constants import ETA
from export.proof.rules.spans import Span
from tests.support.operator_cases import ROWS, Case, drawn, every_scale


def span(low: float, high: float, e: float | None = None, shape: tuple[int, ...] = (1, 6)) -> Span:
    """The same interval, and the same radius, everywhere."""
    first, last = (torch.full(shape, end, dtype=torch.float64) for end in (low, high))
    return Span(first, last, None if e is None else torch.full(shape, e, dtype=torch.float64))


def spans_of(one: Case, seed: int, width: float, scale: float | None = None) -> list[Span]:
    """Boxes around drawn inputs, with ends at 0 and single values among them; ``scale`` is that of numbers' radii."""
    rng = np.random.default_rng(seed)
    found: list[Span] = []
    for kind, values in zip(one.kinds, drawn(one, seed), strict=True):
        z = values.astype(np.float64)
        below, above = (width * rng.random(z.shape) * (rng.random(z.shape) < 0.8) for _ in range(2))
        low, high = z - below, z + above
        if kind == "bool":
            low, high = (low > 0.5).astype(float), (high > 0.5).astype(float) if width else z
            low, high = np.minimum(low, z) if width else z, np.maximum(high, z)
        elif isinstance(kind, int):
            low, high = np.clip(np.round(low), 0, kind - 1), np.clip(np.round(high), 0, kind - 1)
        elif kind == "positive":
            low = np.maximum(low, np.minimum(z, 1e-3))
        elif kind == "away":
            low, high = np.where(z > 0, np.maximum(low, 1.0), low), np.where(z < 0, np.minimum(high, -1.0), high)
        elif width:
            edge = rng.random(z.shape) < 0.1
            low, high = np.where(edge & (z > 0), 0.0, low), np.where(edge & (z < 0), 0.0, high)
        is_number = isinstance(kind, str) and kind != "bool"
        e = None if scale is None or not is_number else torch.from_numpy(scale * rng.random(z.shape))
        found.append(Span(torch.from_numpy(low), torch.from_numpy(high), e))
    return found


def points_in(one: Case, spans: Sequence[Span], rng: np.random.Generator) -> list[Tensor]:
    """A point of each box: ends, the middle, or anything between them, each in the type of its input."""
    found: list[Tensor] = []
    for kind, span in zip(one.kinds, spans, strict=True):
        share = rng.random(span.low.shape)
        if rng.random() < 0.5:
            share = np.where(rng.random(share.shape) < 0.8, np.round(share), share)
        z = (span.low + torch.from_numpy(share) * (span.high - span.low)).clamp(span.low, span.high)
        if kind == "bool":
            found.append(z > 0.5)
        else:
            found.append(z.round().long() if isinstance(kind, int) else z)
    return found


def exact(node: Node, z: Sequence[Tensor]) -> Tensor:
    return evaluate(node, z, precision=torch.float64, rows=ROWS).double()


def enclosed(node: Node, spans: Sequence[Span]) -> Span:
    low, high = ENCLOSURES[node.op].values(node, spans)
    assert low.dtype == high.dtype == torch.float64
    assert not (low.isnan() | high.isnan()).any()
    assert (low <= high).all()
    return Span(low, high)


def radius_over(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    of = ENCLOSURES[node.op].radius
    assert of is not None
    radius = of(node, spans, y)
    assert radius.shape == y.low.shape
    assert radius.dtype == torch.float64
    assert not radius.isnan().any()
    assert (radius >= 0).all()
    return radius


_MOVED_FIRST = ("layer_norm", "rms_norm")
"""Their enclosures take apart what an error of the input moves, and what is rounded at the input that results."""


def radius_at(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor, rng: np.random.Generator) -> Tensor:
    """How far the rule lets a result be from y at a point; for some input within e, where that is ``_MOVED_FIRST``."""
    if node.op not in _MOVED_FIRST or e[0] is None:
        return RULES[node.op](node, z, e, y)
    direction = torch.from_numpy(rng.choice([-1.0, 0.0, 1.0], z[0].shape))
    moved = z[0] + direction * e[0]
    value = exact(node, [moved])
    return RULES[node.op](node, [moved], [None], value) + (value - y).abs()


def scaled(one: Case, seed: int, width: float, e: float | None) -> list[Span]:
    """Boxes around inputs of every scale of float32, as wide as a share of each number; the rest single values."""
    rng, found = np.random.default_rng(seed), list[Span]()
    for kind, values in zip(one.kinds, every_scale(one, seed), strict=True):
        z = torch.from_numpy(values.astype(np.float64))
        below, above, radius = (torch.from_numpy(rng.random(z.shape)) * z.abs() for _ in range(3))
        fixed = kind == "bool" or isinstance(kind, int)
        found.append(
            Span(z, z) if fixed else Span(z - width * below, z + width * above, None if e is None else e * radius)
        )
    return found


def check_box(one: Case, spans: Sequence[Span], rng: np.random.Generator) -> None:
    """Points of a box have their values, and the rule's radii, within what encloses them."""
    y = enclosed(one.node, spans)
    for _ in range(8):
        z = points_in(one, spans, rng)
        value = exact(one.node, z)
        within = (y.low <= value) & (value <= y.high)
        assert (within | (value.isnan() & (y.low.isinf() | y.high.isinf()))).all()
        if ENCLOSURES[one.node.op].radius is None:
            continue
        own = radius_at(one.node, z, [span.radius for span in spans], value, rng)
        if one.node.op == "pow":  # says more of a denormal base than the rule, which exempts it
            own = torch.where(own.isinf() & (z[0].abs() < ETA), 0.0, own)
        assert (own <= radius_over(one.node, spans, y) * (1 + 2.0**-22)).all()
