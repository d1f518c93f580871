"""How far the output of the whole file is from the module's: figures with the worst input, never the proof."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from export.evaluation import evaluate
from export.graph import Node, Shape

from .calling import Called, apart, traced
from .inputs import Inputs
from .layerwise import expected
from .report import EndToEnd
from .rows import by_row, given_to, joined
from .structure import Layer, Structure
from .walk import walk

ROWS, OUTPUTS = 32, 16


def measured(eager: Called, structure: Structure, usual: Sequence[tuple[Inputs, np.ndarray]], seed: int) -> EndToEnd:
    """The largest differences between the file's output, eager PyTorch's and the exact one, over some inputs."""
    rows = np.concatenate([given.rows for given, _ in usual])
    found = np.concatenate([output for _, output in usual])
    with torch.inference_mode():  # with the options as float32, as every float32 kernel has them
        exact = traced(structure.graph, rows, torch.float64)
    single = eager(rows)
    away = apart(found, exact).reshape(len(rows), -1)
    origin = [(given.kind, row) for given, _ in usual for row in range(len(given.rows))][
        int(np.argmax(away.max(axis=1)))
    ]
    share, sampled_rows, sampled_outputs = first_order(structure, rows, away, seed)
    return EndToEnd(
        rows=len(rows),
        from_float64=float(away.max(initial=0.0)),
        from_eager=float(apart(found, single.astype(np.float64)).max(initial=0.0)),
        eager_from_float64=float(apart(single, exact).max(initial=0.0)),
        magnitude=float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0)),
        bound_share=share,
        sampled_rows=sampled_rows,
        sampled_outputs=sampled_outputs,
        worst_inputs=origin[0],
        worst_row=origin[1],
        bit_equal_to_eager=float((found == single).mean()),
    )


def first_order(structure: Structure, rows: np.ndarray, apart: np.ndarray, seed: int) -> tuple[float, int, int]:
    """The largest difference as a share of Σ over layers of abs(Jacobian) · layer bound, on sampled rows and outputs.

    ``apart`` (rows, outputs) are the differences from float64. It is a first-order estimate: the layers' bounds are
    taken to the output by the derivative of the exact network. Returns the share, and how many rows and outputs.
    """
    chosen = np.random.default_rng(seed).choice(len(rows), min(ROWS, len(rows)), replace=False)
    outputs = np.argsort(-apart[chosen].max(axis=0), kind="stable")[:OUTPUTS]
    moved: list[torch.Tensor] = []
    radii: list[torch.Tensor] = []
    shapes: list[Shape] = []

    def step(layer: Layer, given: Sequence[torch.Tensor]) -> torch.Tensor:
        y, radius = expected(layer, given, [None] * len(given), len(chosen))
        if not y.is_floating_point():
            return y
        delta = torch.zeros_like(y).requires_grad_()
        moved.append(delta)
        radii.append(radius.detach().expand(y.shape))
        shapes.append(layer.held.shape)
        return y + delta

    def move(node: Node, given: torch.Tensor) -> torch.Tensor:
        return evaluate(node, [given], rows=len(chosen))

    outcome = walk(structure, given_to(rows[chosen], structure.graph.inputs, torch.float64), step, move)
    last = joined([value.double() for value in outcome]).reshape(len(chosen), -1)
    if not last.requires_grad:
        return 0.0, len(chosen), len(outputs)
    share = 0.0
    for output in outputs.tolist():
        gradients = torch.autograd.grad(last[:, output].sum(), moved, retain_graph=True, allow_unused=True)
        bound = torch.zeros(len(chosen), dtype=torch.float64)
        for gradient, radius, shape in zip(gradients, radii, shapes, strict=True):
            if gradient is not None:
                bound += by_row(gradient.abs() * radius, len(chosen), shape).sum(dim=1)
        found = torch.from_numpy(apart[chosen][:, output])
        ratio = torch.where(found == 0, 0.0, found / bound)
        finite = ratio[ratio.isfinite()]
        share = max(share, float(finite.max()) if len(finite) else 0.0)
    return share, len(chosen), len(outputs)
