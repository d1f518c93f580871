"""The bounds of the softmax and of the norms, which divide by what they reduce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, inf, log, nan, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from export.evaluation import constant, number
from export.graph import Node

from .common import Radius, Rule, radius_of, reach, size
from .constants import CONSTANTS, ETA, LARGEST, U, gamma
from .reductions import centred_ends, deviation_ends, maximum, mean, reduced_size, total
from .spans import OUTWARDS, Enclosure, Ends, Span, extremes, lost_by, outwards, radii


def _softmax(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """exp(z_i - max) / Σ exp(z_j - max), with d_i = max - z_i.

    The difference is rounded (u·d_i in the exponent), the exponential has c roundings, the sum of n positive terms
    n - 1, the quotient one. So |fl(y_i) - y_i| ≤ y_i·u·(d_i + Σ y_j d_j + n + 2c + 2), and twice e in the exponent
    where the input is not exact (after Blanchard, Higham and Higham, Accurately computing the log-sum-exp and softmax
    functions, IMA J. Numer. Anal. 41(4), 2021). Results below 2^-126 are flushed, as are terms of the sum.
    """
    dims = (node.attributes["dim"],)
    depth = torch.where(y > 0, maximum(z[0], dims) - z[0], 0.0)
    return _softmax_error(dims, e[0], y, depth, total(y * depth, dims))


def _softmax_error(dims: tuple[int, ...], e: Radius, y: Tensor, depth: Tensor, inner: Tensor) -> Tensor:
    """The bound of ``_softmax``, with Σ y_j d_j as ``inner``."""
    c, n = CONSTANTS["softmax"].limits[1], reduced_size(y, dims)
    own = U * (depth + inner + n + 2 * c + 2)
    moved = 0.0 if e is None else torch.expm1(e + maximum(e, dims))
    return y * ((1 + own) * (1 + moved) - 1) + (n + 2) * ETA


def _log_softmax(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(z_i - max) - log S or z_i - (max + log S), S = Σ exp(z_j - max) ≥ 1, d_i = max - z_i, p_j = exp(y_j).

    S has a relative error of u·(Σ p_j d_j + c + n - 1) as in ``_softmax``, which the logarithm makes absolute, with
    u·(a + r·log S) of its own; the differences add u·d_i and u·|y_i|, or the sum u·|max + log S|. Second-order terms
    are in n + 2c + 2. z_i moves by e_i, and the logarithm of the sum, whose gradient is p, by at most the largest e.
    """
    dims = (node.attributes["dim"],)
    known = z[0].isfinite() & y.isfinite()
    largest = maximum(z[0], dims)
    depth = torch.where(known, largest - z[0], 0.0)
    log_sum = torch.where(y.isfinite(), torch.where(known, -depth - y, 0.0), 0.0)
    log_sum = maximum(torch.clamp(log_sum, min=0.0), dims)
    inner = total(torch.where(known, y.exp() * depth, 0.0), dims)
    return _log_softmax_error(dims, radius_of(e[0], z[0]), y, depth, inner, log_sum, largest)


def _log_softmax_error(
    dims: tuple[int, ...], error: Tensor, y: Tensor, depth: Tensor, inner: Tensor, log_sum: Tensor, largest: Tensor
) -> Tensor:
    """The bound of ``_log_softmax``, with Σ p_j d_j as ``inner``."""
    c, (a, r, _), n = CONSTANTS["log_softmax"].limits[1], CONSTANTS["log"].limits, reduced_size(y, dims)
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
    lost = ((x.abs() + error) ** 2).sum(dim=dims, keepdim=True).mul(1 + g).gt(LARGEST)
    return _layer_norm_error(node, n, centred, moved, variance, slack, lost)


