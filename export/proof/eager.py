"""The module as a user calls it, in float64 and in float32, beside its traced operators."""

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

from export.evaluation import evaluate, outputs_of
from export.graph import Graph
from export.trace import Signature
from export.trace.isolation import isolated
from export.trace.signature import named_outputs
from runtime import ModelError

from .inputs import USUAL, Inputs
from .rows import apart, by_row, given_to, joined, output_shapes, place_of
from .rules.arithmetic import is_affine, magnitude

_ROWS = 128
"""Of one call in float64, so that the values inside stay small beside the weights."""
_LARGE = 2**23
"""Weights of a network from which they are widened call by call."""
_NEAR_OVERFLOW = 2.0**60
"""Values beyond it have squares, or sums of products, that may overflow in float32 or not by the order of a sum."""
_AGREEMENT = {torch.float64: 2.0**-30, torch.float32: 2.0**-14}
"""How far the same blocks may be apart where a library takes another path."""


class Called:
    """A module in evaluation mode, in one precision; every call is a call of the user's own ``forward``.

    In float64 the weights are widened; what the forward computes of them alone stays in float32, as in the file.
    """

    def __init__(self, module: nn.Module, signature: Signature, graph: Graph, precision: torch.dtype):
        self.graph, self.precision, self._signature = graph, precision, signature
        tensors = [tensor for node in graph.nodes for tensor in node.tensors.values()]
        # A copy in float64 is quicker to call, and takes twice the weights.
        one_by_one = any(t.computed for t in tensors) or sum(t.values.size for t in tensors) > _LARGE
        double = precision == torch.float64
        self._widening = _Widening() if double else nullcontext()
        self._module = _double(module) if double and not one_by_one else module

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows of all inputs to rows of all outputs, in the precision of this copy. Raises ModelError: other types."""
        parts = given_to(rows.copy(), self.graph.inputs, self.precision)
        named = dict(zip(self._signature.inputs, parts.values(), strict=True))
        with isolated(), self._widening:
            values = list(named_outputs(self._signature.call(self._module, named)).values())
        kinds = ["float32" if v.is_floating_point() else "bool" if v.dtype == torch.bool else "int64" for v in values]
        wanted = [self.graph.dtypes[value] for value in self.graph.outputs.values()]
        if kinds != wanted:
            raise ModelError(f"the module gives {', '.join(kinds)}, and its traced operators {', '.join(wanted)}")
        double = self.precision == torch.float64
        return joined([value.detach().double() if double else value.detach() for value in values]).numpy()


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


def disagreement(called: Called, given: Inputs) -> str | None:
    """What keeps the traced blocks from being the module as it is called on these rows, in the precision of ``called``.

    Both run the same kernels on the same rows, so they agree to far less than one rounding of float32, and in float32
    to little more. The module is called twice, since one that is random in evaluation mode cannot be proved.
    """
    if not _same(called(given.rows[:2]), called(given.rows[:2]), 0.0):
        return "the module is random in evaluation mode: two calls on the same rows differ"
    graph, found = called.graph, []
    for start in range(0, len(given.rows), _ROWS):
        rows = given.rows[start : start + _ROWS]
        # In float64 with the numbers of the operators as they are.
        own, blocks = called(rows), traced(graph, rows, called.precision, rounded=False)
        found.append(own)
        if own.shape != blocks.shape:
            return f"the module gives rows of shape {list(own.shape[1:])}, its operators {list(blocks.shape[1:])}"
        beyond = _beyond(called, rows, own, blocks)
        if beyond is not None:
            row, output = beyond
            where = f"{place_of(output, output_shapes(graph))}, in {str(called.precision).removeprefix('torch.')}"
            place = f"on row {start + row} of '{given.kind}', {where}"
            values = f"it gives {own[row].flat[output]:.9g} and they give {blocks[row].flat[output]:.9g}"
            return f"the module is not what its traced operators compute: {place}, {values}"
    if called.precision == torch.float32 and given.kind in USUAL and not graph.rows_depend:
        together = called(given.rows)
        alone = _beyond(called, given.rows[:1], called(given.rows[:1]), together[:1])
        if alone is not None or _beyond(called, given.rows, np.concatenate(found), together) is not None:
            return f"the module gives rows of '{given.kind}' other results in a batch of another size"
    return None


def _beyond(called: Called, rows: np.ndarray, own: np.ndarray, traced: np.ndarray) -> tuple[int, int] | None:
    """The row and the output in which two results of the network are farthest beyond what is tolerated."""
    tolerance = _AGREEMENT[called.precision]
    if _same(own, traced, tolerance):
        return None
    slack = _sensitivity(called, rows, traced)
    if _same(own, traced, tolerance, slack):
        return None
    difference = np.where(np.isinf(slack), 0, apart(traced, own) - slack).reshape(len(own), -1)
    return divmod(int(difference.argmax()), difference.shape[1])


def same_bits(called: Called, given: Inputs) -> bool:
    """Whether the module in float32 gives the bits of its traced operators on these rows, and twice the same ones.

    Nothing in the precision of the file can tell them apart then.
    """
    if called(given.rows[:2]).tobytes() != called(given.rows[:2]).tobytes():
        return False
    batches = [given.rows[start : start + _ROWS] for start in range(0, len(given.rows), _ROWS)]
    if given.kind in USUAL and not called.graph.rows_depend:
        batches.append(given.rows[:1])
    return all(_same(called(rows), traced(called.graph, rows, torch.float32), 0.0) for rows in batches)


def traced(graph: Graph, rows: np.ndarray, dtype: torch.dtype, *, rounded: bool = True) -> np.ndarray:
    """The rows of all outputs of the graph's operators for rows of all its inputs, in one precision."""
    with np.errstate(all="ignore"), torch.inference_mode():
        values = outputs_of(graph, given_to(rows, graph.inputs, dtype), precision=dtype, rounded=rounded)
    return joined([value.double() if dtype == torch.float64 else value for value in values]).numpy()


