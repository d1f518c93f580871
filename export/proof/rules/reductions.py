"""The bounds of reductions over dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod

import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node

from .common import Radius, Rule, exact_on_integers, exempt_where, radius_of, reach, size, widened, zero_radius
from .constants import ETA, LARGEST, U, gamma
from .spans import Enclosure, Ends, Span, growing, largest_of, lost_by, outwards


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
    centre = mean(x, dims)
    return _var_error(node, dims, x.abs(), centre, (x - centre).abs(), error)


def _var_error(node: Node, dims: tuple[int, ...], x: Tensor, centre: Tensor, centred: Tensor, error: Tensor) -> Tensor:
    """The bound of ``_var``, which grows with |z|, |mean|, |z - mean| and e."""
    n = reduced_size(x, dims)
    g, degrees = gamma(n + 4), _degrees(node, n)
    moved = (error + mean(error, dims)) * (1 + g) + g * mean(x, dims) + 2 * U * centred + 2 * ETA
    slack = g * (mean(x**2, dims) + centre**2) + (1 + g) * mean(2 * centred * moved + moved**2, dims) + 4 * n * ETA
    radius = (1 + g) * slack * n / degrees if degrees else torch.full_like(slack, torch.nan)
    overflows = (1 + g) * total((x + error) ** 2, dims) > LARGEST
    return squeezed(exempt_where(overflows, radius + 2 * ETA), dims, node)


def _degrees(node: Node, n: int) -> float:
    """The degrees of freedom of a variance, n less the correction; at least 0."""
    correction = node.attributes.get("correction")
    return max(0.0, n - (1.0 if correction is None else float(correction)))


def _truth(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where, for any and all, some values may be zero or nonzero and no other value decides alone."""
    if e[0] is None:
        return zero_radius(y)
    x, dims = z[0].double(), dims_of(node, z[0])
    open_ = (e[0] > 0) & (x.abs() <= e[0])
    return _undecided(node, dims, open_, ~open_ & ((x != 0) if node.op == "any" else (x == 0)))


def _undecided(node: Node, dims: tuple[int, ...], open_: Tensor, decisive: Tensor) -> Tensor:
    """1 where some value is open, and none decides."""
    undecided = (maximum(open_.double(), dims) > 0) & (maximum(decisive.double(), dims) == 0)
    return squeezed(undecided.double(), dims, node)


def _may_win(low: Tensor, high: Tensor, dim: int) -> Tensor:
    """Where an interval reaches the best of the intervals' lower ends, so that its value may be the largest."""
    return high >= low.amax(dim=dim, keepdim=True)


def _indices(x: Tensor, dim: int) -> Tensor:
    """0, 1, … along a dimension."""
    return torch.arange(x.shape[dim], dtype=torch.float64).reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])


