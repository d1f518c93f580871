"""How far the outputs of a float32 runtime may be from the exact ones, anywhere in a box.

Let d be the error of a value. A layer takes it to S·d + r: r is what its own roundings add, and S its slope between the
exact argument and the runtime's (its matrix; for a function some number between its smallest and largest slope over
the arguments that a runtime may have, by the mean value theorem). So the error of an output is the sum over all layers
of J·r, J the product of the slopes behind the layer. Three bounds follow:

    carried         each layer's |S|·|d| + r, layer after layer
    sensitivities   the sum over layers of sup|J|·sup r: J as an interval, by interval products from the output back
    at once         the sum over layers of sup|J|·r(x), its largest over the box: r is largest at other rows for each
                    layer. That of an inner product grows with the sizes of its terms and its result, which linear
                    forms of the layers' values are above; all of them are carried back together (``substitution``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from export.graph import Node
from export.proof.rules.arithmetic import roundings
from export.proof.rules.constants import ETA, U
from export.proof.rules.spans import OUTWARDS, Span

from .enclosing import Enclosed, Network
from .substitution import Substitution
from .transfer import Transfer

_SLACK = 1 + 2.0**-30
"""For what float64 loses in interval products and sums of positive numbers."""


@dataclass(frozen=True)
class OutputErrors:
    """Bounds of all outputs side by side over each box: (boxes, values), and how they come about."""

    carried: Tensor
    sensitivities: Tensor
    at_once: Tensor
    weights: dict[str, Tensor]
    """sup|J| of each value: (boxes, values, elements)."""
    shares: dict[str, Tensor]
    """By the layer's value: its part of ``sensitivities``."""
    corner: Tensor
    """(boxes, values, features): coefficients of the inputs in the last form; their signs say which end is worst."""
    unevenness: Tensor
    """(boxes, features): how much the slopes of the outputs by each feature vary over the box, times its width."""

    @property
    def bound(self) -> Tensor:
        """The smallest of the three."""
        return torch.minimum(self.carried, torch.minimum(self.sensitivities, self.at_once))


def output_errors(enclosed: Enclosed, most: float = inf) -> OutputErrors:
    """The bounds of the outputs of a network whose values are enclosed.

    Only the first, where the others take more than so many products.
    """
    network = enclosed.network
    with torch.no_grad():
        carried = torch.cat(
            [enclosed.spans[name].error.reshape(enclosed.count, -1) for name in outputs_of(network)], dim=1
        )
        weights = sum(transfer.weight.size for transfer in network.transfers if transfer.kind == "matrix")
        if 5 * carried.numel() * weights > most:  # twice for the slopes, once for their sizes, twice for all at once
            features = sum(part[0].numel() for part in _inputs(enclosed))
            unknown, nothing = torch.full_like(carried, inf), torch.zeros(*carried.shape, features).double()
            return OutputErrors(carried, unknown, unknown, {}, {}, nothing, nothing[:, 0])
        found = _Sensitivities(enclosed)
        found.run()
        own = _flat(enclosed)
        shares = {name: (part * found.weights[name]).sum(dim=-1) for name, part in own.items() if name in found.weights}
        total = sum(shares.values(), torch.zeros_like(carried))
        at_once, corner = _AtOnce(enclosed, found.weights, own).largest()
    return OutputErrors(
        carried=carried,
        sensitivities=total * _SLACK,
        weights=found.weights,
        at_once=at_once,
        shares=shares,
        corner=corner,
        unevenness=found.unevenness,
    )


def _inputs(enclosed: Enclosed) -> list[Tensor]:
    """The lower ends of the inputs."""
    return [enclosed.spans[name].low for name in enclosed.network.structure.wiring.inputs]


def outputs_of(network: Network) -> list[str]:
    """The values that the outputs are, in the outputs' order."""
    structure = network.structure
    return [structure.values[name] for name in structure.wiring.outputs]


