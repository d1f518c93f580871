"""Rows that show errors of single weights, and how large an error they leave unseen.

A weight w of a matrix that is wrong by δ moves an output, to first order, by |g·x·δ|: x is the value that it is
multiplied with and g the derivative of the output by the sum that the product is part of. It is seen where that is more
than the bound b of the output: where |δ| > b / |g·x|.

On the rows that a model is for many terms add up, so their bounds are wide and one weight is a small part of them. With
all features but a few at the value that is 0 behind a normaliser, few terms are left: their bounds are narrow, and each
weight of those columns shows. Of many such rows the best are chosen, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.graph import Rows
from runtime import Port
from runtime.model.port import limits

from .inputs import Domain
from .layer_bounds import Step, bounded
from .own_roundings import own_roundings
from .report import SeenRecord, SeenWeightsRecord
from .rows import row_shape, tensor_of
from .rules.arithmetic import is_affine
from .sensitivities import Sensitivities
from .structure import Layer, Structure

Outputs = Callable[[np.ndarray, Step], Tensor]
"""The exact outputs (rows, outputs) for rows, by a step."""
_CANDIDATES, _FEATURES = 192, 12
"""Rows to choose from, and the features that one of them moves alone."""
_SAMPLED, _OUTPUTS = 1024, 16
"""The weights that rows are chosen for, and the outputs that are looked at."""
_AWAY = 4.0
"""How far from 0 a feature without a range is moved, behind the normaliser."""
_FAINT = 1e-200
"""Nobody sees an error that moves an answer by so few bounds per unit."""
_PRODUCTS = 2**26
"""Of weights, rows and outputs: where there are more, fewer rows or outputs are looked at."""


@dataclass(frozen=True)
class _Matrix:
    """A linear layer on rows."""

    path: str
    weights: np.ndarray
    """(outputs, inputs)."""
    x: np.ndarray
    """(rows, inputs): the size of what they are multiplied with."""
    seen: np.ndarray
    """(rows, outputs): the largest |g| / b of the network's outputs."""


@dataclass(frozen=True)
class Exposure:
    """How weights show on rows. ``together`` (rows,): how far an output moves, in bounds, per common relative error."""

    matrices: list[_Matrix]
    together: np.ndarray

    @classmethod
    def of(cls, outputs: Outputs, rows: np.ndarray, bound: np.ndarray | None = None, most: int = _OUTPUTS) -> Exposure:
        """For rows with the ``bound`` (rows, outputs); without it that of first order. Of ``most`` outputs."""

        def own(layer: Layer, z: Sequence[Tensor], y: Tensor) -> Tensor:
            if not all(part.is_floating_point() for part in z):
                return bounded(layer, z, [None] * len(z), len(rows))[1]
            return own_roundings(layer, z, [None] * len(z), y.abs())

        count = len(rows)
        values, found = Sensitivities.of(lambda step: outputs(rows, step), count, own)
        picked = [i for i, layer in enumerate(found.layers) if _is_matrix(layer, found.inputs[i])]
        sums = [(found.inputs[i][0] @ _weight(found.layers[i]).T) for i in picked]
        seen = [torch.zeros_like(each) for each in sums]
        together = torch.zeros(count, dtype=torch.float64)
        for output in range(min(values.shape[1], most)):
            gradients = found.of_output(values, output)
            limit = found.first_order(gradients) if bound is None else tensor_of(bound)[:, output]
            per_bound = torch.where(limit > 0, 1 / limit, 0.0)
            moved = torch.zeros(count, dtype=torch.float64)
            for place, index in enumerate(picked):
                if (gradient := gradients[index]) is not None:
                    gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
                    seen[place] = torch.maximum(seen[place], gradient.abs() * per_bound[:, None])
                    moved += (gradient * sums[place]).sum(dim=1)
            together = torch.maximum(together, moved.abs() * per_bound)
        matrices = [
            _Matrix(layer.path, layer.expected.tensors["weight"].values, found.inputs[i][0].abs().numpy(), s.numpy())
            for i, layer, s in zip(picked, (found.layers[i] for i in picked), seen, strict=True)
        ]
        return cls(matrices, together.numpy())

    def record(self) -> SeenRecord:
        """The smallest errors that show on some row."""
        return SeenRecord(
            together=_inverse(self.together.max(initial=0.0)), layers=[_seen_weights(each) for each in self.matrices]
        )


def _weight(layer: Layer) -> Tensor:
    return tensor_of(np.ascontiguousarray(layer.expected.tensors["weight"].values)).double()


def _is_matrix(layer: Layer, z: Sequence[Tensor]) -> bool:
    """Whether a layer is a matrix on the rows themselves, not on parts of each, as attention has."""
    is_linear = layer.expected.op == "linear" and "weight" in layer.expected.tensors
    return is_linear and z[0].ndim == 2 and layer.input_shapes[0][0] == Rows()


def _inverse(value: float) -> float | None:
    return 1 / float(value) if value > 0 else None


