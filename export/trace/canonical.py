"""What ATen calls become: many spellings come down to the few operators of the table.

``VIEWS`` share memory with their input, ``NORMAL`` are rewritten, ``LEAVES`` are taken as they are. A call that stands
in none of them is decomposed. Operands of several element types are brought to one first: PyTorch does that by itself,
and an ONNX operator does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from export.evaluation import schema
from export.operators import OPERATORS, activations, arithmetic, logic

from .aliases import Call, View

INACTIVE = {
    *("dropout.default", "feature_dropout.default", "alpha_dropout.default", "feature_alpha_dropout.default"),
    *("clone.default", "contiguous.default", "detach.default", "alias.default", "lift_fresh.default", "lift.default"),
    *("positive.default", "resolve_neg.default", "resolve_conj.default"),
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


ViewOf = tuple[str, str, dict[str, Any]]
"""The operator of a view, its overload, and its options."""


def view_of(name: str, before: Tensor, after: Tensor, *args: Any, **options: Any) -> View | None:
    """The view that gives ``after`` of ``before``; None where it gives its input itself."""
    found = VIEWS[name](before, after, *args, **options)
    return None if found is None else View(*found, tuple(before.shape), tuple(after.shape))


def _sized(op: str, option: str, before: Tensor, after: Tensor, *args: Any, **options: Any) -> ViewOf | None:
    return None if before.shape == after.shape else (op, "default", {option: tuple(after.shape)})


def _permuted(before: Tensor, after: Tensor, dims: Sequence[int]) -> ViewOf | None:
    dims = tuple(dim % before.ndim for dim in dims)
    return None if dims == tuple(range(before.ndim)) else ("permute", "default", {"dims": dims})


def _swapped(before: Tensor, after: Tensor, first: int = 0, second: int = 1) -> ViewOf | None:
    dims = list(range(before.ndim))
    if before.ndim > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return _permuted(before, after, dims)


def _reversed(before: Tensor, after: Tensor) -> ViewOf | None:
    return _permuted(before, after, range(before.ndim)[::-1])


def _selected(before: Tensor, after: Tensor, dim: int, index: int) -> ViewOf:
    return "select", "int", {"dim": dim % before.ndim, "index": index % before.shape[dim]}


def _sliced(
    before: Tensor, after: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> ViewOf | None:
    if before.shape == after.shape:
        return None
    first, last, step = slice(start, end, step).indices(before.shape[dim])
    return "slice", "Tensor", {"dim": dim % before.ndim, "start": first, "end": max(first, last), "step": step}


VIEWS: dict[str, Callable[..., ViewOf | None]] = {
    **dict.fromkeys(
        (
            *("view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints", "unflatten.int"),
            *("squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default", "view_as.default"),
            *("reshape_as.default", "ravel.default", "_reshape_alias.default"),
            *("atleast_1d.default", "atleast_2d.default", "atleast_3d.default"),
        ),
        partial(_sized, "reshape", "shape"),
    ),
    "permute.default": _permuted,
    **dict.fromkeys(("transpose.int", "swapaxes.default", "swapdims.default"), _swapped),
    **dict.fromkeys(("t.default", "numpy_T.default", "matrix_H.default"), _reversed),
    "mT.default": partial(_swapped, first=-2, second=-1),
    "select.int": _selected,
    "slice.Tensor": _sliced,
    **dict.fromkeys(("expand.default", "expand_as.default", "broadcast_to.default"), partial(_sized, "expand", "size")),
}
"""By the operator: the view that it is, of the tensors before and after it and its other arguments."""

Given = Mapping[str, Any]
"""The arguments of a call by name."""
Rewritten = Call | tuple[Call, Call] | None
"""What to record in place of a call, one for each of its results; None for one that gives its input."""


def refused(kind: str) -> Call:
    """What stands for a result that no file has."""
    return Call("refused", kind, {})


def _to(op: str, overload: str, given: Given, out: Any = None, **options: Any) -> Call:
    """The same arguments to another operator, with some that are fixed."""
    names = [name for name, *_ in schema(op, overload)[1]]
    return Call(op, overload, {name: value for name, value in {**given, **options}.items() if name in names})


def _arithmetic(op: str, given: Given, out: Tensor) -> Call:
    """add, sub, rsub, mul and div of values and constants; a factor ``alpha`` is a product of its own."""
    left, right = given["self"], given["other"]
    if op == "rsub":
        op, left, right = "sub", right, left
    if out.dtype == torch.bool:
        return Call({"mul": "logical_and", "add": "logical_or"}[op], "default", {"self": left, "other": right})
    return Call(op, "Tensor", {"self": _operand(left, out), "other": _operand(right, out)})


def _operand(value: Any, out: Tensor) -> Any:
    """Numbers as the result's: integers are exact, others are rounded once."""
    return value if isinstance(value, Tensor) or not out.is_floating_point() else float(value)


