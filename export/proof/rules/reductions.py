"""The bounds of sums, means, extremes and norms over dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.graph import Node
from export.proof.rounding import ETA, LARGEST, Radius, Rule, U, gamma, size

from .parts import (
    NEAREST,
    counted,
    dims_of,
    exact_in_whole,
    lost_where,
    mean,
    most,
    nothing,
    radius_of,
    reach,
    squeezed,
    total,
    wide,
)


def _sum(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """γ_{n-1}·Σ|x|, in any order (Higham 2002, section 4.2), (1 + γ_{n-1})·Σe, and n flushed numbers or sums."""
    x, dims = wide(z[0]), dims_of(node, z[0])
    n = counted(x, dims)
    g, terms, moved = gamma(n - 1), total(size(x), dims), total(radius_of(e[0], x), dims)
    radius = (1 + g) * moved + g * terms + 2 * n * ETA
    return squeezed(lost_where((1 + g) * (terms + moved) > LARGEST, radius), dims, node)


def _mean(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """A sum and a quotient, or a product with a rounded 1/n: γ_{n+1}·mean|x| + (1 + γ_{n+1})·mean e, and flushing.

    Exempt where the sum may overflow.
    """
    x, dims = wide(z[0]), dims_of(node, z[0])
    n = counted(x, dims)
    g, terms, moved = gamma(n + 1), mean(size(x), dims), mean(radius_of(e[0], x), dims)
    radius = (1 + g) * moved + g * terms + 3 * ETA
    return squeezed(lost_where((1 + g) * n * (terms + moved) > LARGEST, radius), dims, node)


def _cumsum(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Each is a sum of the k numbers up to its place, in any order: γ_{k-1}·Σ|x|, as ``_sum``."""
    x, dim = wide(z[0]), node.attributes["dim"]
    if not x.ndim:
        return radius_of(e[0], x)
    terms, moved = size(x).cumsum(dim), radius_of(e[0], x).cumsum(dim)
    shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
    k = torch.arange(1, x.shape[dim] + 1, dtype=torch.float64).reshape(shape)
    g = torch.where((k - 1) * U < 1, (k - 1) * U / (1 - (k - 1) * U), torch.inf)
    radius = (1 + g) * moved + g * terms + 2 * k * ETA
    return lost_where((1 + g) * (terms + moved) > LARGEST, radius)


def _extreme(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One of the float32 numbers that were there; the largest moves by no more than the largest radius."""
    dims = dims_of(node, z[0])
    return nothing(y) if e[0] is None else squeezed(most(e[0], dims), dims, node)


def _norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Order 1: a sum of absolute values. Order 2: n squares and n - 1 sums, γ_n, which the root halves, and the root's
    own 2: γ_{n/2+2}, stated as γ_{n+3}; squares may be flushed: √(n·2^-126), doubled for the argument.

    Both are norms, so an error in x moves them by at most its own norm.
    """
    if node.attributes["ord"] == 1:
        return _sum(node, z, e, y)
    x, given, dims = z[0], radius_of(e[0], z[0]), dims_of(node, z[0])
    n = counted(x, dims)
    g = gamma(n + 3)
    own, moved = torch.sqrt(total(size(x) ** 2, dims)), torch.sqrt(total(given**2, dims))
    radius = (1 + g) * moved + g * own + 2 * (n * ETA) ** 0.5
    overflows = (1 + g) * total(reach(x, e[0]) ** 2, dims) > LARGEST
    return squeezed(lost_where(overflows, radius), dims, node)


def _var(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Σ(x - mean)²/(n - correction), in two passes (mean, difference, square, sum, quotient), one, or Welford's.

    With γ = γ_{n+4}: the mean is off by γ·E|z|, so z - mean by t = γ·E|z| + 2u·|z - mean|, a square by 2|z - mean|·t +
    t², the sum of squares and the quotient by γ. One pass has γ·(E[z²] + mean²), and Welford's n·u·√(E[z²]·var), which
    is less (Chan, Golub and LeVeque, The American Statistician 37(3), 1983). All of it times n/(n - correction).
    """
    x, given, dims = torch.where(z[0].isfinite(), z[0], 0.0), radius_of(e[0], z[0]), dims_of(node, z[0])
    n, correction = counted(x, dims), node.attributes.get("correction")
    g, degrees = gamma(n + 4), max(0.0, n - (1.0 if correction is None else float(correction)))
    centre = mean(x, dims)
    centred = (x - centre).abs()
    moved = (given + mean(given, dims)) * (1 + g) + g * mean(x.abs(), dims) + 2 * U * centred + 2 * ETA
    slack = g * (mean(x**2, dims) + centre**2) + (1 + g) * mean(2 * centred * moved + moved**2, dims) + 4 * n * ETA
    radius = (1 + g) * slack * n / degrees if degrees else torch.full_like(slack, torch.nan)
    overflows = (1 + g) * total((x.abs() + given) ** 2, dims) > LARGEST
    return squeezed(lost_where(overflows, radius + 2 * ETA), dims, node)


def _truth(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """any and all: 1 where some values may be either and no other value settles it."""
    if e[0] is None:
        return nothing(y)
    x, dims = wide(z[0]), dims_of(node, z[0])
    open_ = (e[0] > 0) & (x.abs() <= e[0])
    settles = ~open_ & ((x != 0) if node.op == "any" else (x == 0))
    found = (most(open_.double(), dims) > 0) & (most(settles.double(), dims) == 0)
    return squeezed(found.double(), dims, node)


def _index_of(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Exact inputs have one place (the first of equals). Else any place whose interval reaches the best of the
    intervals' near ends may be found: the distance to the furthest of them."""
    if e[0] is None:
        return nothing(y)
    x = wide(z[0]) if node.op == "argmax" else -wide(z[0])
    if not x.ndim:
        return nothing(y)
    dim, given = node.attributes["dim"] % x.ndim, e[0] + NEAREST * (e[0] + torch.where(e[0] > 0, size(x), 0.0))
    place = y if node.attributes.get("keepdim", False) else y.unsqueeze(dim)
    shape = [-1 if axis == dim else 1 for axis in range(x.ndim)]
    places = torch.arange(x.shape[dim], dtype=torch.float64).reshape(shape)
    near = (x + given >= (x - given).amax(dim=dim, keepdim=True)) & (most(e[0], (dim,)) > 0)
    found = torch.where(near, (places - place).abs(), 0.0).amax(dim=dim, keepdim=True)
    return found if node.attributes.get("keepdim", False) else found.squeeze(dim)


RULES: dict[str, Rule] = {
    "sum": exact_in_whole(_sum),
    "mean": _mean,
    "cumsum": exact_in_whole(_cumsum),
    "amax": _extreme,
    "amin": _extreme,
    "linalg_vector_norm": _norm,
    "var": _var,
    "any": _truth,
    "all": _truth,
    "argmax": _index_of,
    "argmin": _index_of,
}
