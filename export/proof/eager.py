"""The module as a user calls it, in eager PyTorch, beside the operators that were traced of it."""

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
from .rows import absolute_difference, as_tensors, by_row, format_output, join, output_shapes
from .rules import RULES
from .rules.arithmetic import is_affine, magnitude
from .rules.common import size as finite

_ROWS = 128
"""Rows per call in float64, so that intermediate values stay small beside the weights."""
_LARGE = 2**23
"""Weights from which a network is widened call by call."""
_NEAR_OVERFLOW = 2.0**60
"""Values beyond it have squares, or sums of products, that overflow in float32 or not by the order of a sum."""
_TOLERANCE = {torch.float64: 2.0**-30, torch.float32: 2.0**-14}
"""How far results of the same operators may differ where a library takes another code path."""
_KERNEL = 4.0
"""How much farther two kernels of one operator may be apart than one of them from the exact value."""


class EagerModule:
    """A module in evaluation mode, in one precision; every call is a call of the user's own ``forward``.

    In float64 the weights are widened; what the forward computes of them alone stays in float32, as in the file.
    """

    def __init__(self, module: nn.Module, signature: Signature, graph: Graph, precision: torch.dtype):
        self.graph: Graph = graph
        self.precision: torch.dtype = precision
        self.tolerance: float = _TOLERANCE[precision]
        self.signature: Signature = signature
        tensors = [tensor for node in graph.nodes for tensor in node.tensors.values()]
        # A copy in float64 is faster to call, and takes twice the memory of the weights.
        call_by_call = any(t.computed for t in tensors) or sum(t.values.size for t in tensors) > _LARGE
        double = precision == torch.float64
        self._widening = _Widening() if double else nullcontext()
        self._module = _in_float64(module) if double and not call_by_call else module

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows of all inputs to rows of all outputs, in this precision. Raises ModelError: other element types."""
        parts = as_tensors(rows.copy(), self.graph.inputs, self.precision)
        arguments = dict(zip(self.signature.inputs, parts.values(), strict=True))
        values = list(named_outputs(self._call(arguments)).values())
        kinds = ["float32" if v.is_floating_point() else "bool" if v.dtype == torch.bool else "int64" for v in values]
        wanted = [self.graph.dtypes[value] for value in self.graph.outputs.values()]
        if kinds != wanted:
            raise ModelError(f"the module gives {', '.join(kinds)}, and its traced operators {', '.join(wanted)}")
        double = self.precision == torch.float64
        values = [value.detach().cpu() for value in values]
        return join([value.double() if double else value for value in values]).numpy()

    def _call(self, arguments: dict[str, torch.Tensor]) -> Any:
        """What the module returns."""
        with isolated(), self._widening:
            return self.signature.call(self._module, arguments)


class _Widening(TorchFunctionMode):
    """Widens float32 to float64 where both meet; ``x.float()`` leaves float64 as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        arguments = (args, kwargs or {})
        to_float32 = func is torch.Tensor.to and torch.float32 in (*args[1:], *(kwargs or {}).values())
        if (to_float32 or func is torch.Tensor.float) and args[0].dtype == torch.float64:
            return args[0]
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(arguments)):
            arguments = tree_map_only(torch.Tensor, lambda t: t.double() if t.dtype == torch.float32 else t, arguments)
        return func(*arguments[0], **arguments[1])


def _in_float64(module: nn.Module) -> nn.Module:
    """A float64 copy; tensors that are neither parameters nor buffers are widened too."""
    tensors = {id(t): t for t in chain(module.parameters(), module.buffers()) if t.is_floating_point()}
    wide: dict[int, object] = {
        key: nn.Parameter(t.detach().double(), False) if isinstance(t, nn.Parameter) else t.double()
        for key, t in tensors.items()
    }
    copied = copy.deepcopy(module, wide).double()  # widened while it is copied: no float32 copy besides
    for part in copied.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                setattr(part, name, value.double())
    return copied


def run_graph(graph: Graph, rows: np.ndarray, dtype: torch.dtype, *, rounded: bool = True) -> np.ndarray:
    """The rows of all outputs of the graph's operators for rows of all its inputs, in one precision."""
    with np.errstate(all="ignore"), torch.inference_mode():
        values = outputs_of(graph, as_tensors(rows, graph.inputs, dtype), precision=dtype, rounded=rounded)
    return join([value.double() if dtype == torch.float64 else value for value in values]).numpy()


def has_traced_bits(eager: EagerModule, inputs: Inputs) -> bool:
    """Whether the module in float32 gives the bits of its traced operators on these rows, and twice the same ones.

    In the file's precision nothing distinguishes the two then.
    """
    if eager(inputs.rows[:2]).tobytes() != eager(inputs.rows[:2]).tobytes():
        return False
    batches = [inputs.rows[start : start + _ROWS] for start in range(0, len(inputs.rows), _ROWS)]
    if inputs.kind in USUAL and not eager.graph.rows_depend:
        batches.append(inputs.rows[:1])
    return all(agree(eager(rows), run_graph(eager.graph, rows, torch.float32), 0.0) for rows in batches)


