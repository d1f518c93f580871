"""What ATen calls become: many spellings come down to the few operators of the table.

``VIEWS`` share memory with their input, ``NORMAL`` are rewritten, ``LEAVES`` are taken as they are. A call that stands
in none of them is decomposed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from export.operators import OPERATORS

from .aliases import Call, View

INACTIVE = {
    *("dropout.default", "feature_dropout.default", "alpha_dropout.default", "feature_alpha_dropout.default"),
    *("clone.default", "contiguous.default", "detach.default", "alias.default", "lift_fresh.default", "lift.default"),
    *("positive.default", "resolve_neg.default", "resolve_conj.default", "requires_grad_.default"),
}
"""They give their input back; a dropout does in evaluation mode."""
SHAPE_ONLY = {
    f"{name}.default"
    for name in (
        *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
        *("_shape_as_tensor", "numel"),
    )
} | {"sym_size.int", "sym_size.default", "size.int", "new_empty_strided.default", "sym_numel.default", "dim.default"}
"""They take a tensor and depend on its shape and type alone."""


def _sized(before: Tensor, after: Tensor, *args: Any, **kwargs: Any) -> View | None:
    if before.shape == after.shape:
        return None
    return View("reshape", "default", {"shape": tuple(after.shape)}, tuple(before.shape), tuple(after.shape))


def _permuted(before: Tensor, after: Tensor, dims: Sequence[int]) -> View | None:
    dims = tuple(dim % before.ndim for dim in dims)
    if dims == tuple(range(before.ndim)):
        return None
    return View("permute", "default", {"dims": dims}, tuple(before.shape), tuple(after.shape))


def _swapped(before: Tensor, after: Tensor, first: int = 0, second: int = 1) -> View | None:
    dims = list(range(before.ndim))
    if before.ndim > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return _permuted(before, after, dims)


def _reversed(before: Tensor, after: Tensor) -> View | None:
    return _permuted(before, after, list(range(before.ndim))[::-1])


def _selected(before: Tensor, after: Tensor, dim: int, index: int) -> View:
    dim %= before.ndim
    options = {"dim": dim, "index": index % before.shape[dim]}
    return View("select", "int", options, tuple(before.shape), tuple(after.shape))


def _sliced(
    before: Tensor, after: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> View | None:
    dim %= before.ndim
    if before.shape == after.shape:
        return None
    first, last, step = slice(start, end, step).indices(before.shape[dim])
    options = {"dim": dim, "start": first, "end": max(first, last), "step": step}
    return View("slice", "Tensor", options, tuple(before.shape), tuple(after.shape))


def _expanded(before: Tensor, after: Tensor, *args: Any, **kwargs: Any) -> View | None:
    if before.shape == after.shape:
        return None
    return View("expand", "default", {"size": tuple(after.shape)}, tuple(before.shape), tuple(after.shape))


VIEWS: dict[str, Callable[..., View | None]] = {
    **dict.fromkeys(
        (
            *("view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints", "unflatten.int"),
            *("squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default", "view_as.default"),
            *("reshape_as.default", "ravel.default", "_reshape_alias.default", "squeeze_.dim", "unsqueeze_.default"),
            *("atleast_1d.default", "atleast_2d.default", "atleast_3d.default"),
        ),
        _sized,
    ),
    "permute.default": _permuted,
    "transpose.int": _swapped,
    "swapaxes.default": _swapped,
    "swapdims.default": _swapped,
    **dict.fromkeys(("t.default", "numpy_T.default", "matrix_H.default"), _reversed),
    "mT.default": lambda before, after: _swapped(before, after, -2, -1),
    "select.int": _selected,
    "slice.Tensor": _sliced,
    **dict.fromkeys(("expand.default", "expand_as.default", "broadcast_to.default"), _expanded),
}
"""By the operator: the view that gives ``after`` of ``before``; None where it gives its input itself."""

Rewritten = list[tuple[Call | None, Tensor]]


class Given(dict[str, Any]):
    """The arguments of a call by name, the overload that was called, and which tensors are constants."""

    def __init__(self, arguments: Mapping[str, Any], overload: str, is_constant: Callable[[Tensor], bool]):
        super().__init__(arguments)
        self.overload, self.is_constant = overload, is_constant

    def but(self, **other: Any) -> Given:
        return Given({**self, **other}, self.overload, self.is_constant)


def _to(op: str, overload: str = "default", **options: Any) -> Callable[[Given, Any], Rewritten]:
    """The same arguments to another operator, with some that are fixed."""

    def rewrite(given: Given, out: Any) -> Rewritten:
        names = [a.name for a in getattr(getattr(torch.ops.aten, op), overload)._schema.arguments]
        kept = {name: value for name, value in {**given, **options}.items() if name in names}
        return [(Call(op, overload, kept), out)]

    return rewrite


def _arithmetic(op: str) -> Callable[[Given, Any], Rewritten]:
    """add, sub, rsub, mul and div of values and constants; a factor ``alpha`` is a product of its own."""

    def rewrite(given: Given, out: Any) -> Rewritten:
        left, right = given["self"], given["other"]
        if op == "rsub":
            left, right = right, left
        name = "sub" if op == "rsub" else op
        if out.dtype == torch.bool:
            of_truths = {"mul": "logical_and", "add": "logical_or"}[name]
            return [(Call(of_truths, "default", {"self": left, "other": right}), out)]
        return [(Call(name, "Tensor", {"self": _operand(left, out), "other": _operand(right, out)}), out)]

    return rewrite


def _operand(value: Any, out: Tensor) -> Any:
    """Constants of other types as the result's: integers are exact, numbers are rounded once."""
    if isinstance(value, Tensor):
        return value
    if out.is_floating_point():
        return float(value)
    return value


