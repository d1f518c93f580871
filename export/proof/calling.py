"""The module as a user calls it: in float64 the reference of the whole, in float32 what eager PyTorch gives."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from export.calls import inputs_of
from export.graph import Graph
from export.naming import tensors_of

from .affine_bounds import AFFINE, magnitude
from .inputs import USUAL, Inputs
from .reference import evaluate, whole
from .rows import joined, output_shapes, place_of, split

_ROWS = 128
"""Of one call in float64, so that the values inside stay small beside the weights."""
_LARGE = 2**23
"""Weights of a network from which they are widened call by call."""
_NEAR_OVERFLOW = 2.0**60
"""Values beyond it have squares, or sums of products, that may overflow in float32 or not by the order of a sum."""
_AGREEMENT = {True: 2.0**-30, False: 2.0**-14}
"""In float64 and in float32: how far the same blocks may be apart where a library takes another path."""


class Called:
    """A module in evaluation mode, in one precision; every call is a call of the user's own ``forward``.

    In float64 the weights are widened; what the forward computes of them alone stays in float32, as in the file.
    """

    def __init__(self, module: nn.Module, graph: Graph, *, double: bool):
        self.double = double
        self._inputs = graph.inputs
        self._keywords = [name for name, by_name in inputs_of(module).items() if by_name]
        tensors = [tensor for node in graph.nodes for tensor in node.tensors.values()]
        # A copy in float64 is quicker to call, and takes twice the weights.
        one_by_one = any(t.computed for t in tensors) or sum(t.values.size for t in tensors) > _LARGE
        self._widening = _Widening() if double else nullcontext()
        self._module = _double(module) if double and not one_by_one else module

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows of all inputs to rows of all outputs, in the precision of this copy."""
        x = torch.tensor(rows)
        parts = list(split(x.double() if self.double else x, self._inputs).values())
        ordered = len(parts) - len(self._keywords)
        with torch.inference_mode(), self._widening:
            returned = self._module(*parts[:ordered], **dict(zip(self._keywords, parts[ordered:], strict=True)))
        values = list(tensors_of(returned))
        return joined([value.double() if self.double else value for value in values]).numpy()


class _Widening(TorchFunctionMode):
    """Where float64 meets float32, the float32 is widened first; ``x.float()`` leaves float64 as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (args, kwargs or {})
        to_float32 = func is torch.Tensor.to and torch.float32 in (*args[1:], *(kwargs or {}).values())
        if (to_float32 or func is torch.Tensor.float) and args[0].dtype == torch.float64:
            return args[0]
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(given)):
            given = tree_map_only(torch.Tensor, lambda t: t.double() if t.dtype == torch.float32 else t, given)
        return func(*given[0], **given[1])


def disagreement(called: Called, graph: Graph, given: Inputs) -> str | None:
    """What keeps the traced blocks from being the module as it is called on these rows, in the precision of ``called``.

    Both run the same kernels on the same rows, so they agree to far less than one rounding of float32, and in float32
    to little more. The module is called twice, since one that is random in evaluation mode cannot be proved.
    """
    if not _same(called(given.rows[:2]), called(given.rows[:2]), 0.0):
        return "the module is random in evaluation mode: two calls on the same rows differ"
    found = []
    for start in range(0, len(given.rows), _ROWS):
        rows = given.rows[start : start + _ROWS]
        own, traced = called(rows), _traced(graph, rows, called.double)
        found.append(own)
        if own.shape != traced.shape:
            return f"the module gives rows of shape {list(own.shape[1:])}, its blocks {list(traced.shape[1:])}"
        beyond = _beyond(graph, rows, own, traced, called.double)
        if beyond is not None:
            row, output = beyond
            precision = "float64" if called.double else "float32"
            where = place_of(output, output_shapes(graph))
            place = f"on row {start + row} of '{given.kind}', {where}, in {precision}"
            values = f"it gives {own[row].flat[output]:.9g} and they give {traced[row].flat[output]:.9g}"
            return f"the module is not the chain of its traced blocks: {place}, {values}"
    if not called.double and given.kind in USUAL:
        together = called(given.rows)
        alone = _beyond(graph, given.rows[:1], called(given.rows[:1]), together[:1], False)
        if alone is not None or _beyond(graph, given.rows, np.concatenate(found), together, False) is not None:
            return f"the module gives rows of '{given.kind}' other results in a batch of another size"
    return None


def _beyond(
    graph: Graph, rows: np.ndarray, own: np.ndarray, traced: np.ndarray, double: bool
) -> tuple[int, int] | None:
    """The row and the output in which two results of the network are farthest beyond what is tolerated."""
    tolerance = _AGREEMENT[double]
    if _same(own, traced, tolerance):
        return None
    slack = _sensitivity(graph, rows, traced, double)
    if _same(own, traced, tolerance, slack):
        return None
    difference = np.where(np.isinf(slack), 0, apart(traced, own) - slack).reshape(len(own), -1)
    row, output = np.unravel_index(int(difference.argmax()), difference.shape)
    return int(row), int(output)


def _traced(graph: Graph, rows: np.ndarray, double: bool) -> np.ndarray:
    with np.errstate(all="ignore"), torch.inference_mode():
        return whole(graph, torch.from_numpy(rows.astype(np.float64) if double else rows), rounded=not double).numpy()


def _sensitivity(graph: Graph, rows: np.ndarray, traced: np.ndarray, double: bool) -> np.ndarray:
    """How far outputs move where every block's value moves by as little as is tolerated: where sums cancel, another
    order of the same sums differs so. Infinite for rows in which float32 may overflow on the way.
    """
    random, moved = torch.Generator().manual_seed(0), np.zeros(traced.shape)
    tolerance, largest = _AGREEMENT[double], np.zeros(len(rows))
    for turn in range(6):  # all up, all down, and mixed
        values = split(torch.from_numpy(rows.astype(np.float64)), graph.inputs)
        with np.errstate(all="ignore"), torch.inference_mode():
            for node in graph.nodes:
                z = [values[name] for name in node.inputs]
                y = evaluate(node, z, rounded=not double)
                signs = torch.randint(0, 2, y.shape, generator=random).double() * 2 - 1 if turn > 1 else 1.0 - 2 * turn
                size = magnitude(node, z[0].abs()) if node.op in AFFINE else y.abs()
                values[node.output] = y + tolerance * signs * size
        for value in () if double else values.values():
            largest = np.fmax(largest, value.abs().flatten(1).nan_to_num(0.0, torch.inf).amax(dim=1).numpy())
        shifted = joined([values[value] for value in graph.outputs.values()]).numpy()
        with np.errstate(invalid="ignore"):
            moved = np.fmax(moved, np.abs(shifted - traced))
    moved = np.where(np.isfinite(moved), moved, 0.0)
    return np.where((largest > _NEAR_OVERFLOW).reshape(-1, *[1] * (moved.ndim - 1)), np.inf, moved)


def apart(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Absolute differences; 0 where both are equal or both are NaN, infinite where only one is finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - exact)
    same = (found == exact) | (np.isnan(found) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def _same(a: np.ndarray, b: np.ndarray, tolerance: float, slack: np.ndarray | float = 0.0) -> bool:
    """Equal, or apart by a share of the value itself and of what is usual for that output, and by the slack."""
    if a.shape != b.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        equal = (a == b) | (np.isnan(a) & np.isnan(b)) | np.isinf(slack)
        if equal.all() or not tolerance:
            return bool(equal.all())
        size = np.where(np.isfinite(a), np.abs(a), 0.0)
        return bool((equal | (np.abs(a - b) <= tolerance * (size + np.median(size, axis=0)) + slack)).all())


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
