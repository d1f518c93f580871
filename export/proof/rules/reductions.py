"""The bounds of sums, means, extremes and norms over dimensions, and of what divides a row by such."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from export.evaluation import constant, number
from export.graph import Node

from .common import Radius, Rule, exact_in_whole, lost_where, nothing, radius_of, reach, size, widened
from .constants import CONSTANTS, ETA, LARGEST, U, gamma


def dims_of(node: Node, z: Tensor) -> tuple[int, ...]:
    """The dimensions that a reduction runs over, counted from the front."""
    dims = node.attributes.get("dim")
    dims = (dims,) if isinstance(dims, int) else dims
    return tuple(dim % max(1, z.ndim) for dim in dims) if dims else tuple(range(z.ndim))


def counted(z: Tensor, dims: tuple[int, ...]) -> int:
    """How many values are reduced to one."""
    return prod(z.shape[dim] for dim in dims) if z.ndim else 1


def total(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    return z.sum(dim=dims, keepdim=True) if z.ndim else z


def mean(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    return z.mean(dim=dims, keepdim=True) if z.ndim else z


def most(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    return z.amax(dim=dims, keepdim=True) if z.ndim else z


def squeezed(z: Tensor, dims: tuple[int, ...], node: Node) -> Tensor:
    """Without the reduced dimensions, if the node does not keep them."""
    return z if node.attributes.get("keepdim", False) or not z.ndim else z.squeeze(dims)


def _sum(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """γ_{n-1}·Σ|x|, in any order (Higham 2002, section 4.2), (1 + γ_{n-1})·Σe, and n flushed numbers or sums."""
    x, dims = z[0].double(), dims_of(node, z[0])
    n = counted(x, dims)
    g, terms, moved = gamma(n - 1), total(size(x), dims), total(radius_of(e[0], x), dims)
    radius = (1 + g) * moved + g * terms + 2 * n * ETA
    return squeezed(lost_where((1 + g) * (terms + moved) > LARGEST, radius), dims, node)


def _mean(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """A sum and a quotient, or a product with a rounded 1/n: γ_{n+1}·mean|x| + (1 + γ_{n+1})·mean e, and flushing.

    Exempt where the sum may overflow.
    """
    x, dims = z[0].double(), dims_of(node, z[0])
    n = counted(x, dims)
    g, terms, moved = gamma(n + 1), mean(size(x), dims), mean(radius_of(e[0], x), dims)
    radius = (1 + g) * moved + g * terms + 3 * ETA
    return squeezed(lost_where((1 + g) * n * (terms + moved) > LARGEST, radius), dims, node)


def _cumsum(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Each is a sum of the k numbers up to its place, in any order: γ_{k-1}·Σ|x|, as ``_sum``."""
    x, dim = z[0].double(), node.attributes["dim"]
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
    x, dims = z[0].double(), dims_of(node, z[0])
    open_ = (e[0] > 0) & (x.abs() <= e[0])
    settles = ~open_ & ((x != 0) if node.op == "any" else (x == 0))
    found = (most(open_.double(), dims) > 0) & (most(settles.double(), dims) == 0)
    return squeezed(found.double(), dims, node)