def _layer_norm_error(
    node: Node, n: int, centred: Tensor, moved: Tensor, variance: Tensor, slack: Tensor, lost: Tensor
) -> Tensor:
    """The bound of ``_layer_norm``, for |z - mean| that is off by ``moved`` and a variance that is off by ``slack``."""
    unit = 1 / torch.sqrt(variance)
    growth = torch.sqrt(variance / torch.where(slack < variance, variance - slack, torch.nan)) - 1
    weight, bias = constant(node, "weight", centred), constant(node, "bias", centred)
    scaled = unit * (moved * (1 + growth) + centred * (growth + 6 * U))
    radius = scaled if weight is None else weight.abs() * scaled
    radius = radius + (n + 6) * ETA * (1 + unit) + (0.0 if bias is None else 4 * U * bias.abs())
    return torch.where(radius.isnan() | lost, torch.inf, radius)


def _rms_norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """γ_{n/2+9} for x / √q·w, q = mean x² + eps, with no cancellation.

    q takes n + 2 roundings for the mean (perhaps with a rounded 1/n), one for the sum and one for eps as float32, which
    the root halves; the reciprocal root 5 (``rsqrt``), two products. Squares may be flushed, q then lacks 2·2^-126, and
    1/√q grows by √(q / (q - that)).

    The size ρ = √q moves by at most δ = √(mean e²), so y by |w|·(e + |x|·δ/ρ) / (ρ - δ). Exempt where that or a flush
    may be all of ρ, or Σx² overflows.
    """
    x, dims = torch.where(z[0].isfinite(), z[0], 0.0), (z[0].ndim - 1,)
    squares = mean(x**2, dims) + _epsilon(node)
    return _rms_norm_error(node, x.abs(), squares, radius_of(e[0], z[0]), y, total(reach(x, e[0]) ** 2, dims))


def _rms_norm_error(node: Node, x: Tensor, squares: Tensor, error: Tensor, y: Tensor, all_squares: Tensor) -> Tensor:
    """The bound of ``_rms_norm`` for |x| and q, with the largest Σx² of inexact inputs as ``all_squares``."""
    dims = (x.ndim - 1,)
    g, weight = gamma(reduced_size(x, dims) / 2 + 9), constant(node, "weight", x)
    w = torch.ones((), dtype=x.dtype) if weight is None else weight.abs()
    rho, delta = torch.sqrt(squares), torch.sqrt(mean(error**2, dims))
    left = torch.where(squares > 4 * ETA, squares - 2 * ETA, torch.nan)
    growth = torch.sqrt(squares / left) - 1
    near = torch.where(rho > delta, rho - delta, torch.nan)
    p = w * (error + x * delta / rho) / near
    radius = p + ((1 + g) * (1 + growth) - 1) * (size(y) + p) + ETA * (2 + w * (2 + 1 / rho))
    return torch.where(radius.isnan() | ((1 + g) * all_squares > LARGEST), torch.inf, radius)


def _epsilon(node: Node) -> float:
    """The eps of an rms_norm, that of float32 where it has none."""
    return 2.0**-23 if node.attributes.get("eps") is None else number(node, "eps", rounded=False)


RULES: dict[str, Rule] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}


def _other_sums(x: Tensor, dim: int, accumulate: Callable[[Tensor, int], Tensor], zero: float) -> tuple[Tensor, Tensor]:
    """What accumulates before and after each value, so that no difference cancels."""
    before, after = accumulate(x, dim), accumulate(x.flip(dim), dim).flip(dim)
    n, nothing = x.shape[dim], torch.full_like(x.narrow(dim, 0, 1), zero)
    before = torch.cat([nothing, before.narrow(dim, 0, n - 1)], dim)
    return before, torch.cat([after.narrow(dim, 1, n - 1), nothing], dim)