def _index_of(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Exact inputs have one index, the first of equals; else the distance to the furthest index that may result.

    Those are the indices whose interval reaches the best of the intervals' near ends.
    """
    if e[0] is None:
        return zero_radius(y)
    x = z[0].double() if node.op == "argmax" else -z[0].double()
    dim, error = int(node.attributes["dim"]) % x.ndim, widened(x, e[0])
    chosen = y if node.attributes.get("keepdim", False) else y.unsqueeze(dim)
    near = _may_win(x - error, x + error, dim) & (maximum(e[0], (dim,)) > 0)
    distance = torch.where(near, (_indices(x, dim) - chosen).abs(), 0.0).amax(dim=dim, keepdim=True)
    return distance if node.attributes.get("keepdim", False) else distance.squeeze(dim)


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
}


def _totalled_values(node: Node, spans: Sequence[Span]) -> Ends:
    """A sum, running sum or mean of the ends, wider by what float64 loses of the sum of absolute values."""
    (x,) = spans
    dims = dims_of(node, x.low)

    def added(z: Tensor) -> Tensor:
        if node.op == "cumsum":
            return z.cumsum(dims[0])
        return squeezed((mean if node.op == "mean" else total)(z, dims), dims, node)

    low, high = added(x.low), added(x.high)
    lost = lost_by(reduced_size(x.low, dims), added(x.largest))
    return low - lost, high + lost


def _extreme_values(node: Node, spans: Sequence[Span]) -> Ends:
    """One of the input's own values, which grows with each."""
    (x,) = spans
    return evaluate(node, [x.low]), evaluate(node, [x.high])


def _norm_values(node: Node, spans: Sequence[Span]) -> Ends:
    """It grows with each absolute value. Squares may vanish in float64: the root of them is far below 2^-500."""
    (x,) = spans
    low, high = evaluate(node, [x.smallest]), evaluate(node, [x.largest])
    lost = lost_by(reduced_size(x.low, dims_of(node, x.low)), high) + 2.0**-500
    return (low - lost).clamp(min=0), high + lost


def deviation_ends(x: Span, dims: tuple[int, ...]) -> Ends:
    """√(mean (z - mean)²), a seminorm: that of the middle, give or take that of what is added to it, √(mean half²).

    The mean and the differences lose n roundings of the largest value.
    """
    middle = x.middle
    centre = torch.sqrt(mean((middle - mean(middle, dims)) ** 2, dims))
    around = torch.sqrt(mean(x.half**2, dims))
    around = around + lost_by(2 * reduced_size(middle, dims), maximum(x.largest, dims)) + 2.0**-500
    return (centre - around).clamp(min=0), centre + around


def centred_ends(x: Span, dims: tuple[int, ...]) -> Ends:
    """Z - mean: (n - 1)/n of the value itself, less 1/n of the sum of the others."""
    n = reduced_size(x.low, dims)
    others = [total(end, dims) - end for end in (x.low, x.high)]
    lost = lost_by(2 * n, maximum(x.largest, dims))
    return ((n - 1) * x.low - others[1]) / n - lost, ((n - 1) * x.high - others[0]) / n + lost


def _var_values(node: Node, spans: Sequence[Span]) -> Ends:
    (x,) = spans
    dims = dims_of(node, x.low)
    n = reduced_size(x.low, dims)
    degrees = _degrees(node, n)
    scale = n / degrees if degrees else torch.nan
    low, high = outwards(*(scale * squeezed(end, dims, node) ** 2 for end in deviation_ends(x, dims)))
    return low.clamp(min=0), high


def _var_radius(node: Node, spans: Sequence[Span], _y: Span) -> Tensor:
    """The bound at the largest |z|, |mean| and |z - mean| that the spans have."""
    (x,) = spans
    dims = dims_of(node, x.low)
    centre = torch.maximum(mean(x.low, dims).abs(), mean(x.high, dims).abs())
    low, high = centred_ends(x, dims)
    (largest,) = largest_of(spans)
    return _var_error(node, dims, largest, centre, torch.maximum(-low, high), x.error)


def _truth_values(node: Node, spans: Sequence[Span]) -> Ends:
    """any, all: they grow with each truth."""
    (x,) = spans
    dims = dims_of(node, x.low)
    if node.op == "any":
        ends = [maximum(each.double(), dims) for each in (x.smallest > 0, x.largest > 0)]
    else:
        ends = [1 - maximum(each.double(), dims) for each in (x.smallest == 0, x.largest == 0)]
    return squeezed(ends[0], dims, node), squeezed(ends[1], dims, node)


def _truth_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """1 where some value may be open, and none always decides."""
    (x,) = spans
    if x.is_exact:
        return zero_radius(y.low)
    open_ = (x.error > 0) & (x.smallest <= x.error)
    decisive = (x.smallest > x.error) if node.op == "any" else (x.largest + x.error <= 0)
    return _undecided(node, dims_of(node, x.low), open_, decisive)


def _winners(node: Node, x: Span) -> Ends:
    """The first and the last index whose value may be the extreme one."""
    low, high = (x.low, x.high) if node.op == "argmax" else (-x.high, -x.low)
    dim = int(node.attributes["dim"]) % low.ndim
    may, indices = _may_win(low, high, dim), _indices(low, dim)
    first = torch.where(may, indices, inf).amin(dim=dim, keepdim=True)
    last = torch.where(may, indices, -inf).amax(dim=dim, keepdim=True)
    return squeezed(first, (dim,), node), squeezed(last, (dim,), node)


def _winners_values(node: Node, spans: Sequence[Span]) -> Ends:
    return _winners(node, spans[0])


def _winners_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """From the first to the last index that may win among the widened spans; 0 where the values are exact."""
    (x,) = spans
    if x.is_exact:
        return zero_radius(y.low)
    wide = widened(x.largest, x.error)
    first, last = _winners(node, Span(x.low - wide, x.high + wide))
    dim = int(node.attributes["dim"]) % x.low.ndim
    return torch.where(squeezed(maximum(x.error, (dim,)), (dim,), node) > 0, last - first, 0.0)


ENCLOSURES: dict[str, Enclosure] = {
    **{op: Enclosure(_totalled_values, growing(RULES[op])) for op in ("sum", "mean", "cumsum")},
    **dict.fromkeys(("amax", "amin"), Enclosure(_extreme_values, growing(_extreme))),
    "linalg_vector_norm": Enclosure(_norm_values, growing(_norm)),
    "var": Enclosure(_var_values, _var_radius),
    **dict.fromkeys(("any", "all"), Enclosure(_truth_values, _truth_radius)),
    **dict.fromkeys(("argmax", "argmin"), Enclosure(_winners_values, _winners_radius)),
}
