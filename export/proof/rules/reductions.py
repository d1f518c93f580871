"""The bounds of reductions over dimensions, and of the softmax and the norms that are built on them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from export.evaluation import constant, number
from export.graph import Node

from .common import Radius, Rule, exact_on_integers, exempt_where, radius_of, reach, size, widened, zero_radius
from .constants import CONSTANTS, ETA, LARGEST, U, gamma


def dims_of(node: Node, z: Tensor) -> tuple[int, ...]:
    """The dimensions that a reduction runs over, counted from the front."""
    dims = node.attributes.get("dim")
    dims = (dims,) if isinstance(dims, int) else dims
    return tuple(dim % max(1, z.ndim) for dim in dims) if dims else tuple(range(z.ndim))


def reduced_size(z: Tensor, dims: tuple[int, ...]) -> int:
    """The number of values that are reduced to one."""
    return prod(z.shape[dim] for dim in dims) if z.ndim else 1


def total(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The sum over these dimensions, kept as 1; a scalar is its own sum."""
    return z.sum(dim=dims, keepdim=True) if z.ndim else z


def mean(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean over these dimensions, kept as 1."""
    return z.mean(dim=dims, keepdim=True) if z.ndim else z


def maximum(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The largest value over these dimensions, kept as 1."""
    return z.amax(dim=dims, keepdim=True) if z.ndim else z


def squeezed(z: Tensor, dims: tuple[int, ...], node: Node) -> Tensor:
    """Without the reduced dimensions, if the node does not keep them."""
    return z if node.attributes.get("keepdim", False) or not z.ndim else z.squeeze(dims)


def _sum(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """γ_{n-1}·Σ|x|, in any order (Higham 2002, section 4.2), (1 + γ_{n-1})·Σe, and n flushed numbers or sums."""
    x, dims = z[0].double(), dims_of(node, z[0])
    n = reduced_size(x, dims)
    g, terms, moved = gamma(n - 1), total(size(x), dims), total(radius_of(e[0], x), dims)
    radius = (1 + g) * moved + g * terms + 2 * n * ETA
    return squeezed(exempt_where((1 + g) * (terms + moved) > LARGEST, radius), dims, node)


def _mean(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """A sum and a quotient, or a product with a rounded 1/n: γ_{n+1}·mean|x| + (1 + γ_{n+1})·mean e, and flushing.

    Exempt where the sum may overflow.
    """
    x, dims = z[0].double(), dims_of(node, z[0])
    n = reduced_size(x, dims)
    g, terms, moved = gamma(n + 1), mean(size(x), dims), mean(radius_of(e[0], x), dims)
    radius = (1 + g) * moved + g * terms + 3 * ETA
    return squeezed(exempt_where((1 + g) * n * (terms + moved) > LARGEST, radius), dims, node)


def _cumsum(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """The k-th result is a sum of k numbers, in any order: γ_{k-1}·Σ|x|, as ``_sum``."""
    x, dim = z[0].double(), int(node.attributes["dim"])
    terms, moved = size(x).cumsum(dim), radius_of(e[0], x).cumsum(dim)
    shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
    k = torch.arange(1, x.shape[dim] + 1, dtype=torch.float64).reshape(shape)
    g = torch.where((k - 1) * U < 1, (k - 1) * U / (1 - (k - 1) * U), torch.inf)
    radius = (1 + g) * moved + g * terms + 2 * k * ETA
    return exempt_where((1 + g) * (terms + moved) > LARGEST, radius)


def _extreme(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One of the input's own float32 numbers; an extreme moves by no more than the largest radius."""
    dims = dims_of(node, z[0])
    return zero_radius(y) if e[0] is None else squeezed(maximum(e[0], dims), dims, node)


def _norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Order 1: a sum of absolute values. Order 2: the root of a sum of squares.

    n squares and n - 1 sums, γ_n, which the root halves, and the root's own 2: γ_{n/2+2}, stated as γ_{n+3}; squares
    may be flushed: √(n·2^-126), doubled for the argument.
    Both are norms, so an error in x moves them by at most its own norm.
    """
    if node.attributes["ord"] == 1:
        return _sum(node, z, e, y)
    x, error, dims = z[0], radius_of(e[0], z[0]), dims_of(node, z[0])
    n = reduced_size(x, dims)
    g = gamma(n + 3)
    own, moved = torch.sqrt(total(size(x) ** 2, dims)), torch.sqrt(total(error**2, dims))
    radius = (1 + g) * moved + g * own + 2 * (n * ETA) ** 0.5
    overflows = (1 + g) * total(reach(x, e[0]) ** 2, dims) > LARGEST
    return squeezed(exempt_where(overflows, radius), dims, node)


def _var(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """Σ(x - mean)²/(n - correction), in two passes (mean, difference, square, sum, quotient), one, or Welford's.

    With γ = γ_{n+4}: the mean is off by γ·E|z|, so z - mean by t = γ·E|z| + 2u·|z - mean|, a square by 2|z - mean|·t +
    t², the sum of squares and the quotient by γ. One pass has γ·(E[z²] + mean²), and Welford's n·u·√(E[z²]·var), which
    is less (Chan, Golub and LeVeque, The American Statistician 37(3), 1983). All of it times n/(n - correction).
    """
    x, error, dims = torch.where(z[0].isfinite(), z[0], 0.0), radius_of(e[0], z[0]), dims_of(node, z[0])
    n, correction = reduced_size(x, dims), node.attributes.get("correction")
    g, degrees = gamma(n + 4), max(0.0, n - (1.0 if correction is None else float(correction)))
    centre = mean(x, dims)
    centred = (x - centre).abs()
    moved = (error + mean(error, dims)) * (1 + g) + g * mean(x.abs(), dims) + 2 * U * centred + 2 * ETA
    slack = g * (mean(x**2, dims) + centre**2) + (1 + g) * mean(2 * centred * moved + moved**2, dims) + 4 * n * ETA
    radius = (1 + g) * slack * n / degrees if degrees else torch.full_like(slack, torch.nan)
    overflows = (1 + g) * total((x.abs() + error) ** 2, dims) > LARGEST
    return squeezed(exempt_where(overflows, radius + 2 * ETA), dims, node)


def _truth(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where, for any and all, some values may be zero or nonzero and no other value decides alone."""
    if e[0] is None:
        return zero_radius(y)
    x, dims = z[0].double(), dims_of(node, z[0])
    open_ = (e[0] > 0) & (x.abs() <= e[0])
    decisive = ~open_ & ((x != 0) if node.op == "any" else (x == 0))
    undecided = (maximum(open_.double(), dims) > 0) & (maximum(decisive.double(), dims) == 0)
    return squeezed(undecided.double(), dims, node)


def _index_of(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Exact inputs have one index, the first of equals; else the distance to the furthest index that may result.

    Those are the indices whose interval reaches the best of the intervals' near ends.
    """
    if e[0] is None:
        return zero_radius(y)
    x = z[0].double() if node.op == "argmax" else -z[0].double()
    dim, error = int(node.attributes["dim"]) % x.ndim, widened(x, e[0])
    chosen = y if node.attributes.get("keepdim", False) else y.unsqueeze(dim)
    shape = [-1 if axis == dim else 1 for axis in range(x.ndim)]
    indices = torch.arange(x.shape[dim], dtype=torch.float64).reshape(shape)
    near = (x + error >= (x - error).amax(dim=dim, keepdim=True)) & (maximum(e[0], (dim,)) > 0)
    distance = torch.where(near, (indices - chosen).abs(), 0.0).amax(dim=dim, keepdim=True)
    return distance if node.attributes.get("keepdim", False) else distance.squeeze(dim)


def _softmax(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """exp(z_i - max) / Σ exp(z_j - max), with d_i = max - z_i.

    The difference is rounded (u·d_i in the exponent), the exponential has c roundings, the sum of n positive terms
    n - 1, the quotient one. So |fl(y_i) - y_i| ≤ y_i·u·(d_i + Σ y_j d_j + n + 2c + 2), and twice e in the exponent
    where the input is not exact (after Blanchard, Higham and Higham, Accurately computing the log-sum-exp and softmax
    functions, IMA J. Numer. Anal. 41(4), 2021). Results below 2^-126 are flushed, as are terms of the sum.
    """
    c = CONSTANTS["softmax"].limits[1]
    dims = (node.attributes["dim"],)
    depth = torch.where(y > 0, maximum(z[0], dims) - z[0], 0.0)
    n = reduced_size(z[0], dims)
    own = U * (depth + total(y * depth, dims) + n + 2 * c + 2)
    moved = 0.0 if e[0] is None else torch.expm1(e[0] + maximum(e[0], dims))
    return y * ((1 + own) * (1 + moved) - 1) + (n + 2) * ETA


def _log_softmax(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(z_i - max) - log S or z_i - (max + log S), S = Σ exp(z_j - max) ≥ 1, d_i = max - z_i, p_j = exp(y_j).

    S has a relative error of u·(Σ p_j d_j + c + n - 1) as in ``_softmax``, which the logarithm makes absolute, with
    u·(a + r·log S) of its own; the differences add u·d_i and u·|y_i|, or the sum u·|max + log S|. Second-order terms
    are in n + 2c + 2. z_i moves by e_i, and the logarithm of the sum, whose gradient is p, by at most the largest e.
    """
    c, (a, r, _) = CONSTANTS["log_softmax"].limits[1], CONSTANTS["log"].limits
    dims = (node.attributes["dim"],)
    error, n = radius_of(e[0], z[0]), reduced_size(z[0], dims)
    known = z[0].isfinite() & y.isfinite()
    largest = maximum(z[0], dims)
    depth = torch.where(known, largest - z[0], 0.0)
    log_sum = torch.where(y.isfinite(), torch.where(known, -depth - y, 0.0), 0.0)
    log_sum = maximum(torch.clamp(log_sum, min=0.0), dims)
    inner = total(torch.where(known, y.exp() * depth, 0.0), dims)
    moved = error + maximum(error, dims)
    own = depth + inner + n + 2 * c + 2 + a + r * log_sum + size(largest) + log_sum + size(y) + moved
    return moved + U * (1 + gamma(n + 2 * c)) * own + (n + 4) * ETA


def _layer_norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """(z - mean) / √(var + eps)·w + b, in one kernel or operator by operator, which rounds no more often.

    The variance is a mean of squares (two passes) or E[z²] - mean² (one pass).
    With γ = γ_{n+4}: the mean is off by γ·E|z|, so z - mean by t = γ·E|z| + 2u·|z - mean|; the one-pass variance by
    γ·(E[z²] + mean² + eps), which covers two passes as well (Chan, Golub and LeVeque, The American Statistician 37(3),
    1983). Where that could be all of the variance nothing is bounded; else 1 / √· grows by √(v / (v - slack)) - 1. The
    root, the quotient, the product with w and the sum add 6 roundings.
    """
    x = torch.where(z[0].isfinite(), z[0], 0.0)
    dims = tuple(range(x.ndim - len(node.attributes["normalized_shape"]), x.ndim))
    n = reduced_size(x, dims)
    g = gamma(n + 4)
    eps = number(node, "eps", rounded=False)
    centre = mean(x, dims)
    centred = (x - centre).abs()
    error = radius_of(e[0], x)
    moved = (error + mean(error, dims)) * (1 + g) + g * mean(x.abs(), dims) + 2 * U * centred
    variance = mean(centred**2, dims) + eps
    slack = g * (mean(x**2, dims) + centre**2 + eps) + mean(2 * centred * moved + moved**2, dims) + (n + 4) * ETA
    unit = 1 / torch.sqrt(variance)
    growth = torch.sqrt(variance / torch.where(slack < variance, variance - slack, torch.nan)) - 1
    weight, bias = constant(node, "weight", x), constant(node, "bias", x)
    scaled = unit * (moved * (1 + growth) + centred * (growth + 6 * U))
    radius = scaled if weight is None else weight.abs() * scaled
    radius = radius + (n + 6) * ETA * (1 + unit) + (0.0 if bias is None else 4 * U * bias.abs())
    lost = radius.isnan() | ((x.abs() + error) ** 2).sum(dim=dims, keepdim=True).mul(1 + g).gt(LARGEST)
    return torch.where(lost, torch.inf, radius)


def _rms_norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """γ_{n/2+9} for x / √q·w, q = mean x² + eps, with no cancellation.

    q takes n + 2 roundings for the mean (perhaps with a rounded 1/n), one for the sum and one for eps as float32, which
    the root halves; the reciprocal root 5 (``rsqrt``), two products. Squares may be flushed, q then lacks 2·2^-126, and
    1/√q grows by √(q / (q - that)).

    The size ρ = √q moves by at most δ = √(mean e²), so y by |w|·(e + |x|·δ/ρ) / (ρ - δ). Exempt where that or a flush
    may be all of ρ, or Σx² overflows.
    """
    x, error, dims = torch.where(z[0].isfinite(), z[0], 0.0), radius_of(e[0], z[0]), (z[0].ndim - 1,)
    n, eps = (
        reduced_size(x, dims),
        2.0**-23 if node.attributes.get("eps") is None else number(node, "eps", rounded=False),
    )
    g, weight = gamma(n / 2 + 9), constant(node, "weight", x)
    w = torch.ones((), dtype=x.dtype) if weight is None else weight.abs()
    squares = mean(x**2, dims) + eps
    rho, delta = torch.sqrt(squares), torch.sqrt(mean(error**2, dims))
    left = torch.where(squares > 4 * ETA, squares - 2 * ETA, torch.nan)
    growth = torch.sqrt(squares / left) - 1
    near = torch.where(rho > delta, rho - delta, torch.nan)
    p = w * (error + x.abs() * delta / rho) / near
    radius = p + ((1 + g) * (1 + growth) - 1) * (size(y) + p) + ETA * (2 + w * (2 + 1 / rho))
    overflows = (1 + g) * total(reach(x, e[0]) ** 2, dims) > LARGEST
    return torch.where(radius.isnan() | overflows, torch.inf, radius)


RULES: dict[str, Rule] = {
    "sum": exact_on_integers(_sum),
    "mean": _mean,
    "cumsum": exact_on_integers(_cumsum),
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