def _softmax_values(node: Node, spans: Sequence[Span]) -> Ends:
    """1 / (1 + exp(L_i - z_i)), L_i = log Σ_{j≠i} exp(z_j): it grows with z_i and falls with every other.

    log_softmax is the logarithm of that.
    """
    (x,) = spans
    dim = int(node.attributes["dim"])
    n = x.low.shape[dim]
    ends: list[Tensor] = []
    for own, others, side in ((x.low, x.high, -1), (x.high, x.low, 1)):
        log_sum = torch.logaddexp(*_other_sums(others, dim, torch.logcumsumexp, -inf))
        lost = (n + 8) * 2.0**-50 * (1 + log(n) + maximum(others.abs(), (dim,)) + own.abs())
        above = own - log_sum + side * lost
        # PyTorch's own log_softmax loses as much, absolutely.
        ends.append(torch.sigmoid(above) if node.op == "softmax" else F.logsigmoid(above) + side * lost)
    low, high = outwards(ends[0], ends[1])
    return (low.clamp(min=0), high.clamp(max=1)) if node.op == "softmax" else (low, high.clamp(max=0))


def _depth(x: Span, dim: int) -> Tensor:
    """The largest distance of each value from the largest."""
    return (maximum(x.high, (dim,)) - x.low).clamp(min=0)


def _softmax_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The bound at the largest y and d, of which y·d ≤ 1/e, since y ≤ exp(-d), and Σ y_j d_j ≤ log n.

    Σ y_j d_j is the entropy of y less log Σ exp(-d_j), of which neither is negative.
    """
    (x,) = spans
    dim = int(node.attributes["dim"])
    depth = torch.minimum(_depth(x, dim), exp(-1) / y.high)
    inner = total(y.high * depth, (dim,)).clamp(max=log(x.low.shape[dim]))
    return _softmax_error((dim,), radii(spans)[0], y.high, depth, inner)


def _log_softmax_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The bound at the largest d and |y|, with Σ p_j d_j ≤ log n as in softmax, and log S ≤ log n."""
    (x,) = spans
    dim = int(node.attributes["dim"])
    depth, entropy = _depth(x, dim), log(x.low.shape[dim])
    inner = total(y.high.exp() * depth, (dim,)).clamp(max=entropy)
    largest = torch.maximum(maximum(x.low, (dim,)).abs(), maximum(x.high, (dim,)).abs())
    log_sum = torch.full_like(largest, entropy)
    return _log_softmax_error((dim,), x.error, y.largest, depth, inner, log_sum, largest)