def _flat(enclosed: Enclosed) -> dict[str, Tensor]:
    """What each value's own roundings add: (boxes, 1, elements)."""
    inputs = {
        name: enclosed.spans[name].error
        for name in enclosed.network.structure.wiring.inputs
        if enclosed.spans[name].radius is not None
    }
    return {name: own.reshape(len(own), 1, -1) for name, own in (inputs | enclosed.own).items()}


class _Sensitivities:
    """The largest |J| of every value: ``weights`` (boxes, outputs, elements) by name."""

    def __init__(self, enclosed: Enclosed):
        self.enclosed = enclosed
        self.weights: dict[str, Tensor] = {}
        self.unevenness = torch.zeros(enclosed.count, 0)

    def run(self) -> None:
        enclosed = self.enclosed
        pending = self._outputs()
        for transfer in reversed(enclosed.network.transfers):
            name = transfer.layer.output
            if (pair := pending.pop(name, None)) is None:
                continue
            middle, half = pair
            self.weights[name] = (middle.abs() + half) * (1 + OUTWARDS)
            if not enclosed.passes_on[name]:
                continue
            for source, piece in zip(transfer.layer.inputs, self._back(transfer, middle, half), strict=True):
                known = pending.get(source)
                pending[source] = piece if known is None else (known[0] + piece[0], known[1] + piece[1])
        widths = list[Tensor]()
        for name in enclosed.network.structure.wiring.inputs:
            span = enclosed.spans[name]
            width = (span.high - span.low).reshape(enclosed.count, -1)
            if (pair := pending.pop(name, None)) is not None:
                self.weights[name] = (pair[0].abs() + pair[1]) * (1 + OUTWARDS)
                widths.append(pair[1].amax(dim=1) * width)
            else:
                widths.append(torch.zeros_like(width))
        self.unevenness = torch.cat(widths, dim=1)

    def _outputs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Each output's value, and 1 for itself."""
        enclosed = self.enclosed
        names = outputs_of(enclosed.network)
        sizes = [enclosed.spans[name].low[0].numel() for name in names]
        unit = torch.split(torch.eye(sum(sizes), dtype=torch.float64), sizes, dim=1)
        pending: dict[str, tuple[Tensor, Tensor]] = {}
        for name, part in zip(names, unit, strict=True):
            middle = part.expand(enclosed.count, -1, -1)
            before = pending.get(name)
            pending[name] = (middle if before is None else before[0] + middle, torch.zeros_like(middle))
        return pending

    def _back(self, transfer: Transfer, middle: Tensor, half: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The intervals of J of a layer's inputs."""
        if transfer.kind == "function":
            least, most = (part.reshape(len(part), 1, -1) for part in self.enclosed.slopes[transfer.layer.output])
            low, high = middle - half, middle + half
            corners = torch.stack([low * least, low * most, high * least, high * most])
            low, high = corners.amin(dim=0), corners.amax(dim=0)
            centre = (low + high) / 2
            return [(centre, torch.maximum(high - centre, centre - low) * (1 + OUTWARDS) + OUTWARDS * centre.abs())]
        lost = transfer.terms * 2.0**-51
        inner = half + lost * (middle.abs() + half)
        return [
            *zip(transfer.backward(middle), transfer.backward(inner, absolute=True), strict=True),
        ]


@dataclass(frozen=True)
class _AtOnce:
    """The sum of what all layers add, as one form of the layers' values: see ``own_roundings`` for an inner product."""

    enclosed: Enclosed
    weights: dict[str, Tensor]
    own: dict[str, Tensor]

    def largest(self) -> tuple[Tensor, Tensor]:
        """(boxes, outputs), and the corner."""
        enclosed = self.enclosed
        readers = _readers(enclosed.network)
        constant = torch.zeros((), dtype=torch.float64)
        for name in enclosed.network.structure.wiring.inputs:
            if name in self.weights and enclosed.spans[name].radius is not None:
                constant = constant + (self.weights[name] * self.own[name]).sum(dim=-1)

        def additions(transfer: Transfer) -> tuple[Tensor, Tensor, Tensor] | None:
            weight = self.weights.get(transfer.layer.output)
            if weight is None:
                return None
            if transfer.kind == "matrix" and _plain(transfer):
                return self._inner_product(transfer, weight, readers.get(transfer.layer.output, []))
            own = self.own[transfer.layer.output]
            zero = torch.zeros_like(weight)
            return zero, torch.zeros((), dtype=torch.float64), (weight * own).sum(dim=-1)

        found, corner = Substitution(enclosed).largest({}, additions)
        return (found + constant) * _SLACK, corner

    def _inner_product(self, transfer: Transfer, weight: Tensor, readers: list[Node]) -> tuple[Tensor, Tensor, Tensor]:
        """U·T + (k - 1)·U·((T + |y|)/2 + γ_k·T) with T = Σ|w·x| + |b| as forms of x and y.

        Where only a function reads y that is 0 below 0, an error of a negative y is lost: y counts for |y|.
        """
        enclosed, node, y = self.enclosed, transfer.node, self.enclosed.spans[transfer.layer.output]
        (x,) = enclosed.inputs(transfer.layer)
        reach = x.largest + x.error
        n = transfer.weight.shape[-1]
        k = (reach > 0).sum(dim=-1, keepdim=True).double() + (roundings(node) - n)
        g = k * U / (1 - k * U)
        sums = (k - 1).clamp(min=0) * U
        of_terms, of_result = U + sums * (0.5 + g), sums / 2
        x_slope, x_offset = _absolute(x)
        if readers and all(_is_zero_below(reader) for reader in readers):
            y_slope, y_offset = _positive(y)
        else:
            y_slope, y_offset = _absolute(y)
        share = weight * of_terms[:, None]
        bias = transfer.constant().abs()
        back = transfer.backward(share, absolute=True)[0]
        moved = transfer.errors_forward([x.error])
        lost = (n + 1) * ETA * (1 + reach.sum(dim=-1, keepdim=True))
        fixed = share * bias + weight * (of_result * (y_offset + moved + y.error) + lost)[:, None]
        constant = fixed.sum(dim=-1) + (back * (x_offset + x.error)[:, None]).sum(dim=-1)
        return weight * (of_result * y_slope)[:, None], back * x_slope[:, None], constant


def _plain(transfer: Transfer) -> bool:
    """Whether a matrix is applied to whole rows, and a Gemm has no factor of its own."""
    layer = transfer.layer
    factor = next((a.f for node in layer.nodes for a in node.attribute if a.name == "alpha"), 1.0)
    return len(layer.input_shapes[0]) == 2 and factor == 1


def _readers(network: Network) -> dict[str, list[Node]]:
    """The operators that read each value; an output is read by nobody that is known, so it has none."""
    found: dict[str, list[Node]] = {}
    for transfer in network.transfers:
        for name in transfer.layer.inputs:
            found.setdefault(name, []).append(transfer.node)
    return {name: nodes for name, nodes in found.items() if name not in outputs_of(network)}


def _is_zero_below(node: Node) -> bool:
    return node.op == "relu" or (node.op == "clamp" and node.attributes.get("min") == 0)


def _absolute(x: Span) -> tuple[Tensor, Tensor]:
    """A line above |x|: slope and offset."""
    return _chord(x, x.low.abs(), x.high.abs())


def _positive(x: Span) -> tuple[Tensor, Tensor]:
    """A line above max(x, 0)."""
    return _chord(x, x.low.clamp(min=0), x.high.clamp(min=0))


def _chord(x: Span, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """The chord of a convex function between its values at the ends, raised by what float64 loses."""
    width = x.high - x.low
    slope = torch.where(width > 0, (last - first) / torch.where(width > 0, width, 1.0), 0.0)
    offset = torch.maximum(first - slope * x.low, last - slope * x.high)
    return slope, offset + OUTWARDS * (first.abs() + last.abs() + slope.abs() * x.largest)
