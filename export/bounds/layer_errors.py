"""How far a layer's value may be from the exact one over boxes, from the spans of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from export.onnxfile.pattern_matching import attribute
from export.proof.layer import Layer
from export.proof.own_roundings import own_roundings
from export.proof.rules import ENCLOSURES
from export.proof.rules.arithmetic import magnitude
from export.proof.rules.constants import LARGEST, U
from export.proof.rules.spans import OUTWARDS, Span
from export.proof.slopes import slopes

from .transfer import Transfer

_SATURATED = 4
"""How many times further than its results can be from each other a function must move an error not to pass it on."""
Slopes = tuple[Tensor, Tensor]
"""The smallest and the largest."""


@dataclass(frozen=True)
class LayerErrors:
    """``radius`` of a layer's value, and what of it is the layer's ``own``.

    The rest is what it makes of its inputs' errors, which a layer that ``passes_on`` does as ``Transfer`` says; a
    function with these ``slopes``.
    """

    own: Tensor
    radius: Tensor
    passes_on: bool
    slopes: Slopes | None = None


def errors_of(transfer: Transfer, spans: list[Span], y: Span) -> LayerErrors:
    """The errors of a layer whose exact values are in ``y``; infinite where there is no bound."""
    layer, rule = transfer.layer, ENCLOSURES[transfer.node.op].radius
    whole = None if rule is None else rule(transfer.node, spans, y).expand(y.low.shape)
    if transfer.kind in ("matrix", "sum"):
        moved, steep = transfer.errors_forward([span.error for span in spans]), None
    elif transfer.kind == "function":
        moved, steep = _moved(layer, spans)
        if whole is not None and not bool(moved.isfinite().all()):  # the rule knows more than the slopes
            return _alone(layer, spans, y, whole)
    else:
        return _alone(layer, spans, y, whole if whole is not None else _by_slopes(layer, spans, y))
    apart = torch.full_like(moved, torch.inf)
    if steep is not None and not transfer.is_affine and not _is_within(moved, y):
        apart = _apart(y, _reached(layer, spans, y)[1])
    own = _own(layer, spans, y.largest + torch.minimum(moved, apart))
    if steep is not None and bool((lost := apart < moved / _SATURATED).any()):
        # Results are nearer to each other than the slopes say: what comes in is not passed on, all of it is the own.
        steep = torch.where(lost, 0.0, steep[0]), torch.where(lost, 0.0, steep[1])
        moved, own = torch.where(lost, 0.0, moved), torch.where(lost, apart + own, own)
    radius = moved + own
    if whole is not None:  # infinite where float32 may overflow on the way
        radius, own = torch.minimum(radius, whole), torch.where(whole.isinf(), torch.inf, own)
    return LayerErrors(own, radius, True, steep)


def _alone(layer: Layer, spans: list[Span], y: Span, whole: Tensor) -> LayerErrors:
    """Of a layer that passes nothing on: its rule, but no more than its results are apart, and its own roundings.

    A softmax, for one, cannot be off by more than 1 and its own.
    """
    if not _is_within(whole, y):
        wide, other = _reached(layer, spans, y)
        rule = ENCLOSURES[layer.expected.op].radius
        own = _by_slopes(layer, wide, other) if rule is None else rule(layer.expected, wide, other).expand(y.low.shape)
        whole = torch.minimum(whole, _apart(y, other) + own)
    return LayerErrors(whole, whole, False)


def _moved(layer: Layer, spans: list[Span]) -> tuple[Tensor, Slopes]:
    """What an error of its input becomes by a function's slopes, and these; infinite where they are not known."""
    wide = spans[0].widened
    least, most = slopes(layer.expected, wide.low, wide.high)
    known = least.isfinite() & most.isfinite()
    return torch.where(known, torch.maximum(least.abs(), most.abs()) * spans[0].error, torch.inf), (least, most)


def _by_slopes(layer: Layer, spans: list[Span], y: Span) -> Tensor:
    """The radius of a function that passes nothing on, such as one of whole numbers."""
    moved = torch.where(spans[0].error > 0, _moved(layer, spans)[0], 0.0)
    return moved + _own(layer, spans, y.largest + moved)


def _is_within(radius: Tensor, y: Span) -> bool:
    """Whether a radius is nowhere larger than the distances between the exact values."""
    return not bool((radius > y.high - y.low).any())


def _reached(layer: Layer, spans: list[Span], y: Span) -> tuple[list[Span], Span]:
    """The arguments that a runtime may have, as exact ones, and the exact results for them."""
    wide: list[Span] = []
    for span in spans:
        beside = torch.where(span.error > 0, span.error + OUTWARDS * (span.largest + span.error), 0.0)
        wide.append(Span(span.low - beside, span.high + beside))
    low, high = ENCLOSURES[layer.expected.op].values(layer.expected, wide)
    return wide, Span(low.expand(y.low.shape), high.expand(y.low.shape))


def _apart(y: Span, other: Span) -> Tensor:
    """How far any value of one span is from any of the other."""
    return torch.maximum(other.high - y.low, y.high - other.low).nan_to_num(torch.inf, torch.inf) * (1 + OUTWARDS)


def _own(layer: Layer, spans: list[Span], largest: Tensor) -> Tensor:
    """What the layer's own roundings add at most, at arguments that a runtime may have."""
    own = own_roundings(layer, [s.middle for s in spans], [s.half + s.error for s in spans], largest)
    factor = attribute(layer.nodes[0], "alpha", 1.0) if layer.expected.op == "linear" and layer.nodes else 1.0
    if factor != 1:  # a Gemm sums before it multiplies: one rounding more, and its sums may overflow first
        reach = spans[0].largest + spans[0].error
        terms = magnitude(layer.expected, reach)
        own = own + U * terms * (1 + 2.0**-10)
        own = torch.where(terms / abs(factor) > LARGEST, torch.inf, own)
    return own