def _reduced(op: str, overload: str, given: Given, out: Any) -> Call:
    """Sums and the like: every dimension named, counted from the front."""
    rank, dims = given["self"].ndim, given.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    named = tuple(sorted(dim % max(1, rank) for dim in dims)) if dims else tuple(range(rank))
    return _to(op, overload, given, dim=named, keepdim=given.get("keepdim", False), dtype=None)


def _variance(given: Given, out: Any) -> Call:
    call = _reduced("var", "correction", given, out)
    call.arguments["count"] = prod(given["self"].shape[dim] for dim in call.arguments["dim"])
    return call


def _along(op: str, overload: str, given: Given, out: Any) -> Call:
    """An operator along one dimension, counted from the front."""
    dim = given["dim"]
    return _to(op, overload, given, dim=dim if dim is None else dim % given["self"].ndim, dtype=None)


def _place(op: str, given: Given, out: Any) -> Call:
    """Where the largest or the smallest value stands, of how many."""
    call, x = _along(op, "default", given, out), given["self"]
    dim = call.arguments["dim"]
    call.arguments["count"] = x.numel() if dim is None else x.shape[dim]
    return call


def _extremum(op: str, given: Given, out: Any) -> tuple[Call, Call]:
    """max(dim) and min(dim): the values, and where they stand."""
    place = _place(f"arg{op}", given, out)
    dims = {"dim": (place.arguments["dim"],), "keepdim": given["keepdim"]}
    return Call(f"a{op}", "default", {"self": given["self"], **dims}), place


def _sorted(op: str, given: Given, out: Any) -> tuple[Call, Call]:
    """The values alone: where equal ones stand, each library chooses for itself."""
    x = given["self"]
    dim = given["dim"] % x.ndim
    count = x.shape[dim]
    descending = given.get("descending", given.get("largest", True))
    kept = {"self": x, "dim": dim, "k": given.get("k", count), "descending": descending, "count": count}
    if op == "topk":
        kept |= {"largest": given["largest"], "sorted": True}
    return Call(op, "default", kept), refused("places")


def _addmm(given: Given, out: Any) -> Call:
    """bias + x·matrix, of constants."""
    return Call("linear", "default", {"input": given["mat1"], "weight": given["mat2"].t(), "bias": given["self"]})


def _matmul(given: Given, out: Tensor) -> Call:
    return Call("matmul", "default", dict(zip(("self", "other"), given.values(), strict=True)))


def _cast(given: Given, out: Tensor) -> Call | None:
    """A change of type; to the type that is there, nothing."""
    x = given["self"]
    return None if out.dtype == x.dtype else Call("_to_copy", "default", {"self": x, "dtype": out.dtype})


def _power(given: Given, out: Tensor) -> Call | None:
    base, exponent = given["self"], given["exponent"]
    if isinstance(exponent, Tensor) or not isinstance(base, Tensor):
        return Call("pow", "Tensor_Tensor" if isinstance(base, Tensor) else "Scalar", dict(given))
    if exponent == 1:
        return None
    if exponent == 2:
        return Call("mul", "Tensor", {"self": base, "other": base})
    if exponent in _POWERS and out.is_floating_point():
        return Call(_POWERS[exponent], "default", {"self": base})
    return Call("pow", "Tensor_Scalar", {"self": base, "exponent": _typed(exponent, out)})


_POWERS = {0.5: "sqrt", -1: "reciprocal", -0.5: "rsqrt"}


def _clamped(given: Given, out: Tensor) -> Call:
    low, high = (given.get(name, given.get(f"{name}_val")) for name in ("min", "max"))
    low, high = (None if bound is None else _typed(bound, out) for bound in (low, high))
    return Call("clamp", "default", {"self": given["self"], "min": low, "max": high})


def _typed(number: float, out: Tensor) -> float:
    """A number of the kind that the result is."""
    return float(number) if out.is_floating_point() else int(number)


def _where(given: Given, out: Tensor) -> Call:
    chosen = {name: given[name] for name in ("self", "other")}
    numbers = {name: torch.tensor(x, dtype=out.dtype) for name, x in chosen.items() if not isinstance(x, Tensor)}
    return Call("where", "self", {"condition": given["condition"], **chosen, **numbers})


def _rms_norm(given: Given, out: Any) -> Call:
    """float32's own epsilon where none is given, in whatever precision it is computed later."""
    eps = torch.finfo(torch.float32).eps if given["eps"] is None else given["eps"]
    return Call("rms_norm", "default", {**given, "eps": eps})


def _cat(given: Given, out: Tensor) -> Call:
    """Tensors of one element and no other dimension are nothing to PyTorch, as an empty list is."""
    parts = [part for part in given["tensors"] if part.shape != (0,)]
    return Call("cat", "default", {"tensors": parts, "dim": given["dim"] % out.ndim})


