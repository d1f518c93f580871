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

from export.evaluation import evaluate
from export.graph import Node

from .inputs import Inputs
from .layerwise import SLACK, expected
from .report import AnswersRecord, TensorRecord
from .rounding import Radius
from .rows import given_to, joined, output_shapes, rows_of_inputs, split
from .structure import Layer, Structure
from .walk import walk

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
    if graph.rows_depend:  # a server may join the rows of several requests
        return None
    shapes = rows_of_inputs(graph.inputs)
    values, per_output = sum(map(prod, shapes.values())), 8 + 8 + 4 * len(_REDUCED)
    most = max(1, _BYTES // (4 * values + per_output * sum(map(prod, output_shapes(graph).values()))))
    chosen = [given.rows[: min(_ROWS[given.kind], most)] for given in inputs if given.kind in _ROWS]
    rows = np.concatenate(chosen)[:most]
    with torch.inference_mode():
        x = torch.from_numpy(rows).double()

        def step(layer: Layer, given: Sequence[_Value]) -> _Value:
            return expected(layer, [z for z, _ in given], [e for _, e in given], len(rows))

        exact, bound = _through(structure, rows, step)
        usable = (exact.isfinite() & bound.isfinite()).reshape(len(x), -1).all(dim=1)
        usable &= x.isfinite().reshape(len(x), -1).all(dim=1)
        if not usable.any():
            return None
        x, rows, exact, bound = x[usable], rows[usable.numpy()], exact[usable], bound[usable]
        reduced = {name: _through(structure, rows, _in(*rounding, len(rows)))[0] for name, rounding in _REDUCED.items()}
    outputs = dict(zip(structure.wiring.outputs, output_shapes(graph).values(), strict=True))

    def record(rows: Tensor, kind: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorRecord]:
        parts = split(rows.numpy().astype(kind), shapes)
        return {name: TensorRecord.of(part) for name, part in parts.items()}

    return AnswersRecord(
        rows=len(x),
        inputs={name: TensorRecord.of(part) for name, part in structure.wiring.feed(rows).items()},
        exact=record(exact, "float64", outputs),
        bound=record(bound * SLACK, "float64", outputs),
        reduced={name: record(rows, "float32", outputs) for name, rows in reduced.items()},
    )


def _through(structure: Structure, rows: np.ndarray, step: _Step) -> tuple[Tensor, Tensor]:
    """The outputs for rows (rows, *row) of all inputs, layer by layer, and the radius that the layers leave."""

    def known(layer: Layer, given: Sequence[_Value]) -> _Value:
        y, radius = step(layer, given)
        # Infinity times 0 is no bound either.
        return y, None if radius is None else radius.nan_to_num(torch.inf, torch.inf).expand(y.shape)

    def moved(node: Node, given: _Value) -> _Value:
        y, radius = (None if part is None else evaluate(node, [part], rows=len(rows)) for part in given)
        assert y is not None
        return y, radius

    start = given_to(rows, structure.graph.inputs, torch.float64)
    outputs = walk(structure, {name: (part, None) for name, part in start.items()}, known, moved)
    return joined([y.double() for y, _ in outputs]), joined(
        [torch.zeros_like(y) if e is None else e for y, e in outputs]
    )


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


def _in(rounding: _Rounding, everywhere: bool, rows: int) -> _Step:
    """What a layer of the file gives where the factors of its product are rounded, or every value that it takes."""

    def step(layer: Layer, given: Sequence[_Value]) -> _Value:
        held = layer.held
        if everywhere or held.op == "linear":
            rounded = {r: replace(t, values=_rounded(t.values, rounding)) for r, t in held.tensors.items()}
            if not everywhere:
                rounded = {**held.tensors, "weight": rounded["weight"]}
            held, given = replace(held, tensors=rounded), [(_of_numbers(z, rounding), None) for z, _ in given]
        y = evaluate(held, [z for z, _ in given], precision=torch.float64, rows=rows)
        return _of_numbers(y, rounding) if everywhere else y, None

    return step


def _of_numbers(values: Tensor, rounding: _Rounding) -> Tensor:
    """Whole numbers and truths stay as they are."""
    return rounding(values).double() if values.is_floating_point() else values


def _rounded(values: np.ndarray, rounding: _Rounding) -> np.ndarray:
    if values.dtype != np.float32:
        return values
    return rounding(torch.from_numpy(np.ascontiguousarray(values)).float()).float().numpy()
