"""Operators in terms of others, where PyTorch has no decomposition, or one that a file could not say as well.

Each is a function of real tensors that runs while they are recorded, so what it calls is recorded in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def _split(x: Tensor, size: int | Sequence[int], dim: int = 0) -> list[Tensor]:
    total = x.shape[dim]
    sizes = [min(size, total - i) for i in range(0, total, size)] if isinstance(size, int) else list(size)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [x.narrow(dim, start, length) for start, length in zip(starts, sizes, strict=True)]


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    return _split(x, max(1, -(-x.shape[dim] // chunks)), dim)


def _tensor_split(x: Tensor, sections: int | Sequence[int], dim: int = 0) -> list[Tensor]:
    total = x.shape[dim]
    if isinstance(sections, int):
        small, more = divmod(total, sections)
        return _split(x, [small + (i < more) for i in range(sections)], dim)
    ends = [*sections, total]
    return [aten.slice.Tensor(x, dim, start, end) for start, end in zip([0, *sections], ends, strict=True)]


def _narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    return aten.slice.Tensor(x, dim, start % max(1, x.shape[dim]) if start < 0 else start, start + length)


def _unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [x.select(dim, i) for i in range(x.shape[dim])]


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    dim %= tensors[0].ndim + 1
    return torch.cat([tensor.unsqueeze(dim) for tensor in tensors], dim)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Constants that pick along neighbouring dimensions, which are joined to one; or rows of a table."""
    places = [i for i, index in enumerate(indices) if index is not None]
    given: list[Tensor] = [index for index in indices if index is not None]
    if len(given) == 1 and given[0].dtype == torch.bool:
        mask = given[0]
        first = places[0]
        flat = x.flatten(first, first + mask.ndim - 1) if mask.ndim > 1 else x
        return torch.index_select(flat, first, mask.flatten().nonzero().flatten())
    given = [index.nonzero().flatten() if index.dtype == torch.bool else index for index in given]
    first, shape = places[0], torch.broadcast_shapes(*(index.shape for index in given))
    sizes = x.shape[first : first + len(given)]
    joined = _joined(given, sizes)
    flat = x.flatten(first, first + len(given) - 1) if len(given) > 1 else x
    found = torch.index_select(flat, first, joined.flatten())
    return found.reshape(*x.shape[:first], *shape, *x.shape[first + len(given) :])