def _reduced(op: str, overload: str) -> Callable[[Given, Any], Rewritten]:
    """Sums and the like: every dimension named, counted from the front."""

    def rewrite(given: Given, out: Any) -> Rewritten:
        x = given["self"]
        dims = given.get("dim")
        dims = [dims] if isinstance(dims, int) else dims
        named = tuple(sorted(dim % max(1, x.ndim) for dim in dims)) if dims else tuple(range(x.ndim))
        return _to(op, overload)(given.but(dim=named, keepdim=given.get("keepdim", False), dtype=None), out)

    return rewrite


def _extremum(op: str) -> Callable[[Given, Any], Rewritten]:
    """max(dim) and min(dim): the values, and where they stand."""

    def rewrite(given: Given, out: Any) -> Rewritten:
        x, dim, keepdim = given["self"], given["dim"] % given["self"].ndim, given["keepdim"]
        values = Call(f"a{op}", "default", {"self": x, "dim": (dim,), "keepdim": keepdim})
        place = {"self": x, "dim": dim, "keepdim": keepdim, "count": x.shape[dim]}
        return [(values, out[0]), (Call(f"arg{op}", "default", place), out[1])]

    return rewrite


def _place(op: str) -> Callable[[Given, Any], Rewritten]:
    """Where the largest or the smallest value stands, of how many."""

    def rewrite(given: Given, out: Any) -> Rewritten:
        ((call, _),) = _along(op, "default")(given, out)
        assert call is not None
        x, dim = given["self"], call.arguments["dim"]
        call.arguments["count"] = x.numel() if dim is None else x.shape[dim]
        return [(call, out)]

    return rewrite


def _along(op: str, overload: str, name: str = "self") -> Callable[[Given, Any], Rewritten]:
    """An operator along one dimension, counted from the front."""

    def rewrite(given: Given, out: Any) -> Rewritten:
        rank = given[name].ndim
        dim = given["dim"]
        return _to(op, overload)(given.but(dim=dim if dim is None else dim % rank, dtype=None), out)

    return rewrite


