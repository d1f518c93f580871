"""The caller's own module beside its traced operators: with and without gradients, in batches of every size.

The operators are those of a copy, and a copy may be another network (``__deepcopy__``), as may a module in a batch of
another size, in another mode, or after some calls. So the module itself is called, as its caller calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from export.graph import Graph
from export.trace import Signature
from export.trace.isolation import is_plain, without_exit
from runtime import ModelError

from .borrowing import borrowed
from .eager import EagerModule, agree, find_disagreement, has_traced_bits, run_graph, worst_beyond_tolerance
from .inputs import USUAL
from .rows import format_output, output_shapes
from .state import Proof, Result

_MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "with gradients": torch.enable_grad,
    "without gradients": torch.no_grad,
    "in inference mode": torch.inference_mode,
}
"""The ways in which PyTorch calls a module, as messages name them."""
_EVERY = 64
"""Every batch of up to so many rows is tried, and some larger ones, which are drawn."""
_LARGER, _LARGER_OF_LARGE = (2, 1000), (1, 256)
"""How many of those, and up to how many rows."""
_SMALL = 2**20
"""Weights up to which every batch is compared bit for bit; beyond, one run of the operators has to do for all."""
_TOLERANCE, _TOLERANCE_OF_DEVICES = 2.0**-14, 2.0**-8
"""As for other code paths of a library, which is also far above the 2^-24 of weights rounded from float64 to float32;
and 8 times the 2^-11 of TF32, to which another device may round products."""
_HINT = "take Python state, randomness and what depends on the batch or on how it is called out of forward"


class OwnModule(EagerModule):
    """The caller's module where it is and in its own precision, float32 or float64, called in one mode."""

    mode: str = "with gradients"

    def __init__(self, module: nn.Module, signature: Signature, graph: Graph):
        self.graph: Graph = graph
        self.signature: Signature = signature
        tensors = list(chain(module.parameters(), module.buffers()))
        self.precision: torch.dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
        self.device: torch.device = next((t.device for t in tensors), torch.device("cpu"))
        self.tolerance: float = _TOLERANCE if self.device.type == "cpu" else _TOLERANCE_OF_DEVICES
        self.is_plain: bool = is_plain(module)
        self._module = module

    @property
    def comparable(self) -> bool:
        """Whether its kernels and weights are those of the traced operators, so that bits may be compared."""
        return self.precision == torch.float32 and self.device.type == "cpu"

    def in_mode(self, mode: str) -> OwnModule:
        """The same module, called in another mode."""
        other = copy(self)
        other.mode = mode
        return other

    def _call(self, arguments: dict[str, torch.Tensor]) -> Any:
        placed = {name: value.to(self.device) for name, value in arguments.items()}
        with without_exit(), _MODES[self.mode]():
            return self.signature.call(self._module, placed)


def compare_as_called(proof: Proof) -> list[Result]:
    """Hold the module against its operators, on all rows and in batches of every size."""
    notes: list[str] = []
    words = ""
    try:
        with borrowed(proof.caller) as module:
            problem, words = _compare(proof, module, notes)
    except ModelError as error:
        problem = str(error)
    except Exception as error:  # the caller's code: it may raise anything
        problem = f"the module does not run: {type(error).__name__}: {error}"
    results: list[Result] = [("warning", note) for note in notes]
    return [*results, ("passed", words) if problem is None else ("unprovable", f"{problem}. What to do: {_HINT}")]


def _compare(proof: Proof, module: nn.Module, notes: list[str]) -> tuple[str | None, str]:
    """The problem, if there is one, and the words for a pass; ``notes`` get what was not held."""
    signature, graph, inputs = proof.signature, proof.structure.graph, proof.inputs
    rows = f"on {sum(len(each.rows) for each in inputs):,} rows"
    words, problem = f"its operators give the bits of the module as it is called, {rows}", None
    own = OwnModule(module, signature, graph)
    held = _is_held(module, notes)
    modes = _modes_of(own, inputs[0].rows[:2], notes) if held else []
    if modes:
        own = own.in_mode(modes[0])
    single = own if own.comparable else EagerModule(proof.module, signature, graph, torch.float32)
    if not all(has_traced_bits(single, each) for each in inputs):
        words = f"its operators are the module as it is called, in float64 and float32, {rows}"
        for eager in (EagerModule(proof.module, signature, graph, torch.float64), single):
            disagreements = (find_disagreement(eager, each) for each in inputs)
            problem = problem or next(filter(None, disagreements), None)
    if held and not own.comparable:
        disagreements = (find_disagreement(own, each) for each in inputs if each.kind in USUAL)
        problem = problem or next(filter(None, disagreements), None)
        precision = str(own.precision).removeprefix("torch.")
        words += f", as a copy in float32 is called; the module itself agrees, in {precision} on {own.device.type}"
    if held:
        sizes = _sizes(graph, proof.model.batch, proof.seed)
        problem = problem or _find_other_batch(own, modes, inputs[0].rows, sizes, proof.seed, notes)
        how = f"{' or '.join(modes)} in turn" if _is_in_turn(own) and len(modes) > 1 else ", ".join(modes)
        words += f"; in batches of {_format_sizes(sizes)} rows {how}"
    return problem, words


