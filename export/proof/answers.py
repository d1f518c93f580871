"""Rows with their exact answers and how far a float32 runtime may be from them: what a live server is asked.

The exact answer is the module's, in float64. The radius of every layer's result is carried through all layers behind
it by the rules of the proof (``export.proof.bounds``), so the bound holds for every correct float32 evaluation of the
whole network, on any device. Besides, what reduced precisions would answer is kept: a server that computes in one of
them is nearer to that answer than to the exact one, even where the bound is wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from .inputs import Inputs
from .layerwise import SLACK, expected
from .reference import evaluate
from .report import AnswersRecord, TensorRecord
from .rounding import Radius
from .rows import joined, output_shapes, split
from .structure import Layer, Structure

_ROWS = {"data": 12, "range": 12, "normal": 12}
"""Of each kind that there is: rows that a server's users would send, where nothing overflows."""
_BYTES = 2**18
"""Of the values that are kept, about; fewer rows of a wide network, one at least."""

_Value = tuple[Tensor, Radius]
_Step = Callable[[Layer, Sequence[_Value]], _Value]
_Rounding = Callable[[Tensor], Tensor]


def answers(structure: Structure, inputs: list[Inputs]) -> AnswersRecord | None:
    """What a live server is asked, from the first rows of the usual kinds; None where no row has a finite answer."""
    graph = structure.graph
    values, per_output = sum(map(prod, graph.inputs.values())), 8 + 8 + 4 * len(_REDUCED)
    most = max(1, _BYTES // (4 * values + per_output * sum(map(prod, output_shapes(graph).values()))))
    chosen = [given.rows[: min(_ROWS[given.kind], most)] for given in inputs if given.kind in _ROWS]
    rows = np.concatenate(chosen)[:most]
    with torch.inference_mode():
        x = torch.from_numpy(rows).double()
        exact, bound = _through(structure, x, lambda layer, given: expected(layer, *zip(*given, strict=True)))
        usable = (exact.isfinite() & bound.isfinite()).flatten(1).all(dim=1) & x.isfinite().flatten(1).all(dim=1)
        if not usable.any():
            return None
        x, exact, bound = x[usable], exact[usable], bound[usable]
        reduced = {name: _through(structure, x, _in(*rounding))[0] for name, rounding in _REDUCED.items()}
    outputs = dict(zip(structure.wiring.outputs, output_shapes(graph).values(), strict=True))

    def record(rows: Tensor, kind: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorRecord]:
        parts = split(rows.numpy().astype(kind), shapes)
        return {name: TensorRecord.of(part) for name, part in parts.items()}

    return AnswersRecord(
        rows=len(x),
        inputs=record(x, "float32", dict(structure.wiring.inputs)),
        exact=record(exact, "float64", outputs),
        bound=record(bound * SLACK, "float64", outputs),
        reduced={name: record(rows, "float32", outputs) for name, rows in reduced.items()},
    )


def _through(structure: Structure, x: Tensor, step: _Step) -> tuple[Tensor, Tensor]:
    """The outputs for rows x (rows, *row) of all inputs, layer by layer, and the radius that the layers leave."""
    graph = structure.graph
    values: dict[str, _Value] = {name: (part, None) for name, part in split(x, graph.inputs).items()}
    flattened = {node.output: node.inputs[0] for node in graph.nodes if node.op == "flatten"}

    def value(name: str) -> _Value:
        if name not in flattened:
            return values[name]
        y, radius = value(flattened[name])
        return y.flatten(1), None if radius is None else radius.flatten(1)

    for layer in structure.layers:
        y, radius = step(layer, [value(name) for name in layer.members[0].inputs])
        # Infinity times 0 is no bound either.
        values[layer.members[-1].output] = y, None if radius is None else radius.nan_to_num(torch.inf, torch.inf)
    outputs = [value(name) for name in graph.outputs.values()]
    return joined([y for y, _ in outputs]), joined([torch.zeros_like(y) if e is None else e for y, e in outputs])


def _truncated(values: Tensor) -> Tensor:
    """To TF32's 10 bits after the leading one, towards zero."""
    return (values.float().view(torch.int32) & ~0x1FFF).view(torch.float32)


def _nearest(values: Tensor) -> Tensor:
    """To TF32's 10 bits after the leading one, ties to even."""
    bits = values.float().view(torch.int32)
    return _truncated((bits + 0xFFF + ((bits >> 13) & 1)).view(torch.float32))


_REDUCED: dict[str, tuple[_Rounding, bool]] = {
    "TF32": (_nearest, False),
    "TF32, truncated": (_truncated, False),
    "bfloat16": (Tensor.bfloat16, True),
    "float16": (Tensor.half, True),
}
"""How each precision rounds, and whether it rounds what every layer gives or only the factors of products."""


def _in(rounding: _Rounding, everywhere: bool) -> _Step:
    """What a layer of the file gives where the factors of its product are rounded, or every value that it takes."""

    def step(layer: Layer, given: Sequence[_Value]) -> _Value:
        held = layer.held
        if everywhere or held.op == "linear":
            rounded = {r: replace(t, values=_rounded(t.values, rounding)) for r, t in held.tensors.items()}
            if not everywhere:
                rounded = {**held.tensors, "weight": rounded["weight"]}
            held, given = replace(held, tensors=rounded), [(rounding(z).double(), None) for z, _ in given]
        y = evaluate(held, [z for z, _ in given])
        return rounding(y).double() if everywhere else y, None

    return step


def _rounded(values: np.ndarray, rounding: _Rounding) -> np.ndarray:
    return rounding(torch.from_numpy(np.ascontiguousarray(values)).float()).float().numpy()