def _addmm(given: Given, out: Any) -> Rewritten:
    """bias + x·matrix, of constants."""
    arguments = {"input": given["mat1"], "weight": given["mat2"].t(), "bias": given["self"]}
    return [(Call("linear", "default", arguments), out)]


def _matmul(given: Given, out: Any) -> Rewritten:
    """A product with a constant matrix is a linear; any other stays a product of two values."""
    left = given["self"]
    right: Tensor = next(given[name] for name in ("mat2", "other", "vec") if name in given)
    if given.is_constant(right) and right.ndim == 2 and out.is_floating_point():
        return [(Call("linear", "default", {"input": left, "weight": right.t(), "bias": None}), out)]
    return [(Call("matmul", "default", {"self": left, "other": right}), out)]


def _cast(given: Given, out: Any) -> Rewritten:
    """A change of type; to the type that is there, nothing."""
    if out.dtype == given["self"].dtype:
        return [(None, out)]
    return [(Call("_to_copy", "default", {"self": given["self"], "dtype": out.dtype}), out)]


def _power(given: Given, out: Any) -> Rewritten:
    base, exponent = given["self"], given["exponent"]
    if isinstance(exponent, Tensor) or not isinstance(base, Tensor):
        return [(Call("pow", given.overload, given), out)]
    known = {2: ("mul", "Tensor", {"other": base}), 0.5: ("sqrt", "default", {}), 1: None}
    known |= {-1: ("reciprocal", "default", {}), -0.5: ("rsqrt", "default", {})}
    if exponent in known and (out.is_floating_point() or exponent in (1, 2)):
        spelt = known[exponent]
        return [(spelt and Call(spelt[0], spelt[1], {"self": base, **spelt[2]}), out)]
    return [(Call("pow", "Tensor_Scalar", {"self": base, "exponent": _typed(exponent, out)}), out)]


def _clamped(given: Given, out: Any) -> Rewritten:
    low, high = (given.get(name, given.get(f"{name}_val")) for name in ("min", "max"))
    low, high = (None if bound is None else _typed(bound, out) for bound in (low, high))
    return [(Call("clamp", "default", {"self": given["self"], "min": low, "max": high}), out)]


def _typed(number: float, out: Tensor) -> float:
    """A number of the kind that the result is."""
    return float(number) if out.is_floating_point() else int(number)


def _where(given: Given, out: Any) -> Rewritten:
    parts = [_constant(given[name], out) for name in ("self", "other")]
    arguments = {"condition": given["condition"], "self": parts[0], "other": parts[1]}
    return [(Call("where", "self", arguments), out)]


def _constant(value: Any, out: Tensor) -> Any:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=out.dtype)


def _batch_norm(given: Given, out: Any) -> Rewritten:
    names = ("input", "weight", "bias", "running_mean", "running_var", "training", "eps")
    kept = {name: given[name] for name in names}
    return [(Call("batch_norm", "default", {**kept, "momentum": 0.0, "cudnn_enabled": False}), out)]


def _rms_norm(given: Given, out: Any) -> Rewritten:
    """float32's own epsilon where none is given, in whatever precision it is computed later."""
    eps = torch.finfo(torch.float32).eps if given["eps"] is None else given["eps"]
    return [(Call("rms_norm", "default", {**given, "eps": eps}), out)]


def _layer_norm(given: Given, out: Any) -> Rewritten:
    return [(Call("layer_norm", "default", {**given, "cudnn_enable": False}), out)]


def _cat(given: Given, out: Any) -> Rewritten:
    """Tensors of one element and no other dimension are nothing to PyTorch, as an empty list is."""
    parts = [part for part in given["tensors"] if part.shape != (0,)]
    return [(Call("cat", "default", {"tensors": parts, "dim": given["dim"] % out.ndim}), out)]


def _variance(given: Given, out: Any) -> Rewritten:
    (call, _), *_ = _reduced("var", "correction")(given, out)
    assert call is not None
    x = given["self"]
    call.arguments["count"] = prod(x.shape[dim] for dim in call.arguments["dim"])
    return [(call, out)]