def _is_held(module: nn.Module, notes: list[str]) -> bool:
    """Whether the module's own precision can be compared with float32."""
    floats = {t.dtype for t in chain(module.parameters(), module.buffers()) if t.is_floating_point()}
    if floats <= {torch.float32} or floats == {torch.float64}:
        return True
    names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in floats))
    notes.append(f"the module is in {names}: a copy in float32 was compared with the file, the module itself was not")
    return False


def _modes_of(own: OwnModule, rows: np.ndarray, notes: list[str]) -> list[str]:
    """The modes in which the module runs. Raises what it raises if it runs in none."""
    errors: dict[str, Exception] = {}
    for mode in _MODES:
        try:
            own.in_mode(mode)(rows)
        except ModelError:
            raise
        except Exception as error:  # the caller's code: it may raise anything
            errors[mode] = error
    if len(errors) == len(_MODES):
        raise next(iter(errors.values()))
    notes += [f"the module was not held {mode}, where it raises {_format(e)}" for mode, e in errors.items()]
    return [mode for mode in _MODES if mode not in errors]


def _format(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _is_large(graph: Graph) -> bool:
    return sum(tensor.values.size for node in graph.nodes for tensor in node.tensors.values()) > _SMALL


def _is_in_turn(own: OwnModule) -> bool:
    """Whether each batch is called in one mode: of a large module, and of one without code of the caller's.

    Such code alone could tell the modes apart.
    """
    return own.is_plain or _is_large(own.graph)


def _sizes(graph: Graph, batch: int | None, seed: int) -> list[int]:
    """The numbers of rows to call the module with; only that of a file with a fixed batch."""
    if batch is not None:
        return [batch]
    count, most = _LARGER_OF_LARGE if _is_large(graph) else _LARGER
    drawn = np.random.default_rng(seed).choice(np.arange(_EVERY + 1, most + 1), count, replace=False)
    return [*range(_EVERY + 1), *sorted(map(int, drawn))]


def _format_sizes(sizes: Sequence[int]) -> str:
    if len(sizes) <= _EVERY:
        return ", ".join(map(str, sizes))
    return f"0 to {_EVERY} and {', '.join(map(str, sizes[_EVERY + 1 :]))}"


def _find_other_batch(
    own: OwnModule, modes: Sequence[str], rows: np.ndarray, sizes: Sequence[int], seed: int, notes: list[str]
) -> str | None:
    """The first batch in which the module is not what its operators compute; None where there is none."""
    graph, large = own.graph, _is_large(own.graph)
    calls = [own.in_mode(mode) for mode in modes]
    rounded = own.precision == torch.float32
    rows = rows[: sizes[-1]] if len(rows) >= sizes[-1] else np.resize(rows, (sizes[-1], *rows.shape[1:]))
    # For a large network one run of the operators has to do, where a row's result does not depend on the others.
    whole = run_graph(graph, rows, own.precision, rounded=rounded) if large and not graph.rows_depend else None
    for turn, size in enumerate(sizes, seed):
        batch = rows[:size]
        try:
            traced = run_graph(graph, batch, own.precision, rounded=rounded) if whole is None else whole[:size]
        except Exception:  # of PyTorch: an operator takes no empty batch
            if size:
                raise
            continue
        for call in [calls[turn % len(calls)]] if _is_in_turn(own) else calls:
            problem = _compare_batch(call, batch, traced, notes)
            if problem is not None:
                return problem
    return None


def _compare_batch(call: OwnModule, batch: np.ndarray, traced: np.ndarray, notes: list[str]) -> str | None:
    """What is wrong with a batch; that the module takes no empty one is a note."""
    where = f"called {call.mode} on {len(batch)} rows"
    try:
        given = call(batch)
    except ModelError:
        raise
    except Exception as error:  # the caller's code: it may raise anything
        if len(batch):
            return f"the module does not run: {where} it raises {_format(error)}"
        note = f"the module takes no empty batch ({_format(error)}), and its operators do"
        notes += [note] if note not in notes else []
        return None
    problem = "the module is not what its traced operators compute"
    if given.shape != traced.shape:
        return f"{problem}: {where} it gives shape {list(given.shape)} and they give {list(traced.shape)}"
    worst = None if agree(given, traced, 0.0) else worst_beyond_tolerance(call, batch, given, traced)
    if worst is None:
        return None
    row, output = worst
    values = f"it gives {given[row].flat[output]:.9g} and they give {traced[row].flat[output]:.9g}"
    return f"{problem}: {where}, on row {row}, {format_output(output, output_shapes(call.graph))}, {values}"
