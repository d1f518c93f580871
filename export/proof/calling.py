"""The module as a user calls it: in float64 the reference of the whole, in float32 what eager PyTorch gives."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from export.graph import Graph

from .reference import whole

_AGREEMENT = 2.0**-30
"""Of a row's largest value: how far float64 evaluations in another order may be apart."""


class Called:
    """A module in evaluation mode, in one precision; every call is a call of the user's own ``forward``."""

    def __init__(self, module: nn.Module, *, double: bool):
        self.double = double
        self._module = _double(module) if double else module

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows (batch, *row) to the output, in the precision of this copy."""
        x = torch.tensor(rows)
        with torch.inference_mode():
            return self._module(x.double() if self.double else x).numpy()


def disagreement(called: Called, graph: Graph, rows: np.ndarray) -> tuple[str | None, np.ndarray]:
    """What keeps the traced blocks from being the module as it is called on these rows, and its float64 output.

    Both are float64, so they agree to far less than any float32 rounding; the module is called twice, since one that is
    random in evaluation mode cannot be proved.
    """
    first = called(rows)
    with np.errstate(all="ignore"), torch.inference_mode():
        traced = whole(graph, torch.from_numpy(rows).double(), rounded=False).numpy()
    if first.shape != traced.shape:
        return f"the module gives rows of shape {list(first.shape[1:])}, its blocks {list(traced.shape[1:])}", first
    if not _same(called(rows[:2]), called(rows[:2]), 0.0):
        return "the module is random in evaluation mode: two calls on the same rows differ", first
    if not _same(first, traced, _AGREEMENT):
        with np.errstate(invalid="ignore"):
            row = int(np.argmax(np.nan_to_num(np.abs(first - traced), nan=np.inf).reshape(len(first), -1).max(axis=1)))
        values = f"it gives {first[row].flat[0]:.9g} and its traced blocks {traced[row].flat[0]:.9g}"
        return f"the module is not the chain of its traced blocks: on row {row}, first output, {values}", first
    return None, first


def _same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    if not a.size:
        return True
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.nanmax(np.where(np.isfinite(a), np.abs(a), 0.0).reshape(len(a), -1), axis=1)
        allowed = tolerance * scale.reshape(-1, *[1] * (a.ndim - 1))
        close = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= allowed)
    return bool(close.all())


def _double(module: nn.Module) -> nn.Module:
    """A float64 copy; tensors that are neither parameters nor buffers are widened too."""
    copied = copy.deepcopy(module).double()
    for part in copied.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                setattr(part, name, value.double())
    return copied