def _sorted(op: str, overload: str = "default") -> Callable[[Given, Any], Rewritten]:
    """The values alone: where equal ones stand, each library chooses for itself."""

    def rewrite(given: Given, out: Any) -> Rewritten:
        x = given["self"]
        dim = given["dim"] % x.ndim
        k = given.get("k", x.shape[dim])
        kept = {"self": x, "dim": dim, "k": k, "descending": given.get("descending", given.get("largest", True))}
        kept["count"] = x.shape[dim]
        if op == "topk":
            kept |= {"largest": given["largest"], "sorted": True}
        return [(Call(op, overload, kept), out[0]), (Call("refused", "places", {}), out[1])]

    return rewrite


def _embedding(given: Given, out: Any) -> Rewritten:
    return _to("embedding", padding_idx=-1, scale_grad_by_freq=False, sparse=False)(given, out)


_ARITHMETIC = ("add", "sub", "mul", "div", "rsub")
NORMAL: dict[str, Callable[[Given, Any], Rewritten]] = {
    **{f"{op}.{kind}": _arithmetic(op) for op in _ARITHMETIC for kind in ("Tensor", "Scalar")},
    **dict.fromkeys(("subtract.Tensor", "subtract.Scalar"), _arithmetic("sub")),
    **dict.fromkeys(("multiply.Tensor", "multiply.Scalar"), _arithmetic("mul")),
    **dict.fromkeys(("divide.Tensor", "true_divide.Tensor", "divide.Scalar", "true_divide.Scalar"), _arithmetic("div")),
    **dict.fromkeys(("mm.default", "bmm.default", "matmul.default", "mv.default"), _matmul),
    **dict.fromkeys(("to.dtype", "_to_copy.default", "type_as.default", "to.device", "to.dtype_layout"), _cast),
    **{f"pow.{kind}": _power for kind in ("Tensor_Scalar", "Tensor_Tensor", "Scalar")},
    **dict.fromkeys(
        ("clamp.default", "clip.default", "clamp_min.default", "clamp_max.default", "hardtanh.default"), _clamped
    ),
    **{f"where.{kind}": _where for kind in ("self", "ScalarSelf", "ScalarOther", "Scalar")},
    **dict.fromkeys(("sum.default", "sum.dim_IntList"), _reduced("sum", "dim_IntList")),
    **dict.fromkeys(("mean.default", "mean.dim"), _reduced("mean", "dim")),
    **dict.fromkeys(("amax.default", "max.default"), _reduced("amax", "default")),
    **dict.fromkeys(("amin.default", "min.default"), _reduced("amin", "default")),
    **dict.fromkeys(("any.dim", "any.default", "any.dims"), _reduced("any", "dims")),
    **dict.fromkeys(("all.dim", "all.default", "all.dims"), _reduced("all", "dims")),
    "linalg_vector_norm.default": _reduced("linalg_vector_norm", "default"),
    "var.correction": _variance,
    "cat.default": _cat,
    "sort.default": _sorted("sort"),
    "topk.default": _sorted("topk"),
    "max.dim": _extremum("max"),
    "min.dim": _extremum("min"),
    "argmax.default": _place("argmax"),
    "argmin.default": _place("argmin"),
    "max.other": _to("maximum"),
    "min.other": _to("minimum"),
    "softmax.int": _along("softmax", "int"),
    "log_softmax.int": _along("log_softmax", "int"),
    "cumsum.default": _along("cumsum", "default"),
    "gather.default": _along("gather", "default"),
    "index_select.default": _along("index_select", "default"),
    "addmm.default": _addmm,
    "batch_norm.default": _batch_norm,
    "rms_norm.default": _rms_norm,
    "layer_norm.default": _layer_norm,
    "embedding.default": _embedding,
}
"""By the operator: calls to record, each with the tensor that it gives; None for one that gives its input."""
LEAVES = {f"{op}.{overload}" for op, row in OPERATORS.items() for overload in row.overloads}
"""Operators of the table, as they are called."""
