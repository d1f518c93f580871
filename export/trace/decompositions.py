"""Operators in terms of others, where PyTorch has no decomposition, or one that a file could not say as well.

Each is a function of real tensors that runs while they are recorded, so what it calls is recorded in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from math import log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten
Weight = Tensor | None
Number = float | None


def _split(x: Tensor, sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    return [x.narrow(dim, end - size, size) for end, size in zip(accumulate(sizes), sizes, strict=True)]


def _unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [x.select(dim, i) for i in range(x.shape[dim])]


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    dim %= tensors[0].ndim + 1
    return torch.cat([tensor.unsqueeze(dim) for tensor in tensors], dim)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Constants that pick along neighbouring dimensions, which are joined to one."""
    first, flat, places, shape = _along_one(x, indices)
    return torch.index_select(flat, first, places).reshape(shape)


def _looked_up(table: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Rows of a constant by a number of the input."""
    (index,) = (index for index in indices if index is not None)
    rows = torch.embedding(table.reshape(len(table), -1), index)
    return rows.reshape(*index.shape, *table.shape[1:])


def _index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """A mask chooses; constants along neighbouring dimensions are put in by position."""
    first = next(i for i, index in enumerate(indices) if index is not None)
    mask = indices[first]
    if mask is not None and mask.dtype == torch.bool and values.numel() == 1:
        wide = mask.reshape(*[1] * first, *mask.shape, *[1] * (x.ndim - first - mask.ndim))
        return torch.where(wide, values, x)
    first, flat, places, shape = _along_one(x, indices)
    put = values.expand(shape)
    return _scattered(flat, put.flatten(first, first + put.ndim - flat.ndim), first, places).reshape(x.shape)


def _along_one(x: Tensor, indices: Sequence[Tensor | None]) -> tuple[int, Tensor, Tensor, tuple[int, ...]]:
    """The first dimension that indices pick along, ``x`` with all of them joined to that one, the places there, and
    the shape of what is picked. A mask picks the places where it is true.
    """
    first = next(i for i, index in enumerate(indices) if index is not None)
    given = [index for index in indices if index is not None]
    given = [part for index in given for part in (index.nonzero().unbind(1) if index.dtype == torch.bool else (index,))]
    sizes = x.shape[first : first + len(given)]
    places = torch.zeros(torch.broadcast_shapes(*(index.shape for index in given)), dtype=torch.int64)
    for index, size in zip(given, sizes, strict=True):
        places = places * size + torch.where(index < 0, index + size, index)
    flat = x.flatten(first, first + len(given) - 1) if len(given) > 1 else x
    return first, flat, places.flatten(), (*x.shape[:first], *places.shape, *x.shape[first + len(given) :])


def _scattered(x: Tensor, part: Tensor, dim: int, positions: list[int] | Tensor) -> Tensor:
    """``x`` with a part in place of what stands at some positions of a dimension."""
    order = torch.arange(x.shape[dim])
    order[positions] = x.shape[dim] + torch.arange(len(positions))
    return torch.index_select(torch.cat([x, part.to(x.dtype)], dim), dim, order)


def _slice_scatter(
    x: Tensor, part: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    return _scattered(x, part, dim % x.ndim, list(range(x.shape[dim]))[slice(start, end, step)])


def _select_scatter(x: Tensor, part: Tensor, dim: int, index: int) -> Tensor:
    dim %= x.ndim
    return _scattered(x, part.unsqueeze(dim), dim, [index % x.shape[dim]])


def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """Copies beside each other, dimension by dimension."""
    x = x.reshape(*[1] * (len(repeats) - x.ndim), *x.shape)
    for dim, count in enumerate(repeats):
        if count != 1 and x.shape[dim] != 1:
            x = torch.cat([x] * count, dim)
        elif count != 1:
            x = x.expand(*x.shape[:dim], count, *x.shape[dim + 1 :])
    return x


def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not dims:
        return _roll(x.flatten(), shifts, [0]).reshape(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        at = -shift % x.shape[dim]
        x = torch.cat([x.narrow(dim, at, x.shape[dim] - at), x.narrow(dim, 0, at)], dim) if at else x
    return x


def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        x = torch.index_select(x, dim % x.ndim, torch.arange(x.shape[dim]).flip(0))
    return x


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: Number = None) -> Tensor:
    """Values before and behind, from the last dimension; where constants are, a negative width cuts off."""
    for dim, before, behind in zip(reversed(range(x.ndim)), pad[::2], pad[1::2], strict=False):
        size = x.shape[dim]
        if mode != "constant":
            x = torch.index_select(x, dim, _places(mode, torch.arange(-before, size + behind), size))
            continue
        x = aten.slice.Tensor(x, dim, max(0, -before), size - max(0, -behind))
        edges = [x.new_full((*x.shape[:dim], max(0, w), *x.shape[dim + 1 :]), value or 0.0) for w in (before, behind)]
        parts = [part for part in (edges[0], x, edges[1]) if part.shape[dim]]
        x = torch.cat(parts, dim) if len(parts) > 1 else x
    return x


def _places(mode: str, places: Tensor, size: int) -> Tensor:
    """Where a value beyond the ends comes from: the last one, the next ones backwards, or those of the other end."""
    if mode == "replicate":
        return places.clamp(0, size - 1)
    if mode == "reflect":
        return (size - 1) - (places.abs() - (size - 1)).abs()
    return places % size


def _product_with_vector(a: Tensor, b: Tensor) -> Tensor:
    """A vector is a matrix of one row or column."""
    if b.ndim == 1:
        return (a @ b.unsqueeze(1)).squeeze(-1)
    return (a.unsqueeze(0) @ b).squeeze(-2)


def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    return torch.where(mask, value, x)


def _triangle(cut: Callable[..., Tensor], x: Tensor, diagonal: int = 0) -> Tensor:
    kept = cut(torch.ones(x.shape[-2:], dtype=torch.bool), diagonal)
    return torch.where(kept, x, torch.zeros((), dtype=x.dtype))


def _one_hot(x: Tensor, classes: int = -1) -> Tensor:
    """Rows of the identity, so that a class which is not there is an index beyond a table."""
    return torch.embedding(torch.eye(classes, dtype=torch.int64), x)


def _group_norm(
    x: Tensor, groups: int, weight: Weight = None, bias: Weight = None, eps: float = 1e-5, cudnn: bool = True
) -> Tensor:
    rows = x.reshape(x.shape[0], groups, prod(x.shape[1:]) // groups)
    y = F.layer_norm(rows, rows.shape[2:], None, None, eps).reshape(x.shape)
    shape = (-1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _instance_norm(
    x: Tensor, weight: Weight, bias: Weight, mean: Weight, var: Weight, of_input: bool, *options: Any
) -> Tensor:
    """Each channel of each row by itself, or by statistics that are kept."""
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


def _std(x: Tensor, dim: Any = None, *, correction: Number = None, keepdim: bool = False) -> Tensor:
    return torch.sqrt(aten.var.correction(x, dim, correction=correction, keepdim=keepdim))


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
    return aten._prelu_kernel.default(x, weight.reshape(shape) if weight.numel() > 1 else weight.reshape(()).expand(1))


def _var_mean(x: Tensor, dim: Any = None, *, correction: Number = None, keepdim: bool = False) -> Any:
    dims = list(range(x.ndim)) if dim is None else dim
    return aten.var.correction(x, dims, correction=correction, keepdim=keepdim), x.mean(dims, keepdim)


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


def _layer(x: Tensor, matrix: Tensor) -> Tensor:
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


DECOMPOSED: dict[str, Callable[..., Any]] = {
    "split_with_sizes.default": _split,
    "unbind.int": _unbind,
    "stack.default": _stack,
    "index.Tensor": _index,
    **dict.fromkeys(("index_put.default", "_unsafe_index_put.default"), _index_put),
    "slice_scatter.default": _slice_scatter,
    "select_scatter.default": _select_scatter,
    "repeat.default": _repeat,
    "roll.default": _roll,
    "flip.default": _flip,
    **dict.fromkeys(("pad.default", "constant_pad_nd.default"), _pad),
    **dict.fromkeys(("masked_fill.Scalar", "masked_fill.Tensor"), _masked_fill),
    "tril.default": partial(_triangle, torch.tril),
    "triu.default": partial(_triangle, torch.triu),
    "one_hot.default": _one_hot,
    "group_norm.default": _group_norm,
    "instance_norm.default": _instance_norm,
    "addcmul.default": partial(_plus, torch.mul),
    "addcdiv.default": partial(_plus, torch.div),
    **dict.fromkeys(("baddbmm.default", "addmv.default"), _addmm),
    "std.correction": _std,
    "var_mean.correction": _var_mean,
    "logsumexp.default": _logsumexp,
    "nan_to_num.default": _nan_to_num,
    "hardshrink.default": _hardshrink,
    "softshrink.default": _softshrink,
    "prelu.default": _prelu,
    "scaled_dot_product_attention.default": _attention,
    "square.default": lambda x: x.to(torch.int64) if x.dtype == torch.bool else x * x,
    "bilinear.default": _bilinear,
    **dict.fromkeys(("logical_xor.default", "bitwise_xor.Tensor", "__xor__.Tensor"), torch.ne),
    "hypot.default": _hypot,
    "log2.default": lambda x: torch.log(x) / log(2.0),
    "log10.default": lambda x: torch.log(x) / log(10.0),
    "exp2.default": partial(torch.pow, 2.0),
    **dict.fromkeys(("lerp.Scalar", "lerp.Tensor"), _lerp),
}
"""By the operator that they stand for."""

Tracked = Callable[[Tensor], bool]


def _has_factor(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    return given.get("alpha", args[2] if len(args) > 2 else 1) != 1


def _weight_depends(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    return any(isinstance(a, Tensor) and tracked(a) for a in (*args[1:], *given.values()))


def _is_no_linear(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    factors = any(given.get(name, 1) != 1 for name in ("alpha", "beta"))
    return factors or tracked(args[0]) or tracked(args[2]) or args[0].ndim != 1 or len(args[0]) != args[2].shape[1]


def _index_depends(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    return any(index is not None and tracked(index) for index in args[1])


def _has_vector(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    return args[0].ndim + args[1].ndim > 2 and min(args[0].ndim, args[1].ndim) == 1


def _by_constant_matrix(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    return not tracked(args[1]) and args[1].ndim == 2 and args[1].is_floating_point()


def _several(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    return len(args[1]) > 1


Condition = Callable[[Sequence[Any], Mapping[str, Any], Tracked], bool]
SOMETIMES: dict[str, tuple[tuple[Condition, Callable[..., Any]], ...]] = {
    "add.Tensor": ((_has_factor, partial(_scaled, torch.add)),),
    "sub.Tensor": ((_has_factor, partial(_scaled, torch.sub)),),
    **dict.fromkeys(("rsub.Tensor", "rsub.Scalar"), ((_has_factor, _rsub),)),
    "linear.default": ((_weight_depends, _linear),),
    "addmm.default": ((_is_no_linear, _addmm),),
    "rms_norm.default": ((_several, _rms_norm),),
    "mm.default": ((_by_constant_matrix, _layer),),
    **dict.fromkeys(
        ("matmul.default", "mv.default"), ((_has_vector, _product_with_vector), (_by_constant_matrix, _layer))
    ),
    "index.Tensor": ((_index_depends, _looked_up),),
}
"""The same where a condition on the arguments holds: the first one that does."""