def _layer_norm_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The quotients of the ends of z - mean and of √(var + eps), of which none is beyond ±√(n - 1)."""
    (x,) = spans
    dims = _normalised(node, x.low)
    most = sqrt(max(0, reduced_size(x.low, dims) - 1)) * (1 + 2.0**-50)
    least, largest = (torch.sqrt(end**2 + number(node, "eps")) for end in outwards(*deviation_ends(x, dims)))
    low, high = outwards(*extremes([end / each for end in centred_ends(x, dims) for each in (least, largest)]))
    low, high = low.clamp(min=-most), high.clamp(max=most)
    return _scaled(node, torch.where(least > 0, low, nan), torch.where(least > 0, high, nan))


def _scaled(node: Node, low: Tensor, high: Tensor) -> Ends:
    """Times the weight, plus the bias."""
    weight, bias = constant(node, "weight", low), constant(node, "bias", low)
    if weight is not None:
        low, high = outwards(*extremes([low * weight, high * weight]))
    return (low, high) if bias is None else outwards(low + bias, high + bias)


def _normalised(node: Node, x: Tensor) -> tuple[int, ...]:
    """The dimensions that are normalised."""
    return tuple(range(x.ndim - len(node.attributes["normalized_shape"]), x.ndim))


def _moved(node: Node, error: Tensor, deviation: Tensor, normal: Tensor, centred: bool) -> Tensor:
    """How far errors of its input move a norm, whose smallest √(var + eps) is ``deviation`` and largest |ŷ| ``normal``.

    Its derivatives are w_i·(δ_ij - [1/n] - ŷ_i·ŷ_j/n) / √(var + eps), without 1/n in an rms_norm. By the mean value
    theorem, with Σ|ŷ_j|·e_j/n ≤ √(mean e²), since mean ŷ² ≤ 1; and the derivative is no longer than 1 / √(var + eps).
    """
    dims = _normalised(node, error)
    length = torch.sqrt(total(error**2, dims))
    single = error + normal * torch.sqrt(mean(error**2, dims)) + (mean(error, dims) if centred else 0.0)
    moved = torch.minimum(single, length) / deviation * (1 + OUTWARDS)
    weight = constant(node, "weight", error)
    return moved if weight is None else weight.abs() * moved


def _layer_norm_radius(node: Node, spans: Sequence[Span], _y: Span) -> Tensor:
    """What errors move it, and the rule for exact inputs in the widened span: at the smallest variance v.

    The largest slack/v, and |z - mean|/√v ≤ √(n - 1). With s² = v - eps and m the root mean square of what z - mean is
    off by besides 2u·|z - mean|, the slack is at most (γ + 4u(1 + u))·s² + (2 + 4u)·m·s + γ(2·mean² + eps) + m² +
    (n + 4)·2^-126: E[z²] = s² + mean², and by Cauchy and Schwarz. s²/v ≤ 1, s/v is largest at √eps, or the smallest s
    beyond it, and 1/v at the smallest.
    """
    x, error = spans[0].widened, spans[0].error
    dims, largest = _normalised(node, x.low), x.largest
    n, eps = reduced_size(x.low, dims), number(node, "eps", rounded=False)
    g, s = gamma(n + 4), deviation_ends(x, dims)[0]
    off = g * mean(largest, dims)
    m = torch.sqrt(mean(off**2, dims))
    centre = torch.maximum(mean(x.low, dims).abs(), mean(x.high, dims).abs())
    variance, steepest = s**2 + eps, s.clamp(min=sqrt(eps))
    share = g + 4 * U * (1 + U) + (2 + 4 * U) * m * steepest / (steepest**2 + eps)
    share = share + (g * (2 * centre**2 + eps) + m**2 + (n + 4) * ETA) / variance
    low, high = centred_ends(x, dims)
    most, deviation = sqrt(max(0, n - 1)), torch.sqrt(variance)
    away = torch.minimum(torch.maximum(-low, high), most * deviation)
    lost = (largest**2).sum(dim=dims, keepdim=True).mul(1 + g).gt(LARGEST)
    own = _layer_norm_error(node, n, away, off + 2 * U * away, variance, share * variance, lost)
    return own + _moved(node, error, deviation, away / deviation, centred=True)


def _rms_norm_values(node: Node, spans: Sequence[Span]) -> Ends:
    """x_i / √(mean x² + eps) grows with x_i, and comes nearer to 0 as any other grows in size."""
    (x,) = spans
    n, eps = x.low.shape[-1], number(node, "eps")
    least, most = (torch.add(*_other_sums(end**2, -1, torch.cumsum, 0.0)) for end in (x.smallest, x.largest))
    ends = [
        end / torch.sqrt((torch.where(far, least, most) + end**2) / n + eps)
        for end, far in ((x.low, x.low < 0), (x.high, x.high > 0))
    ]
    lost = [lost_by(n, end.abs()) for end in ends]
    return _scaled(node, ends[0] - lost[0], ends[1] + lost[1])


def _rms_norm_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """What errors move it, and the rule for exact inputs in the widened span: at the smallest q, with |x|/√q ≤ √n."""
    x, error = spans[0].widened, spans[0].error
    squares = mean(x.smallest**2, (-1,)) + _epsilon(node)
    deviation = torch.sqrt(squares)
    most = torch.minimum(x.largest, sqrt(x.low.shape[-1]) * deviation)
    moved = _moved(node, error, deviation, most / deviation, centred=False)
    everything = total(x.largest**2, (-1,))
    return moved + _rms_norm_error(node, most, squares, torch.zeros_like(error), y.largest + moved, everything)


ENCLOSURES: dict[str, Enclosure] = {
    "softmax": Enclosure(_softmax_values, _softmax_radius),
    "log_softmax": Enclosure(_softmax_values, _log_softmax_radius),
    "layer_norm": Enclosure(_layer_norm_values, _layer_norm_radius),
    "rms_norm": Enclosure(_rms_norm_values, _rms_norm_radius),
}