def _index_of(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Exact inputs have one place (the first of equals). Else any place whose interval reaches the best of the
    intervals' near ends may be found: the distance to the furthest of them."""
    if e[0] is None:
        return nothing(y)
    x = z[0].double() if node.op == "argmax" else -z[0].double()
    if not x.ndim:
        return nothing(y)
    dim, given = node.attributes["dim"] % x.ndim, widened(x, e[0])
    place = y if node.attributes.get("keepdim", False) else y.unsqueeze(dim)
    shape = [-1 if axis == dim else 1 for axis in range(x.ndim)]
    places = torch.arange(x.shape[dim], dtype=torch.float64).reshape(shape)
    near = (x + given >= (x - given).amax(dim=dim, keepdim=True)) & (most(e[0], (dim,)) > 0)
    found = torch.where(near, (places - place).abs(), 0.0).amax(dim=dim, keepdim=True)
    return found if node.attributes.get("keepdim", False) else found.squeeze(dim)


def _softmax(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """exp(z_i - max) / Σ exp(z_j - max), d_i = max - z_i: the difference is rounded (u·d_i in the exponent), the
    exponential has c roundings, the sum of n positive terms n - 1, the quotient one. So |fl(y_i) - y_i| ≤
    y_i·u·(d_i + Σ y_j d_j + n + 2c + 2), and twice e in the exponent where the input is not exact (after Blanchard,
    Higham and Higham, Accurately computing the log-sum-exp and softmax functions, IMA J. Numer. Anal. 41(4), 2021).
    Results below 2^-126 are flushed, as are terms of the sum.
    """
    c = CONSTANTS["softmax"].limits[1]
    dims = (node.attributes["dim"],)
    depth = torch.where(y > 0, most(z[0], dims) - z[0], 0.0)
    n = counted(z[0], dims)
    own = U * (depth + total(y * depth, dims) + n + 2 * c + 2)
    moved = 0.0 if e[0] is None else torch.expm1(e[0] + most(e[0], dims))
    return y * ((1 + own) * (1 + moved) - 1) + (n + 2) * ETA


def _log_softmax(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(z_i - max) - log S or z_i - (max + log S), S = Σ exp(z_j - max) ≥ 1, d_i = max - z_i, p_j = exp(y_j).

    S has a relative error of u·(Σ p_j d_j + c + n - 1) as in ``_softmax``, which the logarithm makes absolute, with
    u·(a + r·log S) of its own; the differences add u·d_i and u·|y_i|, or the sum u·|max + log S|. Second-order terms
    are in n + 2c + 2. z_i moves by e_i, and the logarithm of the sum, whose gradient is p, by at most the largest e.
    """
    c, (a, r, _) = CONSTANTS["log_softmax"].limits[1], CONSTANTS["log"].limits
    dims = (node.attributes["dim"],)
    given, n = radius_of(e[0], z[0]), counted(z[0], dims)
    known = z[0].isfinite() & y.isfinite()
    largest = most(z[0], dims)
    depth = torch.where(known, largest - z[0], 0.0)
    log_sum = torch.where(y.isfinite(), torch.where(known, -depth - y, 0.0), 0.0)
    log_sum = most(torch.clamp(log_sum, min=0.0), dims)
    inner = total(torch.where(known, y.exp() * depth, 0.0), dims)
    moved = given + most(given, dims)
    own = depth + inner + n + 2 * c + 2 + a + r * log_sum + size(largest) + log_sum + size(y) + moved
    return moved + U * (1 + gamma(n + 2 * c)) * own + (n + 4) * ETA


def _layer_norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(z - mean) / √(var + eps)·w + b, the variance as a mean of squares (two passes) or as E[z²] - mean² (one pass),
    in one kernel or operator by operator, which rounds no more often.

    With γ = γ_{n+4}: the mean is off by γ·E|z|, so z - mean by t = γ·E|z| + 2u·|z - mean|; the one-pass variance by
    γ·(E[z²] + mean² + eps), which covers two passes as well (Chan, Golub and LeVeque, The American Statistician 37(3),
    1983). Where that could be all of the variance nothing is bounded; else 1 / √· grows by √(v / (v - slack)) - 1. The
    root, the quotient, the product with w and the sum add 6 roundings.
    """
    x = torch.where(z[0].isfinite(), z[0], 0.0)
    dims = tuple(range(x.ndim - len(node.attributes["normalized_shape"]), x.ndim))
    n = counted(x, dims)
    g = gamma(n + 4)
    eps = number(node, "eps", rounded=False)
    centre = mean(x, dims)
    centred = (x - centre).abs()
    given = radius_of(e[0], x)
    moved = (given + mean(given, dims)) * (1 + g) + g * mean(x.abs(), dims) + 2 * U * centred
    variance = mean(centred**2, dims) + eps
    slack = g * (mean(x**2, dims) + centre**2 + eps) + mean(2 * centred * moved + moved**2, dims) + (n + 4) * ETA
    unit = 1 / torch.sqrt(variance)
    growth = torch.sqrt(variance / torch.where(slack < variance, variance - slack, torch.nan)) - 1
    weight, bias = constant(node, "weight", x), constant(node, "bias", x)
    scaled = unit * (moved * (1 + growth) + centred * (growth + 6 * U))
    radius = scaled if weight is None else weight.abs() * scaled
    radius = radius + (n + 6) * ETA * (1 + unit) + (0.0 if bias is None else 4 * U * bias.abs())
    lost = radius.isnan() | ((x.abs() + given) ** 2).sum(dim=dims, keepdim=True).mul(1 + g).gt(LARGEST)
    return torch.where(lost, torch.inf, radius)


def _rms_norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """x / √(mean x² + eps)·w: q = mean x² + eps takes n + 2 roundings for the mean (perhaps with a rounded 1/n), one
    for the sum and one for eps as float32, which the root halves; the reciprocal root 5 (``rsqrt``), two products:
    γ_{n/2+9}, with no cancellation. Squares may be flushed, q then lacks 2·2^-126, and 1/√q grows by √(q / (q - that)).

    The size ρ = √q moves by at most δ = √(mean e²), so y by |w|·(e + |x|·δ/ρ) / (ρ - δ). Exempt where that or a flush
    may be all of ρ, or Σx² overflows.
    """
    x, given, dims = torch.where(z[0].isfinite(), z[0], 0.0), radius_of(e[0], z[0]), (z[0].ndim - 1,)
    n, eps = counted(x, dims), 2.0**-23 if node.attributes.get("eps") is None else number(node, "eps", rounded=False)
    g, weight = gamma(n / 2 + 9), constant(node, "weight", x)
    w = torch.ones((), dtype=x.dtype) if weight is None else weight.abs()
    squares = mean(x**2, dims) + eps
    rho, delta = torch.sqrt(squares), torch.sqrt(mean(given**2, dims))
    left = torch.where(squares > 4 * ETA, squares - 2 * ETA, torch.nan)
    growth = torch.sqrt(squares / left) - 1
    near = torch.where(rho > delta, rho - delta, torch.nan)
    p = w * (given + x.abs() * delta / rho) / near
    radius = p + ((1 + g) * (1 + growth) - 1) * (size(y) + p) + ETA * (2 + w * (2 + 1 / rho))
    overflows = (1 + g) * total(reach(x, e[0]) ** 2, dims) > LARGEST
    return torch.where(radius.isnan() | overflows, torch.inf, radius)


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
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}
