"""What the layers and their bounds make of the whole network.

For a live server: rows with their exact answers and how far a float32 runtime may be from them. The exact answer is the
module's, in float64. The radius of every layer's result is carried through all layers behind it by the rules of the
proof (``export.proof.rules``), so the bound holds for every correct float32 evaluation of the whole network, on any
device. Besides, what reduced precisions would answer is kept: a server that computes in one of them is nearer to that
answer than to the exact one, even where the bound is wide.

For the report: how far the output of the whole file is from the module's; figures with the worst input, no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Row, Shape

from .eager import Called, traced
from .inputs import Inputs
from .layer_bounds import SLACK, Step, Value, expected, seen_as, walk
from .report import AnswersRecord, EndToEnd, TensorRecord
from .rows import apart, by_row, given_to, joined, rows_of_inputs, split
from .rules.common import Radius
from .structure import Layer, Structure

_ROWS = {"data": 12, "range": 12, "normal": 12}
"""Of each kind that there is: rows that a server's users would send, where nothing overflows."""
_BYTES = 2**18
"""Of the values that are kept, about; fewer rows of a wide network, one at least."""
_SAMPLED_ROWS, _SAMPLED_OUTPUTS = 32, 16

_Rounding = Callable[[Tensor], Tensor]


def answers(structure: Structure, inputs: list[Inputs]) -> AnswersRecord | None:
    """What a live server is asked, from the first rows of the usual kinds; None where no row has a finite answer."""
    graph = structure.graph
    if graph.rows_depend:  # a server may join the rows of several requests
        return None
    shapes = structure.wiring.outputs
    values, per_output = sum(map(prod, rows_of_inputs(graph.inputs).values())), 8 + 8 + 4 * len(_REDUCED)
    most = max(1, _BYTES // (4 * values + per_output * sum(map(prod, shapes.values()))))
    chosen = [given.rows[: min(_ROWS[given.kind], most)] for given in inputs if given.kind in _ROWS]
    rows = np.concatenate(chosen)[:most]

    def bounded(layer: Layer, z: Sequence[Tensor], e: Sequence[Radius]) -> Value:
        y, radius = expected(layer, z, e, len(rows))
        # Infinity times 0 is no bound either.
        return y, radius.nan_to_num(torch.inf, torch.inf).expand(y.shape)

    with torch.inference_mode():
        exact, bound = _outputs(structure, rows, bounded)
        parts = (torch.from_numpy(rows), exact, bound)
        usable = torch.stack([part.isfinite().reshape(len(rows), -1).all(dim=1) for part in parts]).all(dim=0)
        if not usable.any():
            return None
        rows, exact, bound = rows[usable.numpy()], exact[usable], bound[usable]
        reduced = {n: _outputs(structure, rows, _in(*rounding, len(rows)))[0] for n, rounding in _REDUCED.items()}
    return AnswersRecord(
        rows=len(rows),
        inputs={name: TensorRecord.of(part) for name, part in structure.wiring.feed(rows).items()},
        exact=_records(exact, "float64", shapes),
        bound=_records(bound * SLACK, "float64", shapes),
        reduced={name: _records(values, "float32", shapes) for name, values in reduced.items()},
    )


def _records(rows: Tensor, kind: str, shapes: Mapping[str, Row]) -> dict[str, TensorRecord]:
    return {name: TensorRecord.of(part) for name, part in split(rows.numpy().astype(kind), shapes).items()}


def _outputs(structure: Structure, rows: np.ndarray, step: Step) -> tuple[Tensor, Tensor]:
    """The rows of all outputs for rows of all inputs, layer by layer, and the radius that the layers leave."""
    parts = given_to(rows, structure.wiring.inputs, torch.float64)
    values = walk(structure.layers, {name: (part, None) for name, part in parts.items()}, len(rows), step)
    shapes = structure.wiring.outputs.items()
    last = [seen_as(values[structure.values[name]], (len(rows), *row)) for name, row in shapes]
    radii = [torch.zeros_like(y, dtype=torch.float64) if e is None else e for y, e in last]
    return joined([y.double() for y, _ in last]), joined(radii)


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


def _in(rounding: _Rounding, everywhere: bool, rows: int) -> Step:
    """What a layer of the file gives where the factors of its product are rounded, or every value that it takes."""

    def rounded(values: Tensor) -> Tensor:
        """Whole numbers and truths stay as they are."""
        return rounding(values).to(values.dtype) if values.is_floating_point() else values

    def step(layer: Layer, z: Sequence[Tensor], e: Sequence[Radius]) -> Value:
        held = layer.held
        if everywhere or held.op == "linear":
            tensors = {
                role: replace(t, values=rounded(torch.from_numpy(np.ascontiguousarray(t.values))).numpy())
                for role, t in held.tensors.items()
                if t.values.dtype == np.float32 and (everywhere or role == "weight")
            }
            held, z = replace(held, tensors={**held.tensors, **tensors}), [rounded(values) for values in z]
        y = evaluate(held, z, precision=torch.float64, rows=rows)
        return rounded(y) if everywhere else y, None

    return step


def end_to_end(eager: Called, structure: Structure, usual: Sequence[tuple[Inputs, np.ndarray]], seed: int) -> EndToEnd:
    """The largest differences between the file's output, eager PyTorch's and the exact one, over some inputs."""
    rows = np.concatenate([given.rows for given, _ in usual])
    found = np.concatenate([output for _, output in usual])
    with torch.inference_mode():  # with the options as float32, as every float32 kernel has them
        exact = traced(structure.graph, rows, torch.float64)
    single = eager(rows)
    away = apart(found, exact).reshape(len(rows), -1)
    origin = [(given.kind, row) for given, _ in usual for row in range(len(given.rows))]
    worst_inputs, worst_row = origin[int(np.argmax(away.max(axis=1)))]
    share, sampled_rows, sampled_outputs = _first_order(structure, rows, away, seed)
    return EndToEnd(
        rows=len(rows),
        from_float64=float(away.max(initial=0.0)),
        from_eager=float(apart(found, single.astype(np.float64)).max(initial=0.0)),
        eager_from_float64=float(apart(single, exact).max(initial=0.0)),
        magnitude=float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0)),
        bound_share=share,
        sampled_rows=sampled_rows,
        sampled_outputs=sampled_outputs,
        worst_inputs=worst_inputs,
        worst_row=worst_row,
        bit_equal_to_eager=float((found == single).mean()),
    )