_ARITHMETIC = {op: op for op in ("add", "sub", "mul", "div", "rsub")}
_ARITHMETIC |= {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div"}
NORMAL: dict[str, Callable[[Given, Any], Rewritten]] = {
    **{f"{name}.{kind}": partial(_arithmetic, op) for name, op in _ARITHMETIC.items() for kind in ("Tensor", "Scalar")},
    **dict.fromkeys(("mm.default", "bmm.default", "matmul.default", "mv.default"), _matmul),
    **dict.fromkeys(("to.dtype", "_to_copy.default", "type_as.default", "to.device", "to.dtype_layout"), _cast),
    **{f"pow.{kind}": _power for kind in ("Tensor_Scalar", "Tensor_Tensor", "Scalar")},
    **dict.fromkeys(
        ("clamp.default", "clip.default", "clamp_min.default", "clamp_max.default", "hardtanh.default"), _clamped
    ),
    **{f"where.{kind}": _where for kind in ("self", "ScalarSelf", "ScalarOther", "Scalar")},
    **dict.fromkeys(("sum.default", "sum.dim_IntList"), partial(_reduced, "sum", "dim_IntList")),
    **dict.fromkeys(("mean.default", "mean.dim"), partial(_reduced, "mean", "dim")),
    **dict.fromkeys(("amax.default", "max.default"), partial(_reduced, "amax", "default")),
    **dict.fromkeys(("amin.default", "min.default"), partial(_reduced, "amin", "default")),
    **dict.fromkeys(("any.dim", "any.default", "any.dims"), partial(_reduced, "any", "dims")),
    **dict.fromkeys(("all.dim", "all.default", "all.dims"), partial(_reduced, "all", "dims")),
    "linalg_vector_norm.default": partial(_reduced, "linalg_vector_norm", "default"),
    "var.correction": _variance,
    "cat.default": _cat,
    "sort.default": partial(_sorted, "sort"),
    "topk.default": partial(_sorted, "topk"),
    "max.dim": partial(_extremum, "max"),
    "min.dim": partial(_extremum, "min"),
    "argmax.default": partial(_place, "argmax"),
    "argmin.default": partial(_place, "argmin"),
    "max.other": partial(_to, "maximum", "default"),
    "min.other": partial(_to, "minimum", "default"),
    "softmax.int": partial(_along, "softmax", "int"),
    "log_softmax.int": partial(_along, "log_softmax", "int"),
    "cumsum.default": partial(_along, "cumsum", "default"),
    "gather.default": partial(_along, "gather", "default"),
    "index_select.default": partial(_along, "index_select", "default"),
    "addmm.default": _addmm,
    "batch_norm.default": partial(_to, "batch_norm", "default", momentum=0.0, cudnn_enabled=False),
    "rms_norm.default": _rms_norm,
    "layer_norm.default": partial(_to, "layer_norm", "default", cudnn_enable=False),
    "embedding.default": partial(_to, "embedding", "default", padding_idx=-1, scale_grad_by_freq=False, sparse=False),
}
"""By the operator: from its arguments by name and its result to what is recorded."""
LEAVES = {f"{op}.{overload}" for op, row in OPERATORS.items() for overload in row.overloads}
"""Operators of the table, as they are called."""

_NUMBERS = {*activations.OPERATORS, *arithmetic.OPERATORS, "subtract", "rsub", "multiply", "divide", "true_divide"}
_NUMBERS |= {"max", "min", "mean", "where", "cat"}
"""Operands in the type of the result."""
_COMPARED = {"gt", "lt", "ge", "le", "eq", "ne"}
"""Both operands in the type that holds both."""
_TRUTHS = {name for name in logic.OPERATORS if name.startswith("logical_")} | {"any", "all"}
"""Numbers as true or false."""
_SUMMED = {"sum", "cumsum"}
"""Truths as whole numbers."""


def promoted(op: str, args: Sequence[Any], out: Any) -> list[Any] | None:
    """The arguments with every tensor operand in the type that PyTorch computes in; None where they are in it.

    ``out`` is the result. The first argument of ``where`` is a truth, and stays one.
    """
    if op == "cat":
        wanted = {part.dtype for part in args[0]} - {out.dtype}
        return [[part.to(out.dtype) for part in args[0]], *args[1:]] if wanted else None
    first = 1 if op == "where" else 0
    numbers = args[first : first + 2]
    if any(number.is_complex() for number in numbers if isinstance(number, Tensor)):  # refused by itself
        return None
    if op in _NUMBERS and isinstance(out, Tensor):
        wanted = out.dtype
    elif op in _COMPARED:
        wanted = torch.result_type(*numbers)
    elif op in _TRUTHS:
        wanted = torch.bool
    elif op in _SUMMED and not args[0].is_floating_point():
        wanted, numbers = torch.int64, args[:1]
    else:
        return None
    if all(number.dtype == wanted or _is_number(number, wanted) for number in numbers if isinstance(number, Tensor)):
        return None
    cast = [part.to(wanted) if isinstance(part, Tensor) else part for part in numbers]
    return [*args[:first], *cast, *args[first + len(cast) :]]


def _is_number(tensor: Tensor, wanted: torch.dtype) -> bool:
    """A constant of no dimension is a number to PyTorch, whatever its type."""
    return tensor.ndim == 0 and tensor.is_floating_point() and wanted.is_floating_point
