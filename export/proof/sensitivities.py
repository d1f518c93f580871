"""How the outputs of a network change with the values of its layers, on given rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .layer_bounds import Step, Value, compute
from .rows import by_row
from .rules.common import Radius
from .structure import Layer

Own = Callable[[Layer, Sequence[Tensor], Tensor], Tensor]
"""What a layer's own roundings may add, from its exact inputs and value."""


@dataclass
class Sensitivities:
    """The layers of a network that give floating-point numbers, with their inputs and roundings, on ``count`` rows."""

    count: int
    own: Own
    layers: list[Layer] = field(default_factory=list[Layer])
    inputs: list[Sequence[Tensor]] = field(default_factory=list[Sequence[Tensor]])
    roundings: list[Tensor] = field(default_factory=list[Tensor])
    _shifts: list[Tensor] = field(default_factory=list[Tensor])

    @classmethod
    def of(cls, outputs: Callable[[Step], Tensor], count: int, own: Own) -> tuple[Tensor, Sensitivities]:
        """The exact outputs (rows, outputs) that ``outputs`` computes by the steps that it is given, and these."""
        found = cls(count, own)
        with torch.inference_mode(False), torch.enable_grad():
            return outputs(found._step).reshape(count, -1), found

    def _step(self, layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
        y = compute(layer, z, torch.float64, self.count)
        if not y.is_floating_point():
            return y, None
        inputs = [part.detach() for part in z]
        self.layers.append(layer)
        self.inputs.append(inputs)
        self.roundings.append(self.own(layer, inputs, y.detach()).expand(y.shape))
        self._shifts.append(torch.zeros_like(y).requires_grad_())
        return y + self._shifts[-1], None

    def of_output(self, outputs: Tensor, index: int) -> list[Tensor | None]:
        """The derivatives of one output by the value of each layer, in its shape; None where there is none."""
        total = outputs[:, index].sum()
        if not total.requires_grad:
            return [None] * len(self._shifts)
        return [*torch.autograd.grad(total, self._shifts, retain_graph=True, allow_unused=True)]

    def first_order(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """(rows,): Σ over layers of |derivative| · own roundings, the first-order bound of that output's error."""
        bound = torch.zeros(self.count, dtype=torch.float64)
        for gradient, own, layer in zip(gradients, self.roundings, self.layers, strict=True):
            if gradient is not None:
                bound += by_row(gradient.abs() * own, self.count, layer.expected.shape).sum(dim=1)
        return bound
