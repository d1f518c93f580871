"""The largest errors that float32 runtimes are seen to make in a box: what stands beside a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from export.proof.layer import Layer
from export.proof.layer_bounds import Value, compute, walk
from export.proof.rows import absolute_difference, as_tensors
from export.proof.rules.common import Radius

from .boxes import Box
from .enclosing import Network
from .errors import outputs_of

Evaluation = Callable[[np.ndarray], np.ndarray]
"""Rows of all inputs, in their own shape, to rows of all outputs, by a float32 runtime."""
_DRAWN, _ROUNDS, _BRED = 256, 6, 128
"""Rows drawn at first; then rounds of so many rows bred from those with the largest errors."""


def outputs(network: Network, rows: np.ndarray, precision: torch.dtype) -> np.ndarray:
    """The outputs (rows, values) of the file's network by PyTorch in one precision, for rows of all inputs."""
    structure = network.structure

    def step(layer: Layer, z: Sequence[torch.Tensor], _e: Sequence[Radius]) -> Value:
        return compute(layer, z, precision, len(rows)), None

    with np.errstate(all="ignore"), torch.inference_mode():
        parts = as_tensors(rows, structure.wiring.inputs, precision)
        values = walk(network.layers, {name: (part, None) for name, part in parts.items()}, len(rows), step)
        found = [values[name][0].double().reshape(len(rows), -1) for name in outputs_of(network)]
    return torch.cat(found, dim=1).numpy()


def eager(network: Network) -> Evaluation:
    """PyTorch's own float32 kernels."""
    return partial(outputs, network, precision=torch.float32)


def largest_errors(
    network: Network,
    box: Box,
    corner: np.ndarray,
    evaluations: Sequence[Evaluation],
    most: float = float("inf"),
    data: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The largest error of each output (values,) that the evaluations make on rows of the box.

    ``corner`` (values, features) are coefficients whose signs say at which end of each feature the bound of an output
    is largest. Rows are drawn anywhere and in corners, and bred from those with the largest errors; as many as take
    ``most`` products for each evaluation, at least a few. The first rows of ``data`` are tried too.
    """
    rng = np.random.default_rng(seed)
    weights = sum(transfer.weight.size for transfer in network.transfers if transfer.kind == "matrix")
    share = min(1.0, most / max(1, weights * (_DRAWN + _ROUNDS * _BRED)))
    drawn, bred = max(8, int(share * _DRAWN)), max(2, int(share * _BRED))
    features = corner.shape[1]
    worst = (corner > 0).astype(np.float64)
    near = worst[rng.integers(0, len(worst), drawn // 4)]
    pool = np.concatenate(
        [
            rng.random((drawn // 2, features)),
            rng.integers(0, 2, (drawn // 4, features)).astype(np.float64),
            worst[: drawn // 4],
            np.where(rng.random(near.shape) < 0.1, 1 - near, near),
        ]
    )
    errors = _errors(network, box, pool, evaluations)
    for _ in range(_ROUNDS):
        best = np.unique(np.argsort(-errors, axis=0)[:4])[: 4 * bred]
        parents, others = (pool[best[rng.integers(0, len(best), bred)]] for _ in range(2))
        changed = rng.random(parents.shape) < rng.choice([0.02, 0.1, 0.5], (bred, 1))
        fresh = np.where(rng.random(parents.shape) < 0.5, others, rng.random(parents.shape))
        children = np.where(changed, fresh, parents)
        pool = np.concatenate([pool[best], children])
        errors = np.concatenate([errors[best], _errors(network, box, children, evaluations)])
    largest = errors.max(axis=0)
    if data is not None and len(data):
        largest = np.maximum(largest, _errors_of(network, data[: drawn + _ROUNDS * bred], evaluations).max(axis=0))
    return largest


def _errors(network: Network, box: Box, positions: np.ndarray, evaluations: Sequence[Evaluation]) -> np.ndarray:
    """(rows, values): the largest of all evaluations."""
    flat = box.rows(positions)
    shapes = list(box.shapes.values())
    rows = flat.reshape(len(flat), *shapes[0]) if len(shapes) == 1 else flat
    return _errors_of(network, rows, evaluations)


def _errors_of(network: Network, rows: np.ndarray, evaluations: Sequence[Evaluation]) -> np.ndarray:
    exact = outputs(network, rows, torch.float64)
    found = [absolute_difference(run(rows).reshape(exact.shape), exact) for run in evaluations]
    return np.stack(found).max(axis=0)
