"""The spans of all values of a network over boxes of its inputs, layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Rows, Shape
from export.proof.layer import Layer
from export.proof.rows import sized
from export.proof.rules import ENCLOSURES, RULES
from export.proof.rules.constants import LARGEST, U
from export.proof.rules.spans import OUTWARDS, Span, outwards
from export.proof.structure import Structure

from .layer_errors import errors_of
from .lines import Lines
from .transfer import Transfer

_WHOLE = 2.0**24
"""float32 holds every integer up to here."""
_ANY_CAUSE = "float32 may overflow or cancel on its way"
_CAUSES = {
    **dict.fromkeys(("layer_norm", "rms_norm", "var"), "the variance of a row may be lost in rounding"),
    **dict.fromkeys(("div", "reciprocal", "rsqrt"), "its divisor may be 0 for a runtime"),
    "pow": "its base may be 0 or negative for a runtime",
    **dict.fromkeys(("embedding", "gather", "index_select"), "a runtime may take another index"),
}
"""Why the rule of an operator has no bound, other than by an overflow."""


class NoBoundError(Exception):
    """There is no bound over a box: the message names the layer, and says what happens there."""


@dataclass(frozen=True)
class Network:
    """The layers of a file, each as the file holds it, with the file's names of values."""

    structure: Structure
    transfers: tuple[Transfer, ...]

    @classmethod
    def of(cls, structure: Structure) -> Network:
        """The network of a file whose operators were all matched.

        Raises NoBoundError: its rows depend on each other, or an operator has no enclosure.
        """
        if structure.graph.rows_depend:
            raise NoBoundError("a row's result depends on the rows beside it, and a box is of one row")
        odd = next((layer for layer in structure.layers if not all(map(_is_batch_first, _shapes(layer)))), None)
        if odd is not None:
            raise NoBoundError(f"'{odd.path}': {odd.expected.op} has the batch in another place than in front")
        alone = [replace(layer, source_nodes=(layer.expected,)) for layer in structure.layers]
        for layer in alone:
            if layer.expected.op not in ENCLOSURES:
                raise NoBoundError(f"'{layer.path}': no rule encloses {layer.expected.op} over a box")
        return cls(structure, tuple(map(Transfer, alone)))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Each with only the node that the file holds."""
        return tuple(transfer.layer for transfer in self.transfers)


def _shapes(layer: Layer) -> tuple[Shape, ...]:
    return (*layer.input_shapes, layer.expected.shape)


def _is_batch_first(shape: Shape) -> bool:
    """Whether a value has its boxes, or several parts of each, in front."""
    return [isinstance(size, Rows) for size in shape] == [True, *[False] * (len(shape) - 1)]


Tighten = Callable[["Enclosed", str], tuple[Tensor, Tensor] | None]
"""Other ends of a value that is enclosed already, for the layers after it; None where there are no better ones."""


@dataclass
class Enclosed:
    """What is known of a network's values over ``count`` boxes: their spans, and what each layer's roundings add.

    ``moved`` is what errors of a layer's inputs become, of layers that pass them on; ``slopes`` those of functions, at
    arguments that a runtime may have.
    """

    network: Network
    count: int
    spans: dict[str, Span]
    own: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    slopes: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict[str, tuple[Tensor, Tensor]])
    lines: dict[str, Lines] = field(default_factory=dict[str, Lines])
    """Above and below functions, as they were needed."""
    passes_on: dict[str, bool] = field(default_factory=dict[str, bool])
    """Whether errors of a layer's inputs are passed on as ``Transfer`` says; else they are part of its ``own``."""

    def inputs(self, layer: Layer) -> list[Span]:
        """The spans that a layer reads, in the shapes in which it does."""
        shapes = [sized(shape, self.count) for shape in layer.input_shapes]
        return [reshaped(self.spans[name], shape) for name, shape in zip(layer.inputs, shapes, strict=True)]


def reshaped(span: Span, shape: tuple[int, ...]) -> Span:
    """The same values in another shape."""
    low, high = span.low.reshape(shape), span.high.reshape(shape)
    return Span(low, high, None if span.radius is None else span.radius.expand(span.low.shape).reshape(shape))


