"""Decompositions of operators, where PyTorch has none, or one that makes a worse file.

Each is a function of real tensors that runs while the forward is recorded, so what it calls is recorded in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import indexing

_aten = torch.ops.aten
Weight = Tensor | None
Number = float | None


def _product_with_vector(a: Tensor, b: Tensor) -> Tensor:
    """A vector is a matrix of one row or column."""
    if b.ndim == 1:
        return (a @ b.unsqueeze(1)).squeeze(-1)
    return (a.unsqueeze(0) @ b).squeeze(-2)


def _one_hot(x: Tensor, classes: int = -1) -> Tensor:
    """Rows of the identity matrix, so that a class that does not exist is an index beyond the table."""
    return torch.embedding(torch.eye(classes, dtype=torch.int64), x)


def _group_norm(
    x: Tensor, groups: int, weight: Weight = None, bias: Weight = None, eps: float = 1e-5, *_options: Any
) -> Tensor:
    rows = x.reshape(x.shape[0], groups, prod(x.shape[1:]) // groups)
    y = F.layer_norm(rows, rows.shape[2:], None, None, eps).reshape(x.shape)
    shape = (-1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _instance_norm(
    x: Tensor, weight: Weight, bias: Weight, mean: Weight, var: Weight, of_input: bool, *options: Any
) -> Tensor:
    """Each channel of each row normalised by itself, or by running statistics."""
    _momentum, eps, _cudnn = options
    if of_input:
        return _group_norm(x, x.shape[1], weight, bias, eps)
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)


def _rms_norm(x: Tensor, shape: Sequence[int], weight: Weight = None, eps: Number = None) -> Tensor:
    """Over several dimensions: over one that they are joined to."""
    flat = x.flatten(x.ndim - len(shape))
    return F.rms_norm(flat, flat.shape[-1:], None if weight is None else weight.flatten(), eps).reshape(x.shape)


def _plus(operation: Callable[..., Tensor], x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + (operation(a, b) if value == 1 else operation(a, b) * value)


def _addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = a @ b
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (x if beta == 1 else x * beta)


def _scaled(operation: Callable[..., Tensor], x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    """A sum or a difference with a factor."""
    return operation(x, y * alpha)


def _rsub(x: Any, y: Any, alpha: float = 1) -> Tensor:
    return torch.sub(y, x * alpha)


def _logsumexp(x: Tensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    dims = list(dim)
    most = x.amax(dims, keepdim=True)
    most = torch.where(most.abs() == torch.inf, 0.0, most)
    y = torch.log(torch.sum(torch.exp(x - most), dims, keepdim=True)) + most
    return y if keepdim else y.squeeze(tuple(dims))


def _nan_to_num(x: Tensor, nan: Number = None, posinf: Number = None, neginf: Number = None) -> Tensor:
    if not x.is_floating_point():
        return x.clone()
    most = torch.finfo(x.dtype).max
    high, low = most if posinf is None else posinf, -most if neginf is None else neginf
    x = torch.where(torch.isnan(x), nan or 0.0, x)
    return torch.where(x == torch.inf, high, torch.where(x == -torch.inf, low, x))


def _hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return torch.where((x >= -lambd) & (x <= lambd), 0.0, x)


def _softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return torch.where(x > lambd, x - lambd, torch.where(x < -lambd, x + lambd, x * 0.0))


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    """One slope, or one for each channel, which is the second dimension."""
    shape = weight.shape if weight.numel() == 1 or x.ndim < 2 else (-1, *[1] * (x.ndim - 2))
    return _aten._prelu_kernel.default(x, weight.reshape(shape) if weight.numel() > 1 else weight.reshape(()).expand(1))


def _var_mean(x: Tensor, dim: Any = None, *, correction: Number = None, keepdim: bool = False) -> Any:
    dims = list(range(x.ndim)) if dim is None else dim
    return _aten.var.correction(x, dims, correction=correction, keepdim=keepdim), x.mean(dims, keepdim)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Weight = None, dropout: float = 0.0, causal: bool = False, **options: Any
) -> Tensor:
    """softmax(q·kᵀ·scale + mask)·v, the scale taken half and half as PyTorch does."""
    scale = options.get("scale")
    factor = (q.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    scores = (q * factor) @ (k * factor).transpose(-2, -1)
    if causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores + (torch.where(mask, 0.0, -torch.inf) if mask.dtype == torch.bool else mask)
    return F.dropout(torch.softmax(scores, -1), dropout, dropout > 0) @ v


def _linear(x: Tensor, weight: Tensor, bias: Weight = None) -> Tensor:
    """A linear whose weight depends on the input."""
    product = x @ weight.transpose(-2, -1)
    return product if bias is None else product + bias


def _times_constant(x: Tensor, matrix: Tensor) -> Tensor:
    """A product with a constant matrix."""
    return F.linear(x, matrix.t())


def _bilinear(a: Tensor, b: Tensor, weight: Tensor, bias: Weight = None) -> Tensor:
    """Σ a_i·w_kij·b_j: the products a·w_k, then with b."""
    out, first, second = weight.shape
    left = (a @ weight.permute(1, 0, 2).reshape(first, out * second)).reshape(*a.shape[:-1], out, second)
    y = (left @ b.unsqueeze(-1)).squeeze(-1)
    return y if bias is None else y + bias


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(a * a + b * b)


def _lerp(a: Tensor, b: Tensor, weight: Any) -> Tensor:
    return a + (b - a) * weight


def _square(x: Tensor) -> Tensor:
    return x.to(torch.int64) if x.dtype == torch.bool else x * x


def _logarithm(base: float, x: Tensor) -> Tensor:
    return torch.log(x) / log(base)


DECOMPOSED: dict[str, Callable[..., Any]] = {
    **indexing.DECOMPOSED,
    "one_hot.default": _one_hot,
    "group_norm.default": _group_norm,
    "instance_norm.default": _instance_norm,
    "addcmul.default": partial(_plus, torch.mul),
    "addcdiv.default": partial(_plus, torch.div),
    **dict.fromkeys(("baddbmm.default", "addmv.default"), _addmm),
    "var_mean.correction": _var_mean,
    "logsumexp.default": _logsumexp,
    "nan_to_num.default": _nan_to_num,
    "hardshrink.default": _hardshrink,
    "softshrink.default": _softshrink,
    "prelu.default": _prelu,
    "scaled_dot_product_attention.default": _attention,
    "square.default": _square,
    "bilinear.default": _bilinear,
    **dict.fromkeys(("logical_xor.default", "bitwise_xor.Tensor"), torch.ne),
    "hypot.default": _hypot,
    "log2.default": partial(_logarithm, 2.0),
    "log10.default": partial(_logarithm, 10.0),
    "exp2.default": partial(torch.pow, 2.0),
    **dict.fromkeys(("lerp.Scalar", "lerp.Tensor"), _lerp),
}
"""By operator: the function that computes the same in other operators."""

Tracked = Callable[[Tensor], bool]
"""Whether a tensor depends on the input."""


def _has_factor(args: Sequence[Any], kwargs: Mapping[str, Any], _tracked: Tracked) -> bool:
    return kwargs.get("alpha", args[2] if len(args) > 2 else 1) != 1


def _weight_depends(args: Sequence[Any], kwargs: Mapping[str, Any], tracked: Tracked) -> bool:
    return any(isinstance(a, Tensor) and tracked(a) for a in (*args[1:], *kwargs.values()))


def _is_not_linear(args: Sequence[Any], kwargs: Mapping[str, Any], tracked: Tracked) -> bool:
    factors = any(kwargs.get(name, 1) != 1 for name in ("alpha", "beta"))
    return factors or tracked(args[0]) or tracked(args[2]) or args[0].ndim != 1 or len(args[0]) != args[2].shape[1]


def _index_depends(args: Sequence[Any], _kwargs: Mapping[str, Any], tracked: Tracked) -> bool:
    return any(index is not None and tracked(index) for index in args[1])


def _has_vector(args: Sequence[Any], _kwargs: Mapping[str, Any], _tracked: Tracked) -> bool:
    return args[0].ndim + args[1].ndim > 2 and min(args[0].ndim, args[1].ndim) == 1


def _by_constant_matrix(args: Sequence[Any], _kwargs: Mapping[str, Any], tracked: Tracked) -> bool:
    return not tracked(args[1]) and args[1].ndim == 2 and args[1].is_floating_point()


def _several(args: Sequence[Any], _kwargs: Mapping[str, Any], _tracked: Tracked) -> bool:
    return len(args[1]) > 1


Condition = Callable[[Sequence[Any], Mapping[str, Any], Tracked], bool]
_CONDITIONAL: dict[str, tuple[tuple[Condition, Callable[..., Any]], ...]] = {
    "add.Tensor": ((_has_factor, partial(_scaled, torch.add)),),
    "sub.Tensor": ((_has_factor, partial(_scaled, torch.sub)),),
    **dict.fromkeys(("rsub.Tensor", "rsub.Scalar"), ((_has_factor, _rsub),)),
    "linear.default": ((_weight_depends, _linear),),
    "addmm.default": ((_is_not_linear, _addmm),),
    "rms_norm.default": ((_several, _rms_norm),),
    "mm.default": ((_by_constant_matrix, _times_constant),),
    **dict.fromkeys(
        ("matmul.default", "mv.default"), ((_has_vector, _product_with_vector), (_by_constant_matrix, _times_constant))
    ),
    "index.Tensor": ((_index_depends, indexing.looked_up),),
}
"""By operator: functions for calls whose arguments meet a condition; the first that does counts."""


def decomposition_of(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tracked: Tracked
) -> Callable[..., Any] | None:
    """The function to run in place of a call; None where there is none."""
    for condition, function in _CONDITIONAL.get(name, ()):
        if condition(args, kwargs, tracked):
            return function
    return DECOMPOSED.get(name)