def _first_order(structure: Structure, rows: np.ndarray, apart: np.ndarray, seed: int) -> tuple[float, int, int]:
    """The largest difference as a share of Σ over layers of abs(Jacobian) · layer bound, on sampled rows and outputs.

    ``apart`` (rows, outputs) are the differences from float64. It is a first-order estimate: the layers' bounds are
    taken to the output by the derivative of the exact network. Returns the share, and how many rows and outputs.
    """
    chosen = np.random.default_rng(seed).choice(len(rows), min(_SAMPLED_ROWS, len(rows)), replace=False)
    outputs = np.argsort(-apart[chosen].max(axis=0), kind="stable")[:_SAMPLED_OUTPUTS]
    moved: list[Tensor] = []
    bounds: list[tuple[Tensor, Shape]] = []

    def step(layer: Layer, z: Sequence[Tensor], e: Sequence[Radius]) -> Value:
        y, radius = expected(layer, z, e, len(chosen))
        if not y.is_floating_point():
            return y, None
        moved.append(torch.zeros_like(y).requires_grad_())
        bounds.append((radius.detach().expand(y.shape), layer.held.shape))
        return y + moved[-1], None

    last = _outputs(structure, rows[chosen], step)[0].reshape(len(chosen), -1)
    if not last.requires_grad:
        return 0.0, len(chosen), len(outputs)
    share = 0.0
    for output in outputs.tolist():
        gradients = torch.autograd.grad(last[:, output].sum(), moved, retain_graph=True, allow_unused=True)
        bound = torch.zeros(len(chosen), dtype=torch.float64)
        for gradient, (radius, shape) in zip(gradients, bounds, strict=True):
            if gradient is not None:
                bound += by_row(gradient.abs() * radius, len(chosen), shape).sum(dim=1)
        found = torch.from_numpy(apart[chosen][:, output])
        ratio = torch.where(found == 0, 0.0, found / bound)
        finite = ratio[ratio.isfinite()]
        share = max(share, float(finite.max()) if len(finite) else 0.0)
    return share, len(chosen), len(outputs)