def enclose(network: Network, boxes: Mapping[str, Span], tighten: Tighten | None = None) -> Enclosed:
    """The spans of all values over boxes of the inputs, by the file's names of values; (boxes, *row) each.

    ``tighten`` may narrow the argument of a curved function before it is applied.
    Raises NoBoundError: at a layer that may overflow or divide by zero, for example.
    """
    count = len(next(iter(boxes.values())).low)
    enclosed = Enclosed(network, count, dict(boxes))
    with torch.no_grad():
        for transfer in network.transfers:
            if tighten is not None and _is_curved(transfer):
                _narrow(enclosed, transfer.layer.inputs[0], tighten)
            _step(enclosed, transfer)
        if tighten is not None:
            for value in dict.fromkeys(network.structure.values.values()):
                _narrow(enclosed, value, tighten)
    return enclosed


def _is_curved(transfer: Transfer) -> bool:
    """Whether narrower arguments make the lines of its function better."""
    return transfer.kind == "function" and not transfer.is_affine


def _narrow(enclosed: Enclosed, name: str, tighten: Tighten) -> None:
    found, span = tighten(enclosed, name), enclosed.spans[name]
    if found is not None:
        low, high = (end.reshape(span.low.shape) for end in found)
        # Both enclose the value, so both ends may be taken, and they cannot cross but for rounding.
        low, high = torch.maximum(span.low, low), torch.minimum(span.high, high)
        enclosed.spans[name] = Span(torch.minimum(low, high), torch.maximum(low, high), span.radius)


def _step(enclosed: Enclosed, transfer: Transfer) -> None:
    """Add the span of a layer's value."""
    layer, node = transfer.layer, transfer.node
    if not layer.inputs:  # a constant, as many times as there are rows
        value = evaluate(node, [], precision=torch.float64, rows=enclosed.count)
        own = RULES[node.op](node, [], [], value).expand(value.shape)
        enclosed.own[layer.output], enclosed.passes_on[layer.output] = own, False
        low, high = outwards(value, value) if value.is_floating_point() else (value.double(), value.double())
        enclosed.spans[layer.output] = Span(low, high, own if bool((own > 0).any()) else None)
        return
    spans = [_as_float32(span, layer, index) for index, span in enumerate(enclosed.inputs(layer))]
    low, high = ENCLOSURES[node.op].values(node, spans)
    shape = sized(node.shape, enclosed.count)
    y = Span(low.expand(shape), high.expand(shape))
    if not bool((low.isfinite() & high.isfinite()).all()):
        raise NoBoundError(_why_infinite(layer, spans))
    found = errors_of(transfer, spans, y)
    own, radius = found.own, found.radius
    enclosed.passes_on[layer.output] = found.passes_on
    if found.slopes is not None:
        enclosed.slopes[layer.output] = found.slopes
    unknown = ~(own + radius).isfinite()
    overflows = ~unknown & (y.largest + radius > LARGEST) & (node.dtype == "float32")
    if bool((unknown | overflows).any()):
        raise NoBoundError(_why_unbounded(layer, spans, not bool(unknown.any())))
    enclosed.own[layer.output] = own * (1 + OUTWARDS)
    exact = not bool((radius > 0).any())
    enclosed.spans[layer.output] = Span(y.low, y.high, None if exact else radius * (1 + OUTWARDS))


def _as_float32(span: Span, layer: Layer, index: int) -> Span:
    """Integers that a float32 kernel gets: the nearest float32."""
    if layer.expected.dtype != "float32" or layer.input_dtypes[index] != "int64":
        return span
    beyond = span.largest > _WHOLE
    return replace(span, radius=span.error + torch.where(beyond, U * span.largest, 0.0)) if beyond.any() else span


def _why_infinite(layer: Layer, spans: list[Span]) -> str:
    ends = " and ".join(_interval(span) for span in spans)
    return f"'{layer.path}': {layer.expected.op} has no finite value for every number in {ends}"


def _why_unbounded(layer: Layer, spans: list[Span], overflows: bool) -> str:
    op, ends = layer.expected.op, " and ".join(_interval(span) for span in spans)
    why = "may overflow float32" if overflows else f"has no bound, since {_CAUSES.get(op, _ANY_CAUSE)},"
    return f"'{layer.path}': {op} {why} for numbers in {ends}"


def _interval(span: Span) -> str:
    return f"{float(span.low.min()):.3g} to {float(span.high.max()):.3g}"
