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
_AGREEMENT = {True: 2.0**-30, False: 2.0**-14}
"""In float64 and in float32: how far the same blocks may be apart where a library takes another path."""


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


def disagreement(called: Called, graph: Graph, given: Inputs) -> str | None:
    """What keeps the traced blocks from being the module as it is called on these rows, in the precision of ``called``.

    Both run the same kernels on the same rows, so they agree to far less than one rounding of float32, and in float32
    to little more. The module is called twice, since one that is random in evaluation mode cannot be proved.
    """
    if not _same(called(given.rows[:2]), called(given.rows[:2]), 0.0):
        return "the module is random in evaluation mode: two calls on the same rows differ"
    for start in range(0, len(given.rows), _ROWS):
        rows = given.rows[start : start + _ROWS]
        own = called(rows)
        x = torch.from_numpy(rows)
        with np.errstate(all="ignore"), torch.inference_mode():
            traced = whole(graph, x.double() if called.double else x, rounded=not called.double).numpy()
        if own.shape != traced.shape:
            return f"the module gives rows of shape {list(own.shape[1:])}, its blocks {list(traced.shape[1:])}"
        if not _same(own, traced, _AGREEMENT[called.double]):
            difference = apart(traced, own).reshape(len(own), -1)
            row, output = (int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
            precision = "float64" if called.double else "float32"
            place = f"on row {start + row} of '{given.kind}', output {output}, in {precision}"
            values = f"it gives {own[row].flat[output]:.9g} and they give {traced[row].flat[output]:.9g}"
            return f"the module is not the chain of its traced blocks: {place}, {values}"
    return None


def apart(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Absolute differences; 0 where both are equal or both are NaN, infinite where only one is finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - exact)
    same = (found == exact) | (np.isnan(found) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def _same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Equal, or apart by a share of the value itself and of what is usual for that output."""
    if a.shape != b.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        equal = (a == b) | (np.isnan(a) & np.isnan(b))
        if equal.all() or not tolerance:
            return bool(equal.all())
        size = np.where(np.isfinite(a), np.abs(a), 0.0)
        return bool((equal | (np.abs(a - b) <= tolerance * (size + np.median(size, axis=0)))).all())


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