def _looked_up(table: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Rows of a constant by a number of the input."""
    (index,) = (index for index in indices if index is not None)
    rows = torch.embedding(table.reshape(len(table), -1), index)
    return rows.reshape(*index.shape, *table.shape[1:])


def _index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """A mask chooses; constants along one dimension are put in by position."""
    places = [i for i, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if given[0].dtype == torch.bool and values.numel() == 1:
        mask = given[0].reshape(*[1] * places[0], *given[0].shape, *[1] * (x.ndim - places[0] - given[0].ndim))
        return torch.where(mask, values, x)
    given = [index.nonzero().flatten() if index.dtype == torch.bool else index for index in given]
    dim, count = places[0], len(given)
    flat = x.flatten(dim, dim + count - 1) if count > 1 else x
    chosen = _joined(given, x.shape[dim : dim + count]).flatten()
    put = values.expand(*x.shape[:dim], *_joined(given, x.shape[dim : dim + count]).shape, *x.shape[dim + count :])
    put = put.flatten(dim, dim + put.ndim - flat.ndim)
    order = torch.arange(flat.shape[dim])
    order[chosen] = flat.shape[dim] + torch.arange(len(chosen))
    return torch.index_select(torch.cat([flat, put], dim), dim, order).reshape(x.shape)


def _joined(indices: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Places in several dimensions as places in the one that they are flattened to."""
    joined = torch.zeros(torch.broadcast_shapes(*(index.shape for index in indices)), dtype=torch.int64)
    for index, size in zip(indices, sizes, strict=True):
        joined = joined * size + torch.where(index < 0, index + size, index)
    return joined


def _scattered(x: Tensor, part: Tensor, dim: int, positions: list[int]) -> Tensor:
    n = x.shape[dim]
    order = torch.arange(n)
    order[positions] = n + torch.arange(len(positions))
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
        if count != 1:
            x = (
                torch.cat([x] * count, dim)
                if x.shape[dim] != 1
                else x.expand(*x.shape[:dim], count, *x.shape[dim + 1 :])
            )
    return x


def _repeat_interleave(x: Tensor, repeats: int, dim: int | None = None, **kwargs: Any) -> Tensor:
    x, dim = (x.flatten(), 0) if dim is None else (x, dim % x.ndim)
    wide = x.unsqueeze(dim + 1).expand(*x.shape[: dim + 1], repeats, *x.shape[dim + 1 :])
    return wide.flatten(dim, dim + 1)


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


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Constants before and behind, from the last dimension; a negative width cuts off. Other modes pick places."""
    if mode != "constant":
        return _padded_by_place(x, pad, mode)
    for i in range(0, len(pad), 2):
        dim = x.ndim - 1 - i // 2
        before, behind = pad[i], pad[i + 1]
        x = aten.slice.Tensor(x, dim, max(0, -before), x.shape[dim] - max(0, -behind))
        edges = [x.new_full((*x.shape[:dim], max(0, w), *x.shape[dim + 1 :]), value or 0.0) for w in (before, behind)]
        parts = [part for part in (edges[0], x, edges[1]) if part.shape[dim]]
        x = torch.cat(parts, dim) if len(parts) > 1 else x
    return x


def _padded_by_place(x: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    """Values of its own beyond the ends: the last one, the next ones backwards, or those of the other end."""
    for i in range(0, len(pad), 2):
        dim = x.ndim - 1 - i // 2
        n = x.shape[dim]
        places = torch.arange(-pad[i], n + pad[i + 1])
        if mode == "replicate":
            places = places.clamp(0, n - 1)
        elif mode == "reflect":
            places = (n - 1) - ((places.abs() - (n - 1)).abs())
        else:
            places = places % n
        x = torch.index_select(x, dim, places)
    return x


def _product_with_vector(a: Tensor, b: Tensor) -> Tensor:
    """A vector is a matrix of one row or column."""
    if b.ndim == 1:
        return (a @ b.unsqueeze(1)).squeeze(-1)
    return (a.unsqueeze(0) @ b).squeeze(-2)


def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    return torch.where(mask, value, x)


def _tri(lower: bool) -> Callable[..., Tensor]:
    def cut(x: Tensor, diagonal: int = 0) -> Tensor:
        ones = torch.ones(x.shape[-2:], dtype=torch.bool)
        kept = ones.tril(diagonal) if lower else ones.triu(diagonal)
        return torch.where(kept, x, torch.zeros((), dtype=x.dtype))

    return cut


def _one_hot(x: Tensor, classes: int = -1) -> Tensor:
    """Rows of the identity, so that a class which is not there is an index beyond a table."""
    return torch.embedding(torch.eye(classes, dtype=torch.int64), x)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    first, second = _chunk(x, 2, dim)
    return first * torch.sigmoid(second)


def _group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Tensor:
    rows = x.reshape(x.shape[0], groups, prod(x.shape[1:]) // groups)
    y = F.layer_norm(rows, rows.shape[2:], None, None, eps).reshape(x.shape)
    shape = (-1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    of_input: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> Tensor:
    """Each channel of each row by itself, or by statistics that are kept."""
    if not of_input:
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
    return _group_norm(x, x.shape[1], weight, bias, eps)


def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Over several dimensions: over one that they are joined to."""
    flat = x.flatten(x.ndim - len(shape))
    held = None if weight is None else weight.flatten()
    return F.rms_norm(flat, flat.shape[-1:], held, eps).reshape(x.shape)


def _addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + (a * b if value == 1 else a * b * value)


def _addcdiv(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + (a / b if value == 1 else a / b * value)


def _addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = a @ b
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (x if beta == 1 else x * beta)


def _add_scaled(x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    return torch.add(x, y * alpha)


def _subtract_scaled(x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    return torch.sub(x, y * alpha)


def _std(x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    return torch.sqrt(aten.var.correction(x, dim, correction=correction, keepdim=keepdim))


def _logsumexp(x: Tensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    dims = list(dim)
    most = x.amax(dims, keepdim=True)
    most = torch.where(most.abs() == torch.inf, 0.0, most)
    y = torch.log(torch.sum(torch.exp(x - most), dims, keepdim=True)) + most
    return y if keepdim else y.squeeze(tuple(dims))


def _nan_to_num(
    x: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    if not x.is_floating_point():
        return x.clone()
    most = torch.finfo(x.dtype).max
    high, low = most if posinf is None else posinf, -most if neginf is None else neginf
    x = torch.where(torch.isnan(x), nan or 0.0, x)
    return torch.where(x == torch.inf, high, torch.where(x == -torch.inf, low, x))


def _threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    return torch.where(x <= threshold, value, x)


def _hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return torch.where((x >= -lambd) & (x <= lambd), 0.0, x)


def _softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return torch.where(x > lambd, x - lambd, torch.where(x < -lambd, x + lambd, x * 0.0))


def _softsign(x: Tensor) -> Tensor:
    return x / (torch.abs(x) + 1)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    """One slope, or one for each channel, which is the second dimension."""
    shape = weight.shape if weight.numel() == 1 or x.ndim < 2 else (-1, *[1] * (x.ndim - 2))
    return aten._prelu_kernel.default(x, weight.reshape(shape) if weight.numel() > 1 else weight.reshape(()).expand(1))


def _var_mean(x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    dims = list(range(x.ndim)) if dim is None else dim
    return aten.var.correction(x, dims, correction=correction, keepdim=keepdim), x.mean(dims, keepdim)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q·kᵀ·scale + mask)·v, the scale taken half and half as PyTorch does."""
    factor = (q.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    scores = (q * factor) @ (k * factor).transpose(-2, -1)
    if causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    if mask is not None:
        mask = torch.where(mask, 0.0, -torch.inf) if mask.dtype == torch.bool else mask
        scores = scores + mask
    return F.dropout(torch.softmax(scores, -1), dropout, dropout > 0) @ v


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear whose weight depends on the input."""
    product = x @ weight.transpose(-2, -1)
    return product if bias is None else product + bias


def _square(x: Tensor) -> Tensor:
    return x * x


def _bilinear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Σ a_i·w_kij·b_j: the products a·w_k, then with b."""
    out, first, second = weight.shape
    left = (a @ weight.permute(1, 0, 2).reshape(first, out * second)).reshape(*a.shape[:-1], out, second)
    y = (left @ b.unsqueeze(-1)).squeeze(-1)
    return y if bias is None else y + bias


def _logical_xor(a: Tensor, b: Tensor) -> Tensor:
    return torch.ne(a, b)


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(a * a + b * b)


def _lerp(a: Tensor, b: Tensor, weight: Any) -> Tensor:
    return a + (b - a) * weight


DECOMPOSED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("split.Tensor", "split.sizes", "split.default", "split_with_sizes.default"), _split),
    "unsafe_split.Tensor": _split,
    "chunk.default": _chunk,
    **dict.fromkeys(("tensor_split.sections", "tensor_split.indices"), _tensor_split),
    "narrow.default": _narrow,
    "unbind.int": _unbind,
    "stack.default": _stack,
    "index.Tensor": _index,
    **dict.fromkeys(("index_put.default", "_unsafe_index_put.default"), _index_put),
    "slice_scatter.default": _slice_scatter,
    "select_scatter.default": _select_scatter,
    **dict.fromkeys(("repeat.default", "tile.default"), _repeat),
    "repeat_interleave.self_int": _repeat_interleave,
    "roll.default": _roll,
    "flip.default": _flip,
    **dict.fromkeys(("pad.default", "constant_pad_nd.default"), _pad),
    **dict.fromkeys(("masked_fill.Scalar", "masked_fill.Tensor"), _masked_fill),
    "tril.default": _tri(True),
    "triu.default": _tri(False),
    "one_hot.default": _one_hot,
    "glu.default": _glu,
    "group_norm.default": _group_norm,
    "instance_norm.default": _instance_norm,
    "addcmul.default": _addcmul,
    "addcdiv.default": _addcdiv,
    **dict.fromkeys(("baddbmm.default", "addmv.default"), _addmm),
    "std.correction": _std,
    "var_mean.correction": _var_mean,
    "logsumexp.default": _logsumexp,
    "nan_to_num.default": _nan_to_num,
    "threshold.default": _threshold,
    "hardshrink.default": _hardshrink,
    "softshrink.default": _softshrink,
    "softsign.default": _softsign,
    "prelu.default": _prelu,
    "scaled_dot_product_attention.default": _attention,
    "square.default": _square,
    "bilinear.default": _bilinear,
    **dict.fromkeys(("logical_xor.default", "bitwise_xor.Tensor", "__xor__.Tensor"), _logical_xor),
    "hypot.default": _hypot,
    "log2.default": lambda x: torch.log(x) / log(2.0),
    "log10.default": lambda x: torch.log(x) / log(10.0),
    "exp2.default": lambda x: torch.pow(2.0, x),
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


def _several(args: Sequence[Any], given: Mapping[str, Any], tracked: Tracked) -> bool:
    return len(args[1]) > 1


SOMETIMES: dict[str, tuple[Callable[[Sequence[Any], Mapping[str, Any], Tracked], bool], Callable[..., Any]]] = {
    "add.Tensor": (_has_factor, _add_scaled),
    "sub.Tensor": (_has_factor, _subtract_scaled),
    "rsub.Tensor": (_has_factor, lambda x, y, alpha=1: torch.sub(y, x * alpha)),
    "rsub.Scalar": (_has_factor, lambda x, y, alpha=1: torch.sub(y, x * alpha)),
    "linear.default": (_weight_depends, _linear),
    "addmm.default": (_is_no_linear, _addmm),
    "rms_norm.default": (_several, _rms_norm),
    **dict.fromkeys(("matmul.default", "mv.default"), (_has_vector, _product_with_vector)),
    "index.Tensor": (_index_depends, _looked_up),
}
"""The same where a condition on the arguments holds."""
