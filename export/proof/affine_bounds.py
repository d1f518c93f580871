"""The bounds of affine blocks, alone and folded into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.graph import Node

from .reference import constant, options, times
from .rounding import ETA, LARGEST, Radius, gamma, size

AFFINE = ("linear", "batch_norm", "standardize", "scale")


def magnitude(node: Node, z: Tensor) -> Tensor:
    """An affine block with every constant and its argument z ≥ 0 taken absolute: Σ|w|·z + |b|."""
    if node.op == "linear":
        y, bias = times(node.tensors["weight"].values, z, absolute=True), constant(node, "bias", z)
        return y if bias is None else y + bias.abs()
    if node.op == "standardize":
        return (z + absolute(node, "mean", z, 0.0)) / absolute(node, "std", z, 1.0)
    if node.op == "scale":
        return z * absolute(node, "factor", z, 1.0) + absolute(node, "offset", z, 0.0)
    mean, factor, bias = constant(node, "running_mean", z), batch_norm_factor(node, z), constant(node, "bias", z)
    assert mean is not None
    return factor * (z + mean.abs()) + (0.0 if bias is None else bias.abs())


def absolute(node: Node, role: str, like: Tensor, missing: float) -> Tensor | float:
    """The absolute value of a constant of the block, a tensor or a number, as float32 holds it."""
    held = constant(node, role, like)
    return abs(options(node, rounded=True).get(role, missing)) if held is None else held.abs()


def batch_norm_factor(node: Node, like: Tensor) -> Tensor:
    """|weight| / √(running_var + eps)."""
    var, weight = constant(node, "running_var", like), constant(node, "weight", like)
    assert var is not None
    factor = 1 / torch.sqrt(var + options(node, rounded=False)["eps"])
    return factor if weight is None else factor * weight.abs()


def passed_on(node: Node, e: Radius) -> Tensor | float:
    """What an affine block makes of its input's radius: its linear part, taken absolute, times e."""
    if e is None:
        return 0.0
    if node.op == "linear":
        return times(node.tensors["weight"].values, e, absolute=True)
    if node.op == "batch_norm":
        return batch_norm_factor(node, e) * e
    return e * absolute(node, "factor", e, 1.0) / absolute(node, "std", e, 1.0)


def roundings(node: Node) -> int:
    """The k of γ_k of an affine block.

    linear: n products and n - 1 sums, the bias one more: k = n + (1 with a bias); Higham (2002), section 3.1.
    standardize: a difference, and a quotient or the product with a rounded reciprocal: 3.
    scale: a product and a sum: 2. Of a block that lacks a constant it is more than enough.
    batch_norm: the factor w / √(var + eps) takes 2 (sum, and eps as float32) halved by the root, the root, the quotient
    and perhaps a product with a reciprocal: 4; times x, or times the mean and then the difference; the sum: 8 in all.
    """
    if node.op == "linear":
        return node.tensors["weight"].values.shape[-1] + ("bias" in node.tensors)
    return {"standardize": 3, "scale": 2, "batch_norm": 8}[node.op]


def affine(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(1 + γ_k)·|A| e + γ_k (|A||z| + |b|) + (k + 1)·2^-126·(1 + |z|), by ``roundings``; |z| summed for a linear.

    It is the bound of an inner product applied to each row (Higham 2002, eq. 3.5), with the error of the input carried
    through. A standardize's own rounding is relative to z - mean, so γ_k |y| does for it. The last term is for
    constants and factors that are flushed to zero.
    """
    k = roundings(node)
    g, moved, x = gamma(k), passed_on(node, e[0]), size(z[0])
    terms = magnitude(node, x)
    own = y.abs() if node.op == "standardize" else terms
    reach = x.sum(dim=-1, keepdim=True) if node.op == "linear" else x
    for role in ("mean", "running_mean"):
        reach = reach + absolute(node, role, x, 0.0)
    radius = (1 + g) * moved + g * own + (k + 1) * ETA * (1 + reach)
    lost = (1 + g) * (terms + moved) > LARGEST
    return torch.where(lost | (reach > LARGEST) if node.op == "standardize" else lost, torch.inf, radius)


def merged(nodes: Sequence[Node], held: Node, z: Tensor, e: Radius, y: Tensor) -> Tensor:
    """Affine blocks that were composed in float64 and rounded once to the constants of ``held``, a linear or a scale.

    The constants in the file are within u of those that float64 composed, and these within c·2^-53 of the exact ones,
    relative to the product of the absolute values: c counts the roundings along the chain (n of each inner dimension
    and a few per block; Higham 2002, section 3.5). Applying them costs γ_k as in ``affine``.
    """
    k = roundings(held) + 1
    chain = size(z)
    moved: Radius = e
    largest = chain.amax(dim=-1, keepdim=True)
    for node in nodes:
        chain, moved = magnitude(node, chain), None if moved is None else torch.as_tensor(passed_on(node, moved))
        largest = torch.maximum(largest, chain.amax(dim=-1, keepdim=True))
    c = sum(roundings(node) + 4 for node in nodes)
    carried = 0.0 if moved is None else (1 + gamma(k)) * moved
    terms, x = magnitude(held, size(z)), size(z)
    lost = (k + 1) * ETA * (1 + x.sum(dim=-1, keepdim=True))
    radius = carried + gamma(k) * terms + c * 2.0**-53 * chain + lost
    # A Gemm with an alpha sums before it multiplies, so its sums overflow first.
    overflows = ((1 + gamma(k)) * (terms + carried) > LARGEST) | ((1 + gamma(k)) * largest > LARGEST)
    return torch.where(overflows, torch.inf, radius)
