"""Linear bounds of a network's values by its inputs: a linear form of a value is carried back, layer by layer.

A matrix takes a form a·y to (a·A)·x and a constant. A function is replaced by a line above it where its coefficient is
positive, below it where it is negative (``lines``). Values of layers that pass nothing on are held at the ends of their
spans. At the inputs the form is largest at a corner of the box. It is CROWN's backward pass (Zhang et al., NeurIPS
2018) for any graph, with what float64 loses added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from export.proof.rules.spans import Span

from .enclosing import Enclosed, reshaped
from .lines import lines
from .transfer import Transfer


class Additions(Protocol):
    """What a layer adds to the form that is carried back, when it is reached."""

    def __call__(self, transfer: Transfer, /) -> tuple[Tensor, Tensor, Tensor] | None:
        """Coefficients of its value and of its first input, and a constant: (boxes, forms, …); None for nothing."""
        ...


@dataclass(frozen=True)
class Substitution:
    """Forms carried back through a network whose values are enclosed over boxes."""

    enclosed: Enclosed

    def largest(self, forms: Mapping[str, Tensor], additions: Additions | None = None) -> tuple[Tensor, Tensor]:
        """The largest that each form can be over each box: (boxes, forms), rounded up; and its corner of the box.

        ``forms`` are coefficients (boxes, forms, elements) of values, by name. The corner is (boxes, forms, features of
        all inputs): the coefficients of the inputs, whose signs say which end is worst.
        """
        spans = self.enclosed.spans
        pending = dict(forms)
        constant = torch.zeros((), dtype=torch.float64)
        absolute = torch.zeros((), dtype=torch.float64)
        terms = 64
        for transfer in reversed(self.enclosed.network.transfers):
            name, layer = transfer.layer.output, transfer.layer
            added = None if additions is None else additions(transfer)
            a = pending.pop(name, None)
            if added is not None:
                a = added[0] if a is None else a + added[0]
                constant = constant + added[2]
                absolute = absolute + added[2].abs()
            if a is None:
                continue
            terms = max(terms, 2 * transfer.terms)
            if transfer.kind == "none":
                held, size = _at_ends(a, spans[name])
                constant, absolute = constant + held, absolute + size
                continue
            if transfer.kind == "function":
                pieces, held, size = self._through_function(transfer, a)
            else:
                pieces, held, size = self._through_linear(transfer, a)
            constant, absolute = constant + held, absolute + size
            if added is not None:
                pieces[0] = pieces[0] + added[1]
            for source, piece in zip(layer.inputs, pieces, strict=True):
                pending[source] = pending[source] + piece if source in pending else piece
        corners: list[Tensor] = []
        for name in self.enclosed.network.structure.wiring.inputs:
            a = pending.pop(name, None)
            if a is not None:
                held, size = _at_ends(a, spans[name])
                constant, absolute = constant + held, absolute + size
                terms = max(terms, a.shape[-1])
            like = constant if a is None else a[..., 0]
            corners.append(torch.zeros(*like.shape, spans[name].low[0].numel()).double() if a is None else a)
        assert not pending, f"values that no layer gives: {list(pending)}"
        return constant + absolute * terms * 2.0**-50, torch.cat(corners, dim=-1)

    def _through_linear(self, transfer: Transfer, a: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        inputs = self.enclosed.inputs(transfer.layer)
        fixed = transfer.constant()
        sizes = transfer.errors_forward([span.largest for span in inputs]).reshape(len(a), -1) + fixed.abs()
        return transfer.backward(a), a @ fixed, _times(a.abs(), sizes)

    def _through_function(self, transfer: Transfer, a: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        (x,), name = self.enclosed.inputs(transfer.layer), transfer.layer.output
        y = reshaped(self.enclosed.spans[name], tuple(x.low.shape))
        known = self.enclosed.lines
        found = known[name] = known[name] if name in known else lines(transfer.node, x, y)
        upper, upper_offset, lower, lower_offset, size = (
            part.reshape(len(x.low), 1, -1)
            for part in (found.upper, found.upper_offset, found.lower, found.lower_offset, x.largest)
        )
        above, below = a.clamp(min=0), a.clamp(max=0)
        constant = (above * upper_offset + below * lower_offset).sum(dim=-1)
        lost = above * (upper.abs() * size + upper_offset.abs()) - below * (lower.abs() * size + lower_offset.abs())
        return [above * upper + below * lower], constant, lost.sum(dim=-1)

    def ends(self, name: str) -> tuple[Tensor, Tensor]:
        """The lowest and the highest of a value over each box: (boxes, elements)."""
        span = self.enclosed.spans[name]
        elements = span.low[0].numel()
        unit = torch.eye(elements, dtype=torch.float64).expand(self.enclosed.count, -1, -1)
        found, _ = self.largest({name: torch.cat([unit, -unit], dim=1)})
        return -found[:, elements:], found[:, :elements]


def _at_ends(a: Tensor, span: Span) -> tuple[Tensor, Tensor]:
    """The largest of a form within a span, and the sum of the sizes of its terms: (boxes, forms)."""
    low, high = (end.reshape(len(end), -1) for end in (span.low, span.high))
    return _times(a.clamp(min=0), high) + _times(a.clamp(max=0), low), _times(a.abs(), span.largest.reshape(low.shape))


def _times(a: Tensor, x: Tensor) -> Tensor:
    """Forms (boxes, forms, elements) at values (boxes, elements): (boxes, forms)."""
    return (a @ x[..., None])[..., 0]


Tightening = Callable[[Enclosed, str], tuple[Tensor, Tensor] | None]


def tightening(most: float) -> Tightening:
    """Tighter ends of values by substitution, as long as that takes at most so many products for one box in all."""
    left = [most]

    def tighten(enclosed: Enclosed, name: str) -> tuple[Tensor, Tensor] | None:
        before = enclosed.network.transfers[: len(enclosed.own)]
        if name not in enclosed.own:
            return None
        cost = _cost(enclosed.spans[name].low[0].numel(), before)
        if not 0 < cost <= left[0]:
            return None
        left[0] -= cost
        return Substitution(enclosed).ends(name)

    return tighten


def _cost(elements: int, before: Sequence[Transfer]) -> float:
    """Products for both ends of a value behind these layers; 0 behind one matrix, where intervals are as tight."""
    weights = [transfer.weight.size for transfer in before if transfer.kind == "matrix"]
    return 2.0 * elements * sum(weights) if len(weights) > 1 else 0.0