def _seen_weights(matrix: _Matrix) -> SeenWeightsRecord:
    best = np.zeros(matrix.weights.shape)
    for seen, x in zip(matrix.seen, matrix.x, strict=True):
        np.maximum(best, seen[:, None] * x, out=best)
    shown = best > _FAINT
    absolute = 1 / best[shown]
    size = np.abs(matrix.weights[shown].astype(np.float64))
    relative = absolute[size > 0] / size[size > 0]
    figures = {
        f"{kind}_{name}": float(figure(errors)) if errors.size else None
        for kind, errors in (("absolute", absolute), ("relative", relative))
        for name, figure in (("median", np.median), ("worst", np.max))
    }
    return SeenWeightsRecord(layer=matrix.path, weights=best.size, unseen=int((~shown).sum()), **figures)


def outputs_within(structure: Structure, rows: int) -> int:
    """Of how many outputs the derivatives on so many rows are worth their time; 0 if of none."""
    weights = sum(layer.parameters for layer in structure.layers)
    return min(_OUTPUTS, _PRODUCTS // max(1, weights * rows))


def exposing_rows(structure: Structure, outputs: Outputs, usual: np.ndarray, port: Port, most: int) -> np.ndarray:
    """At most so many rows besides the ``usual`` ones, chosen so that the weights show as well as may be.

    Each row is the one that lowers the mean over a sample of weights of the smallest relative error that shows, at most
    1, by most; the first is the one that best shows an error of all weights.
    """
    sampled = outputs_within(structure, _CANDIDATES)
    rows = _candidates(structure, outputs, port) if most > 0 and sampled else None
    if rows is None:
        return usual[:0]
    exposure = Exposure.of(outputs, np.concatenate([usual, rows]), most=sampled)
    errors = _errors_of_sample(exposure)
    left = errors[: len(usual)].min(axis=0, initial=1.0)
    errors = errors[len(usual) :]
    chosen = [int(exposure.together[len(usual) :].argmax())]
    while len(chosen) < min(most, len(rows)):
        left = np.minimum(left, errors[chosen[-1]])
        gains = left.sum() - np.minimum(errors, left).sum(axis=1)
        if not gains.max(initial=0.0) > 0:
            break
        chosen.append(int(gains.argmax()))
    return rows[chosen]


def _errors_of_sample(exposure: Exposure) -> np.ndarray:
    """(rows, weights): the smallest relative errors of sampled weights that show on each row."""
    rng = np.random.default_rng(0)
    each = max(1, _SAMPLED // max(1, len(exposure.matrices)))
    parts = [np.empty((len(exposure.together), 0))]
    for matrix in exposure.matrices:
        picked = rng.choice(matrix.weights.size, min(each, matrix.weights.size), replace=False)
        i, j = np.unravel_index(picked, matrix.weights.shape)
        moved = matrix.seen[:, i] * matrix.x[:, j] * np.abs(matrix.weights[i, j])
        parts.append(1 / np.maximum(moved, 1.0))
    return np.concatenate(parts, axis=1)


def _candidates(structure: Structure, outputs: Outputs, port: Port) -> np.ndarray | None:
    """Rows with one to nine features away from what is 0 behind the normaliser; None where there is no such row.

    They stay within the declared ranges.
    """
    shape, domain = row_shape(structure.graph.inputs), Domain(structure.graph.inputs)
    resting = _resting(structure, outputs, shape) if domain.is_free else None
    if resting is None:
        return None
    rest, unit = resting
    low, high = rest - _AWAY * unit, rest + _AWAY * unit
    declared = limits(port)
    if declared is not None:
        low, high = (np.where(np.isnan(end), own, end) for end, own in zip(declared, (low, high), strict=True))
        rest = rest.clip(low, high)
    rng, features = np.random.default_rng(0), len(rest)
    alone = rng.choice(features, min(features, _FEATURES), replace=False)
    moved = [[feature] for feature in alone for _end in range(2)]
    several = [rng.choice(features, min(features, 2 + i % 8), replace=False) for i in range(_CANDIDATES - len(moved))]
    rows = np.repeat(rest[None], len(moved) + len(several), axis=0)
    for row, places in enumerate([*moved, *several]):
        ends = np.full(len(places), row % 2) if row < len(moved) else rng.integers(0, 2, len(places))
        rows[row, places] = np.where(ends == 1, high[places], low[places])
    return rows.astype(np.float32).reshape(-1, *shape)


def _resting(structure: Structure, outputs: Outputs, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """The row that is 0 before the first matrix, and what moves each feature there by 1; None where it has no such."""
    first = next((i for i, layer in enumerate(structure.layers) if layer.expected.op == "linear"), None)
    if first is None or not all(is_affine(layer.expected) for layer in structure.layers[:first]):
        return None
    ends = np.stack([np.zeros(shape, np.float32), np.ones(shape, np.float32)])
    _, found = Sensitivities.of(lambda step: outputs(ends, step), 2, lambda _layer, _z, y: torch.zeros_like(y))
    inputs = found.inputs[first][0]
    if inputs.numel() != ends.size:
        return None
    at_zero, at_one = inputs.reshape(2, -1).numpy()
    slope = at_one - at_zero
    with np.errstate(all="ignore"):
        rest, unit = -at_zero / slope, np.abs(1 / slope)
    return np.nan_to_num(rest, posinf=0.0, neginf=0.0), np.nan_to_num(unit, posinf=0.0, neginf=0.0)
