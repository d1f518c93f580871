"""Evaluations of a network that round as float32 may, and some that round as badly as any may."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export import export
from export.graph import Node
from export.onnxfile.reading import read_model
from export.proof.layer import Layer
from export.proof.layer_bounds import Step, Value, compute, walk
from export.proof.rules import RULES
from export.proof.rules.common import Radius
from export.proof.structure import Structure, match
from export.trace import signature_of, trace

U = 2.0**-24
MODES = ("float32", "random", "upwards", "adverse")


def structure_of(module: nn.Module, features: int, folder: Path) -> Structure:
    """The layers of a module's file."""
    artifact = export(module, folder / "m.onnx", input_shape=(features,))
    return match(trace(module, signature_of(module, input_shape=(features,))), read_model(artifact.path))


def outputs_by(structure: Structure, rows: np.ndarray, step: Step) -> Value:
    (name,) = structure.wiring.inputs
    (output,) = structure.wiring.outputs
    with torch.no_grad():
        values = walk(structure.layers, {name: (torch.from_numpy(rows).double(), None)}, len(rows), step)
    return values[structure.values[output]]


class Evaluation:
    """An evaluation in which every operation rounds by at most as much as float32 may, in a direction of its own.

    "exact" rounds nothing; "float32" rounds sums to float32 in a random order, "random" moves each result by its whole
    rounding up or down, "upwards" always up, and "adverse" each as it moves the network's first output furthest.
    """

    def __init__(self, mode: str, seed: int, directions: dict[str, Tensor]):
        self.mode, self.rng, self.directions = mode, np.random.default_rng(seed), directions

    def step(self, layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
        node, rows = layer.expected, len(z[0])
        y = compute(layer, z, torch.float64, rows)
        if self.mode == "exact" or not y.is_floating_point():
            return y, None
        direction = self._direction(layer, y)
        if node.op == "linear" and z[0].ndim == 2:
            return torch.from_numpy(self._sums(node, z[0].numpy(), direction.numpy())), None
        if self.mode == "float32":
            return y.float().double(), None
        moved = direction * RULES[node.op](node, z, [None] * len(z), y)
        exact = (y == 0) if node.op in ("add", "sub", "mul", "div") else torch.zeros_like(y, dtype=torch.bool)
        return torch.where(exact, 0.0, y + moved), None

    def _direction(self, layer: Layer, y: Tensor) -> Tensor:
        if self.mode == "adverse" and layer.output in self.directions:
            return self.directions[layer.output]
        if self.mode == "upwards":
            return torch.ones_like(y)
        return torch.from_numpy(self.rng.choice([-1.0, 1.0], y.shape))

    @np.errstate(all="ignore")  # infinite terms have no sum
    def _sums(self, node: Node, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Σ w·x + b term by term in a random order."""
        weight = node.tensors["weight"].values.astype(np.float64)
        terms = x[:, None, :] * weight[None]
        if "bias" in node.tensors:
            bias = np.broadcast_to(node.tensors["bias"].values.astype(np.float64)[None, :, None], (*terms.shape[:2], 1))
        else:
            bias = terms[..., :0]
        terms = np.concatenate([self._rounded(terms, direction[..., None]), bias], axis=2)
        total = np.zeros(terms.shape[:2])
        for term in self.rng.permutation(terms.shape[2]):
            added = terms[:, :, term]
            rounded = self._rounded(total + added, direction)
            total = np.where((total == 0) | (added == 0), total + added, rounded)
        return total

    @np.errstate(all="ignore")
    def _rounded(self, values: np.ndarray, direction: np.ndarray) -> np.ndarray:
        if self.mode == "float32":
            return values.astype(np.float32).astype(np.float64)
        return values + direction * U * np.abs(values)


def adverse(structure: Structure, rows: np.ndarray) -> dict[str, Tensor]:
    """The direction in which each value moves the first output up."""
    shifts: dict[str, Tensor] = {}

    def step(layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
        y = compute(layer, z, torch.float64, len(rows))
        if not y.is_floating_point():
            return y, None
        shifts[layer.output] = torch.zeros_like(y).requires_grad_()
        return y + shifts[layer.output], None

    (name,), (output,) = structure.wiring.inputs, structure.wiring.outputs
    values = walk(structure.layers, {name: (torch.from_numpy(rows).double(), None)}, len(rows), step)
    last, _ = values[structure.values[output]]
    found = torch.autograd.grad(last.reshape(len(rows), -1)[:, 0].sum(), [*shifts.values()], allow_unused=True)
    return {
        key: torch.where(part >= 0, 1.0, -1.0).double()
        for key, part in zip(shifts, found, strict=True)
        if part is not None
    }
