"""Evaluations of a network for the benchmark of bounds: float32 with sums in a random order, and an adverse one.

``shuffled`` is a correct float32 evaluation: numpy adds the products of every matrix product, and the numbers of every
sum and mean, one after the other or along a random tree; all other operators are PyTorch's.

``adverse`` is none that a machine makes: in float64 every rounding moves its result as far as it may, in the direction
that moves one output furthest. A matrix product rounds each product and each sum, in the order in which partial sums
are largest; any other operator is off by the whole of its rule. It shows how much of a bound can be attained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.bounds.enclosing import Network
from export.bounds.errors import outputs_of
from export.graph import Node
from export.proof.layer import Layer
from export.proof.layer_bounds import Step, Value, compute, walk
from export.proof.rows import as_tensors, tensor_of
from export.proof.rules import RULES
from export.proof.rules.common import Radius
from export.proof.rules.constants import U

_TERMS = 2**21
"""Terms of sums that are held at a time."""
_EXACT_AT_ZERO = ("add", "sub", "mul", "div")
"""Where their result is 0, no rounding makes it another number."""


def shuffled(network: Network, rows: np.ndarray, seed: int) -> np.ndarray:
    """The outputs (rows, values) in float32, every sum in a random order, for rows of all inputs."""
    rng = np.random.default_rng(seed)

    def step(layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
        found = _summed(layer.expected, [part.numpy() for part in z], rng)
        return compute(layer, z, torch.float32, len(rows)) if found is None else tensor_of(found), None

    with np.errstate(all="ignore"), torch.inference_mode():
        return _walked(network, rows, torch.float32, step)[0].numpy()


def _walked(network: Network, rows: np.ndarray, precision: torch.dtype, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """The outputs (rows, values) in float64, and the tensors of the inputs."""
    inputs = as_tensors(rows, network.structure.wiring.inputs, precision)
    if precision == torch.float64:
        inputs = {n: part.clone().requires_grad_() if part.is_floating_point() else part for n, part in inputs.items()}
    values = walk(network.layers, {name: (part, None) for name, part in inputs.items()}, len(rows), step)
    found = [values[name][0].double().reshape(len(rows), -1) for name in outputs_of(network)]
    return torch.cat(found, dim=1), inputs


def _summed(node: Node, z: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    """What a matrix product, a sum or a mean gives in float32; None for any other operator."""
    if node.dtype != "float32" or any(part.dtype != np.float32 for part in z):
        return None
    if node.op == "linear" and "weight" in node.tensors:
        bias = node.tensors.get("bias")
        return _products(z[0], node.tensors["weight"].values, None if bias is None else bias.values, rng)
    if node.op == "matmul" and len(z) == 2 and min(z[0].ndim, z[1].ndim) >= 2:
        lead = np.broadcast_shapes(z[0].shape[:-2], z[1].shape[:-2])
        a, b = (np.broadcast_to(part, (*lead, *part.shape[-2:])).reshape(-1, *part.shape[-2:]) for part in z)
        found = [_products(x, w.T, None, rng) for x, w in zip(a, b, strict=True)]
        return np.stack(found).reshape(*lead, a.shape[-2], b.shape[-1])
    if node.op in ("sum", "mean") and z and z[0].ndim and node.attributes.get("dim"):
        dims = tuple(dim % z[0].ndim for dim in np.atleast_1d(node.attributes["dim"]).tolist())
        kept = node.attributes.get("keepdim", False)
        shape = [1 if axis in dims else n for axis, n in enumerate(z[0].shape) if kept or axis not in dims]
        moved = np.moveaxis(z[0], dims, range(-len(dims), 0))
        terms = moved.reshape(*moved.shape[: moved.ndim - len(dims)], -1)
        total = _in_some_order(terms, rng).reshape(shape)
        return total / np.float32(terms.shape[-1]) if node.op == "mean" else total
    return None


def _products(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The rows x @ weightᵀ + bias: each product rounded, then all added, the bias among them."""
    flat, parts = x.reshape(-1, x.shape[-1]), list[np.ndarray]()
    rows = max(1, _TERMS // max(1, weight.size))
    for start in range(0, len(flat), rows):
        terms = flat[start : start + rows, None, :] * weight[None]
        if bias is not None:
            terms = np.concatenate([terms, np.broadcast_to(bias[None, :, None], (*terms.shape[:2], 1))], axis=2)
        parts.append(_in_some_order(terms, rng))
    return np.concatenate(parts).reshape(*x.shape[:-1], len(weight))


def _in_some_order(terms: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Their sums over the last dimension: one after the other, or along a random tree."""
    terms = terms[..., rng.permutation(terms.shape[-1])]
    if rng.random() < 0.5:
        return np.add.accumulate(terms, axis=-1, dtype=np.float32)[..., -1] if terms.shape[-1] else terms.sum(axis=-1)
    while terms.shape[-1] > 1:
        pairs = int(rng.integers(1, terms.shape[-1] // 2 + 1))
        added = terms[..., :pairs] + terms[..., pairs : 2 * pairs]
        terms = np.concatenate([terms[..., 2 * pairs :], added], axis=-1)
        if rng.random() < 0.5:
            terms = terms[..., rng.permutation(terms.shape[-1])]
    return terms.sum(axis=-1)


@dataclass(frozen=True)
class FirstOrder:
    """Of each row the sum over all roundings of their size times their effect on one output."""

    values: np.ndarray
    """(rows,)."""
    directions: Mapping[str, Tensor]
    """By a layer's value: 1 where more of it moves the output up, else -1."""
    uphill: np.ndarray
    """(rows, features of all inputs): the gradient of ``values`` while the effects stay."""


def first_order(network: Network, rows: np.ndarray, targets: np.ndarray) -> FirstOrder:
    """At each of the rows, for the output value that ``targets`` (rows,) names."""
    shifts, sizes = dict[str, Tensor](), dict[str, Tensor]()

    def step(layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
        y = compute(layer, z, torch.float64, len(rows))
        if not y.is_floating_point():
            return y, None
        shifts[layer.output] = torch.zeros_like(y).requires_grad_()
        sizes[layer.output] = _size_of_roundings(layer, z, y)
        return y + shifts[layer.output], None

    with np.errstate(all="ignore"), torch.inference_mode(False), torch.enable_grad():
        y, inputs = _walked(network, rows, torch.float64, step)
        chosen = y.gather(1, tensor_of(targets)[:, None]).sum()
        known = list(shifts)
        effects = torch.autograd.grad(chosen, [shifts[n] for n in known], allow_unused=True, retain_graph=True)
        found = {name: effect for name, effect in zip(known, effects, strict=True) if effect is not None}
        values = torch.zeros(len(rows), dtype=torch.float64)
        for name, effect in found.items():
            part = (effect.abs() * sizes[name]).nan_to_num(0.0, 0.0, 0.0)
            if part.ndim and len(part) == len(rows):
                values = values + part.reshape(len(rows), -1).sum(dim=1)
        moving = [part for part in inputs.values() if part.requires_grad]
        slopes = iter(torch.autograd.grad(values.sum(), moving, allow_unused=True) if values.requires_grad else ())
        uphill = [next(slopes, None) if part.requires_grad else None for part in inputs.values()]
    flat = [
        torch.zeros(len(rows), part[0].numel()) if g is None else g.reshape(len(rows), -1).nan_to_num(0.0, 0.0, 0.0)
        for part, g in zip(inputs.values(), uphill, strict=True)
    ]
    directions = {name: torch.where(effect >= 0, 1.0, -1.0).double() for name, effect in found.items()}
    return FirstOrder(values.detach().numpy(), directions, torch.cat(flat, dim=1).numpy())


def _size_of_roundings(layer: Layer, z: Sequence[Tensor], y: Tensor) -> Tensor:
    """How large the roundings of a layer are, as something that has a gradient."""
    node = layer.expected
    if node.op != "linear" or "weight" not in node.tensors:
        return RULES[node.op](node, z, [None] * len(z), y).expand(y.shape)
    weight = tensor_of(np.ascontiguousarray(node.tensors["weight"].values)).double().abs()
    terms = z[0].abs() @ weight.T
    return U * terms + (weight.shape[1] - 1) * U * (terms + y.abs()) / 2


def adverse(network: Network, rows: np.ndarray, found: FirstOrder) -> np.ndarray:
    """The outputs (rows, values) where every rounding moves them by all it may, in the ``found`` directions."""

    def step(layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
        node, y = layer.expected, compute(layer, z, torch.float64, len(rows))
        direction = found.directions.get(layer.output)
        if direction is None:
            return y, None
        if node.op == "linear" and "weight" in node.tensors:
            bias = node.tensors.get("bias")
            moved = _largest_roundings(
                z[0].numpy(), node.tensors["weight"].values, None if bias is None else bias.values
            )
            return y + direction * tensor_of(moved), None
        moved = RULES[node.op](node, z, [None] * len(z), y).expand(y.shape)
        stays = (y == 0) if node.op in _EXACT_AT_ZERO else torch.zeros_like(y, dtype=torch.bool)
        return torch.where(stays | (moved == 0), y, y + direction * moved), None

    with np.errstate(all="ignore"), torch.no_grad():
        return _walked(network, rows, torch.float64, step)[0].numpy()


def _largest_roundings(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """How far all roundings of x @ weightᵀ + bias move it: of each product, and of each sum from the largest term down.

    A rounding is U of the sum as it was computed: the exact one, less than what was rounded before, taken off.
    """
    flat, parts = x.reshape(-1, x.shape[-1]), list[np.ndarray]()
    weight = weight.astype(np.float64)
    rows = max(1, _TERMS // max(1, weight.size))
    for start in range(0, len(flat), rows):
        terms = flat[start : start + rows, None, :] * weight[None]
        of_products = np.abs(terms).sum(axis=-1)
        if bias is not None:
            terms = np.concatenate([terms, np.broadcast_to(bias[None, :, None], (*terms.shape[:2], 1))], axis=2)
        terms = -np.sort(-terms * np.where(terms.sum(axis=-1, keepdims=True) < 0, -1.0, 1.0), axis=-1)
        before = 2 * terms.shape[-1] * U * np.abs(terms).sum(axis=-1, keepdims=True)
        sums = np.maximum(np.abs(np.cumsum(terms, axis=-1)) - before, 0) * (terms != 0)
        parts.append(U * (of_products + sums[..., 1:].sum(axis=-1)))
    return np.concatenate(parts).reshape(*x.shape[:-1], len(weight))