def find_disagreement(eager: EagerModule, inputs: Inputs) -> str | None:
    """Where the module as it is called differs from its traced operators on these rows; None where it does not.

    Both run the same kernels on the same rows, so they agree to far less than one rounding of float32, and in float32
    to little more. The module is called twice, since one that is random in evaluation mode cannot be proved.
    """
    if not agree(eager(inputs.rows[:2]), eager(inputs.rows[:2]), 0.0):
        return "the module is random in evaluation mode: two calls on the same rows differ"
    graph, results = eager.graph, list[np.ndarray]()
    for start in range(0, len(inputs.rows), _ROWS):
        rows = inputs.rows[start : start + _ROWS]
        # In float64 with the numbers of the operators as they are.
        own, traced = eager(rows), run_graph(graph, rows, eager.precision, rounded=False)
        results.append(own)
        if own.shape != traced.shape:
            return f"the module gives rows of shape {list(own.shape[1:])}, its operators {list(traced.shape[1:])}"
        worst = worst_beyond_tolerance(eager, rows, own, traced)
        if worst is not None:
            row, output = worst
            element = f"{format_output(output, output_shapes(graph))}, in {str(eager.precision).removeprefix('torch.')}"
            location = f"on row {start + row} of '{inputs.kind}', {element}"
            values = f"it gives {own[row].flat[output]:.9g} and they give {traced[row].flat[output]:.9g}"
            return f"the module is not what its traced operators compute: {location}, {values}"
    if eager.precision == torch.float32 and inputs.kind in USUAL and not graph.rows_depend:
        together, first = eager(inputs.rows), inputs.rows[:1]
        alone = worst_beyond_tolerance(eager, first, eager(first), together[:1])
        if alone or worst_beyond_tolerance(eager, inputs.rows, np.concatenate(results), together):
            return f"the module gives rows of '{inputs.kind}' other results in a batch of another size"
    return None


def worst_beyond_tolerance(
    eager: EagerModule, rows: np.ndarray, own: np.ndarray, traced: np.ndarray
) -> tuple[int, int] | None:
    """The row and the output in which two results of the network differ most beyond the tolerance; None: nowhere."""
    tolerance = eager.tolerance
    if agree(own, traced, tolerance):
        return None
    slack = _sensitivity(eager, rows, traced)
    if agree(own, traced, tolerance, slack):
        return None
    difference = np.where(np.isinf(slack), 0, absolute_difference(traced, own) - slack).reshape(len(own), -1)
    return divmod(int(difference.argmax()), difference.shape[1])


def agree(a: np.ndarray, b: np.ndarray, tolerance: float, slack: np.ndarray | float = 0.0) -> bool:
    """Equal up to the tolerance, relative to the value and to the median of its output, and up to the slack."""
    if a.shape != b.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        equal = (a == b) | (np.isnan(a) & np.isnan(b)) | np.isinf(slack)
        if equal.all() or not tolerance:
            return bool(equal.all())
        size = np.where(np.isfinite(a), np.abs(a), 0.0)
        return bool((equal | (np.abs(a - b) <= tolerance * (size + np.median(size, axis=0)) + slack)).all())


def _sensitivity(eager: EagerModule, rows: np.ndarray, traced: np.ndarray) -> np.ndarray:
    """How far outputs move where every operator's value moves by the tolerance, and by what its rule allows.

    Where sums cancel, another order of the same sums differs so. Beside a small value a kernel's error may be large: a
    gelu's far below zero is of the size of its input. Infinite for rows in which float32 may overflow on the way.
    """
    graph, rounded, tolerance = eager.graph, eager.precision == torch.float32, eager.tolerance
    kernel = _KERNEL * (1.0 if rounded else 2.0**-29)  # of a rule, whose unit roundoff is that of float32
    random, moved, largest = torch.Generator().manual_seed(0), np.zeros(traced.shape), np.zeros(len(rows))
    for turn in range(6):  # all up, all down, and mixed
        values = as_tensors(rows, graph.inputs, torch.float64)
        values = {name: _move(value, tolerance, turn, random) for name, value in values.items()}
        with np.errstate(all="ignore"), torch.inference_mode():
            for node in graph.nodes:
                z = [values[name] for name in node.inputs]
                y = values[node.output] = evaluate(node, z, precision=torch.float64, rows=len(rows), rounded=rounded)
                size = magnitude(node, z[0].abs()) if is_affine(node) else None
                bounded = y.is_floating_point() and node.op in RULES
                own = kernel * finite(RULES[node.op](node, z, [None] * len(z), y)) if bounded else 0.0
                # A number that the forward writes is a float32 constant here, and a float64 one in the module.
                written = any(t.computed and t.values.dtype == np.float32 for t in node.tensors.values())
                spread = max(tolerance, 2.0**-24) if written else tolerance
                values[node.output] = _move(y, spread, turn, random, size, own)
        for name, value in values.items():
            sizes = by_row(value.double().abs().nan_to_num(0.0, torch.inf), len(rows), graph.shapes[name])
            largest = np.fmax(largest, sizes.amax(dim=1).numpy() if sizes.numel() else 0.0)
        shifted = join([values[value].double() for value in graph.outputs.values()]).numpy()
        with np.errstate(invalid="ignore"):
            moved = np.fmax(moved, np.abs(shifted - traced))
    moved = np.where(np.isfinite(moved), moved, 0.0)
    return np.where((largest > _NEAR_OVERFLOW).reshape(-1, *[1] * (moved.ndim - 1)), np.inf, moved)


def _move(
    y: torch.Tensor,
    tolerance: float,
    turn: int,
    random: torch.Generator,
    size: torch.Tensor | None = None,
    own: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """A value moved by the tolerance times its size, and its own error.

    All elements go up (turn 0), all down (1), or each at random (2 on).
    """
    if not y.is_floating_point():
        return y
    signs = torch.randint(0, 2, y.shape, generator=random).double() * 2 - 1 if turn > 1 else 1.0 - 2 * turn
    return y + signs * (tolerance * (y.abs() if size is None else size) + own)
