"""The layers and their bounds as a whole network: what to ask a live server, and the errors from end to end.

For a live server: rows, their exact outputs (the module's, in float64), and how far a float32 runtime may be from them.
The radius of each layer's value is carried through the later layers by the rules of the proof (``export.proof.rules``),
so the bound holds for every correct float32 evaluation of the network, on any device. The outputs in reduced precisions
are kept too: a server that computes in one of them is nearer to those than to the exact ones, even with wide bounds.

For the report: how far the file's outputs are from the module's; figures with the worst input, not part of the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Row
from runtime import Port

from .affine_forms import AffineForms, work_per_row
from .eager import EagerModule, run_graph
from .exposing import Exposure, exposing_rows, outputs_within
from .inputs import Inputs
from .layer_bounds import SLACK, Step, Value, bounded, reshaped, walk
from .report import AnswersRecord, EndToEnd, TensorRecord
from .rows import absolute_difference, as_tensors, join, row_shapes, split, tensor_of
from .rules.common import Radius
from .sensitivities import Sensitivities
from .structure import Layer, Structure

_ROWS = {"data": 12, "range": 12, "normal": 12}
"""At most of each kind: rows that users of a server would send, where nothing overflows."""
_EXPOSING = 36
"""At most, of the rows that show single weights."""
_WORK = 2**30
"""Products that the bounds of all rows may take; a deep network has no rows of that kind."""
_BYTES = 2**18
"""About, of the values that are kept; a wide network has fewer rows, at least one."""
_SAMPLED_ROWS, _SAMPLED_OUTPUTS = 32, 16

_Rounding = Callable[[Tensor], Tensor]


def answers(structure: Structure, inputs: list[Inputs], port: Port) -> AnswersRecord | None:
    """Rows to ask a live server for, the first of the usual kinds and others that show single weights.

    None where no row has a finite answer. The ``port`` declares the ranges of the input.
    """
    graph = structure.graph
    if graph.rows_depend:  # a server may batch the rows of several requests
        return None
    shapes = structure.wiring.outputs
    values, per_output = sum(map(prod, row_shapes(graph.inputs).values())), 8 + 8 + 4 * len(_REDUCED)
    most = max(1, _BYTES // (4 * values + per_output * sum(map(prod, shapes.values()))))
    chosen = [each.rows[: min(_ROWS[each.kind], most)] for each in inputs if each.kind in _ROWS]
    rows = np.concatenate(chosen)[:most]

    def by_steps(rows: np.ndarray, step: Step) -> Tensor:
        return _outputs(structure, rows, step)[0]

    few = min(_EXPOSING, most - len(rows), _WORK // (1 + work_per_row(structure.layers)) - len(rows))
    exposing = exposing_rows(structure, by_steps, rows, port, few)
    rows = np.concatenate([rows, exposing])
    with torch.inference_mode():
        exact, bound = _outputs(structure, rows, AffineForms(len(rows)).step)
        bound = bound * SLACK
        parts = (tensor_of(rows), exact, bound)
        finite = torch.stack([part.isfinite().reshape(len(rows), -1).all(dim=1) for part in parts]).all(dim=0)
        if not finite.any():
            return None
        rows, exact, bound = rows[finite.numpy()], exact[finite], bound[finite]
        reduced = {
            n: _outputs(structure, rows, _reduced_step(*rounding, len(rows)))[0] for n, rounding in _REDUCED.items()
        }
    sampled = outputs_within(structure, len(rows))
    flat = bound.reshape(len(rows), -1).numpy()
    return AnswersRecord(
        rows=len(rows),
        inputs={name: TensorRecord.of(part) for name, part in structure.wiring.feed(rows).items()},
        exact=_records(exact, "float64", shapes),
        bound=_records(bound, "float64", shapes),
        reduced={name: _records(values, "float32", shapes) for name, values in reduced.items()},
        seen=Exposure.of(by_steps, rows, flat, sampled).record() if sampled else None,
    )


def _records(rows: Tensor, kind: str, shapes: Mapping[str, Row]) -> dict[str, TensorRecord]:
    return {name: TensorRecord.of(part) for name, part in split(rows.numpy().astype(kind), shapes).items()}


def _outputs(structure: Structure, rows: np.ndarray, step: Step) -> tuple[Tensor, Tensor]:
    """The rows of all outputs for rows of all inputs, and their radii, by ``step`` at each layer."""
    parts = as_tensors(rows, structure.wiring.inputs, torch.float64)
    values = walk(structure.layers, {name: (part, None) for name, part in parts.items()}, len(rows), step)
    shapes = structure.wiring.outputs.items()
    outputs = [reshaped(values[structure.values[name]], (len(rows), *row)) for name, row in shapes]
    radii = [torch.zeros_like(y, dtype=torch.float64) if e is None else e for y, e in outputs]
    return join([y.double() for y, _ in outputs]), join(radii)


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
"""How each precision rounds, and whether it rounds the values of all layers or only the factors of products."""


def _reduced_step(rounding: _Rounding, everywhere: bool, rows: int) -> Step:
    """A layer of the file in a reduced precision: the factors of its product are rounded, or all of its values."""

    def rounded(values: Tensor) -> Tensor:
        return rounding(values).to(values.dtype) if values.is_floating_point() else values

    def step(layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
        node = layer.expected
        if everywhere or node.op == "linear":
            tensors = {
                role: replace(t, values=rounded(tensor_of(np.ascontiguousarray(t.values))).numpy())
                for role, t in node.tensors.items()
                if t.values.dtype == np.float32 and (everywhere or role == "weight")
            }
            node, z = replace(node, tensors={**node.tensors, **tensors}), [rounded(values) for values in z]
        y = evaluate(node, z, precision=torch.float64, rows=rows)
        return rounded(y) if everywhere else y, None

    return step


def end_to_end(
    eager: EagerModule, structure: Structure, usual: Sequence[tuple[Inputs, np.ndarray]], seed: int
) -> EndToEnd:
    """The largest differences between the outputs of the file, of eager PyTorch and the exact ones, on usual rows."""
    rows = np.concatenate([inputs.rows for inputs, _ in usual])
    file = np.concatenate([output for _, output in usual])
    with torch.inference_mode():  # with the options rounded to float32, as every float32 kernel has them
        exact = run_graph(structure.graph, rows, torch.float64)
    single = eager(rows)
    errors = absolute_difference(file, exact).reshape(len(rows), -1)
    origin = [(inputs.kind, row) for inputs, _ in usual for row in range(len(inputs.rows))]
    worst_inputs, worst_row = origin[int(np.argmax(errors.max(axis=1)))]
    share, sampled_rows, sampled_outputs = _first_order(structure, rows, errors, seed)
    return EndToEnd(
        rows=len(rows),
        from_float64=float(errors.max(initial=0.0)),
        from_eager=float(absolute_difference(file, single.astype(np.float64)).max(initial=0.0)),
        eager_from_float64=float(absolute_difference(single, exact).max(initial=0.0)),
        magnitude=float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0)),
        bound_share=share,
        sampled_rows=sampled_rows,
        sampled_outputs=sampled_outputs,
        worst_inputs=worst_inputs,
        worst_row=worst_row,
        bit_equal_to_eager=float((file == single).mean()),
    )


def _first_order(structure: Structure, rows: np.ndarray, errors: np.ndarray, seed: int) -> tuple[float, int, int]:
    """The largest error as a share of Σ over layers of abs(Jacobian) · layer bound, on sampled rows and outputs.

    ``errors`` (rows, outputs) are the distances from float64. It is a first-order estimate: the derivative of the exact
    network carries the layers' bounds to the output. Returns the share and the numbers of rows and outputs.
    """
    chosen = np.random.default_rng(seed).choice(len(rows), min(_SAMPLED_ROWS, len(rows)), replace=False)
    outputs = np.argsort(-errors[chosen].max(axis=0), kind="stable")[:_SAMPLED_OUTPUTS]

    def own(layer: Layer, z: Sequence[Tensor], _y: Tensor) -> Tensor:
        return bounded(layer, z, [None] * len(z), len(chosen))[1]

    last, found = Sensitivities.of(lambda step: _outputs(structure, rows[chosen], step)[0], len(chosen), own)
    share = 0.0
    for output in outputs.tolist():
        bound = found.first_order(found.of_output(last, output))
        error = tensor_of(errors[chosen][:, output])
        ratio = torch.where(error == 0, 0.0, error / bound)
        finite = ratio[ratio.isfinite()]
        share = max(share, float(finite.max()) if len(finite) else 0.0)
    return share, len(chosen), len(outputs)
