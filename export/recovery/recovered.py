"""What reading a network back gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from builder.block import Shape
from builder.spec import MLPSpec


@dataclass(frozen=True)
class Recovered:
    """A network that was read from a file: its spec, its weights, and what was decided on the way."""

    spec: MLPSpec
    weights: dict[str, torch.Tensor]
    """The state dict of ``assemble(spec)``, float32; the values may lie in the file's memory map."""
    notes: tuple[str, ...] = ()
    """What was found, chosen by default or left out, a line each."""
    flattened: Shape | None = None
    """The shape of a row of the file's input, where its leading Flatten was left out."""
