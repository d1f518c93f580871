"""The module as a user calls it: in float64 the reference of the whole, in float32 what eager PyTorch gives."""

from __future__ import annotations

import copy
from itertools import chain

import numpy as np
import torch
from torch import nn

from export.graph import Graph

from .inputs import Inputs
from .reference import whole

_ROWS = 128
"""Of one call in float64, so that the values inside stay small beside the weights."""
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


def disagreement(called: Called, graph: Graph, given: Inputs) -> tuple[str | None, np.ndarray]:
    """What keeps the traced blocks from being the module as it is called on these rows, and its float64 output.

    Both are float64, so they agree to far less than any float32 rounding; the module is called twice, since one that is
    random in evaluation mode cannot be proved.
    """
    rows = given.rows
    parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    first = np.concatenate([called(part) for part in parts])
    with np.errstate(all="ignore"), torch.inference_mode():
        values = [whole(graph, torch.from_numpy(part).double(), rounded=False).numpy() for part in parts]
    traced = np.concatenate(values)
    if first.shape != traced.shape:
        return f"the module gives rows of shape {list(first.shape[1:])}, its blocks {list(traced.shape[1:])}", first
    if not _same(called(rows[:2]), called(rows[:2]), 0.0):
        return "the module is random in evaluation mode: two calls on the same rows differ", first
    if not _same(first, traced, _AGREEMENT):
        difference = apart(traced, first).reshape(len(first), -1)
        row, output = (int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
        place = f"on row {row} of '{given.kind}', output {output}"
        values = f"it gives {first[row].flat[output]:.9g} and they give {traced[row].flat[output]:.9g}"
        return f"the module is not the chain of its traced blocks: {place}, {values}", first
    return None, first


def apart(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Absolute differences; 0 where both are equal or both are NaN, infinite where only one is finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - exact)
    same = (found == exact) | (np.isnan(found) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


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
    held = {id(t): t for t in chain(module.parameters(), module.buffers()) if t.is_floating_point()}
    wide: dict[int, object] = {
        key: nn.Parameter(t.detach().double(), False) if isinstance(t, nn.Parameter) else t.double()
        for key, t in held.items()
    }
    copied = copy.deepcopy(module, wide).double()  # widened as it is copied: no copy in float32 besides
    for part in copied.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                setattr(part, name, value.double())
    return copied