def _sensitivity(called: Called, rows: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """How far outputs move where every block's value moves by as little as is tolerated: where sums cancel, another
    order of the same sums differs so. Infinite for rows in which float32 may overflow on the way.
    """
    graph, rounded, tolerance = called.graph, called.precision == torch.float32, _AGREEMENT[called.precision]
    random, moved, largest = torch.Generator().manual_seed(0), np.zeros(blocks.shape), np.zeros(len(rows))
    for turn in range(6):  # all up, all down, and mixed
        values = given_to(rows, graph.inputs, torch.float64)
        values = {name: _moved(value, tolerance, turn, random) for name, value in values.items()}
        with np.errstate(all="ignore"), torch.inference_mode():
            for node in graph.nodes:
                z = [values[name] for name in node.inputs]
                y = values[node.output] = evaluate(node, z, precision=torch.float64, rows=len(rows), rounded=rounded)
                size = magnitude(node, z[0].abs()) if is_affine(node) else None
                values[node.output] = _moved(y, tolerance, turn, random, size)
        for name, value in values.items():
            sizes = by_row(value.double().abs().nan_to_num(0.0, torch.inf), len(rows), graph.shapes[name])
            largest = np.fmax(largest, sizes.amax(dim=1).numpy() if sizes.numel() else 0.0)
        shifted = joined([values[value].double() for value in graph.outputs.values()]).numpy()
        with np.errstate(invalid="ignore"):
            moved = np.fmax(moved, np.abs(shifted - blocks))
    moved = np.where(np.isfinite(moved), moved, 0.0)
    return np.where((largest > _NEAR_OVERFLOW).reshape(-1, *[1] * (moved.ndim - 1)), np.inf, moved)


def _moved(
    y: torch.Tensor, tolerance: float, turn: int, random: torch.Generator, size: torch.Tensor | None = None
) -> torch.Tensor:
    """A value moved by the tolerance of its size: up, down, or each element either way."""
    if not y.is_floating_point():
        return y
    signs = torch.randint(0, 2, y.shape, generator=random).double() * 2 - 1 if turn > 1 else 1.0 - 2 * turn
    return y + tolerance * signs * (y.abs() if size is None else size)


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
