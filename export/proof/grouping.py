"""Layers that a runtime may compute in one kernel, and that are then held against the bound of them together.

A runtime may fuse operators. Asking it for a value in the middle of what it fuses changes the bits behind it, so the
proof asks for fewer values, level by level, until the file gives its own bits again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .layerwise import LayerCheck
from .structure import Layer, Structure

LEVELS = (
    "every layer",
    "every linear layer with its activation",
    "every chain of elementwise operators",
    "every linear layer with the elementwise operators before it",
)
"""From the finest."""
_SCALES = ("mul", "div", "permute")
_APART = ("linear", "matmul", "batch_norm", "layer_norm", "rms_norm", "softmax", "log_softmax", "embedding", "sort")
"""Operators that are no part of a chain of elementwise ones."""
_MOVED = ("permute", "select", "slice", "expand", "cat", "index_select", "gather", "sum", "mean", "amax", "amin", "var")
_MOVED += ("linalg_vector_norm", "argmax", "argmin", "any", "all", "cumsum")


def groups(structure: Structure, level: int = 0) -> list[LayerCheck]:
    """The layers in groups with one output each, in order.

    A product of two values is one with the factors and the permutations around it at every level: runtimes move them
    into the product even where the values between are asked for.
    """
    readers: dict[str, set[int]] = {}
    for index, layer in enumerate(structure.layers):
        for name in layer.inputs:
            readers.setdefault(name, set()).add(index)
    for output in structure.wiring.outputs:
        readers.setdefault(structure.values.get(output, output), set()).add(-1)
    taken: set[int] = set()
    found: list[list[int]] = []
    makers = {layer.output: index for index, layer in enumerate(structure.layers)}
    for index in reversed(range(len(structure.layers))):
        if index in taken:
            continue
        group = {index}
        waiting = list(structure.layers[index].inputs)
        while waiting:
            maker = makers.get(waiting.pop())
            if maker is None or maker in group or not readers[structure.layers[maker].output] <= group:
                continue
            if _fuse([structure.layers[i] for i in sorted({maker, *group})], level):
                group.add(maker)
                waiting += structure.layers[maker].inputs
        taken |= group
        found.append(sorted(group))
    chosen = [[structure.layers[i] for i in group] for group in reversed(found)]
    return [LayerCheck(tuple(group), structure.graph.rows_depend) for group in chosen]


def _fuse(layers: Sequence[Layer], level: int) -> bool:
    """Whether layers, in order, are what a runtime computes in one kernel."""
    ops = [layer.held.op for layer in layers]
    if _is_product(ops):
        return True
    if level == 1:
        return len(ops) == 2 and ops[0] == "linear" and ops[1] != "linear" and len(layers[1].inputs) == 1
    if level == 2:
        return _elementwise(ops)
    # Some fusions are not made where their own value is asked for.
    return level == 3 and (_elementwise(ops) or (ops[-1] == "linear" and _elementwise(ops[:-1])))


def _is_product(ops: Sequence[str]) -> bool:
    """One product of two values with factors and permutations; of these alone at least one permutation, at the end."""
    others = [op for op in ops if op not in _SCALES]
    return others == ["matmul"] or (not others and ops[-1] == "permute")


def _elementwise(ops: Iterable[str]) -> bool:
    return not any(op in _APART or op in _MOVED for op in ops)
