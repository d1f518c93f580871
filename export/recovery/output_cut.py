"""A network that gives some of its features away, as a network without them: its last linear layer is cut.

An output of a linear layer depends on no other, so the cut network computes what is left bit for bit. A file that
computes all and then selects is proved against a module that does the same; see ``computed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from builder.blocks import ACTIVATIONS

from .recovered import NotABlock, Step, network_of

SELECT = "select"
"""The kind of a step that keeps the features from the first option to before the second. It is no block."""
_EACH_ALONE = {*ACTIVATIONS, "scale", "standardize", "batch_norm", "clip"} - {"softmax"}
"""Blocks whose results depend on one feature each."""


class Select(nn.Module):
    """Keeps the features from ``start`` to before ``end`` of rows (batch, features)."""

    def __init__(self, start: int, end: int):
        super().__init__()
        self.start, self.end = start, end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows ``x`` (batch, features) to (batch, end - start)."""
        return x.narrow(1, self.start, self.end - self.start)


def selecting(start: int, end: int) -> Step:
    """The step that keeps the features from ``start`` to before ``end``."""
    return Step(SELECT, options=(start, end))


def cut(steps: Sequence[Step]) -> list[Step]:
    """The steps without selections, each made by the linear layer before it. Raises NotABlock: there is none."""
    result: list[Step] = []
    for step in steps:
        if step.kind != SELECT:
            result.append(step)
            continue
        start, end = step.options
        at = next((i for i in reversed(range(len(result))) if result[i].kind not in _EACH_ALONE), -1)
        if at < 0 or result[at].kind != "linear":
            what = f"of a {result[at].kind}" if at >= 0 else "of the input"
            raise NotABlock(f"keeps the features {start} to {end - 1} {what}; only those of a linear layer can be cut")
        result[at:] = [_kept(each, start, end) for each in result[at:]]
    return result


def _kept(step: Step, start: int, end: int) -> Step:
    """A step for these features alone; one number for all features stays."""
    tensors = {role: values if _is_one(values) else values[start:end] for role, values in step.tensors.items()}
    return replace(step, tensors=tensors)


def _is_one(values: Any) -> bool:
    return not values.shape or (len(values.shape) == 1 and values.shape[0] == 1)


def computed(steps: Sequence[Step], path: Path, features: int) -> nn.Sequential:
    """The module that computes all features and then selects, as the steps do, for rows (batch, features)."""
    modules: list[nn.Module] = []
    start = 0
    for end in [*(index for index, step in enumerate(steps) if step.kind == SELECT), len(steps)]:
        if segment := steps[start:end]:
            network = network_of(segment, path, "file", {"name": "input", "features": features}, {"name": "output"})
            modules += network.module()
            (features,) = network.spec.output_shape
        if end < len(steps):
            first, last = steps[end].options
            modules.append(Select(first, last))
            features = last - first
        start = end + 1
    return nn.Sequential(*modules).eval()
