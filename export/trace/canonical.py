"""Canonical forms of ATen calls: many operators and overloads are rewritten to the few operators of the table.

``VIEWS`` share memory with their input, ``REWRITES`` become other calls, ``LEAVES`` are recorded as they are. A call in
none of the three is decomposed. Operands of several element types are cast to one first: PyTorch promotes types by
itself, and an ONNX operator does not.
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

IDENTITIES = {
    *("dropout.default", "feature_dropout.default", "alpha_dropout.default", "feature_alpha_dropout.default"),
    *("clone.default", "contiguous.default", "detach.default", "alias.default", "lift_fresh.default", "lift.default"),
    *("positive.default", "resolve_neg.default", "resolve_conj.default"),
}
"""Operators that return the values of their input; a dropout does in evaluation mode."""
SHAPE_ONLY = {
    f"{name}.default"
    for name in (
        *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
        *("_shape_as_tensor", "numel"),
    )
} | {"sym_size.int", "sym_size.default", "size.int", "new_empty_strided.default", "sym_numel.default", "dim.default"}
"""Operators on a tensor whose result depends on its shape and type alone."""
ViewOf = tuple[str, str, dict[str, Any]]
"""A view's operator, its overload, and its options."""


def view_of(name: str, before: Tensor, after: Tensor, *args: Any, **options: Any) -> View | None:
    """The view that makes ``after`` of ``before``; None where nothing changes."""
    view = VIEWS[name](before, after, *args, **options)
    return None if view is None else View(*view, tuple(before.shape), tuple(after.shape))


def _sized(op: str, option: str, before: Tensor, after: Tensor, *_args: Any, **_options: Any) -> ViewOf | None:
    return None if before.shape == after.shape else (op, "default", {option: tuple(after.shape)})


def _permuted(before: Tensor, _after: Tensor, dims: Sequence[int]) -> ViewOf | None:
    dims = tuple(dim % before.ndim for dim in dims)
    return None if dims == tuple(range(before.ndim)) else ("permute", "default", {"dims": dims})


def _swapped(before: Tensor, after: Tensor, first: int = 0, second: int = 1) -> ViewOf | None:
    dims = list(range(before.ndim))
    if before.ndim > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return _permuted(before, after, dims)


def _reversed(before: Tensor, after: Tensor) -> ViewOf | None:
    return _permuted(before, after, range(before.ndim)[::-1])


def _selected(before: Tensor, _after: Tensor, dim: int, index: int) -> ViewOf:
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
"""By operator: from the tensors before and after the view, and its other arguments, to its canonical form."""

Arguments = Mapping[str, Any]
"""The arguments of a call by name."""
Rewritten = Call | tuple[Call, Call] | None
"""What is recorded in place of a call, one for each of its results; None for one that returns its input."""


def refused(kind: str) -> Call:
    """The call that stands for a result that a file cannot give."""
    return Call("refused", kind, {})


def _to(op: str, overload: str, arguments: Arguments, _out: Any = None, **options: Any) -> Call:
    """A call of another operator with the same arguments, some of them replaced by ``options``."""
    names = [name for name, *_ in schema(op, overload)[1]]
    return Call(op, overload, {name: value for name, value in {**arguments, **options}.items() if name in names})


def _arithmetic(op: str, arguments: Arguments, out: Tensor) -> Call:
    """add, sub, rsub, mul and div of values and constants; a factor ``alpha`` is a product of its own."""
    left, right = arguments["self"], arguments["other"]
    if op == "rsub":
        op, left, right = "sub", right, left
    if out.dtype == torch.bool:
        return Call({"mul": "logical_and", "add": "logical_or"}[op], "default", {"self": left, "other": right})
    return Call(op, "Tensor", {"self": _operand(left, out), "other": _operand(right, out)})


def _operand(value: Any, out: Tensor) -> Any:
    """A number as a float where the result is one: integers are exact, others are rounded once."""
    return value if isinstance(value, Tensor) or not out.is_floating_point() else float(value)


def _reduced(op: str, overload: str, arguments: Arguments, _out: Any) -> Call:
    """A reduction, with all its dimensions listed and counted from the front."""
    rank, dims = arguments["self"].ndim, arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    named = tuple(sorted(dim % max(1, rank) for dim in dims)) if dims else tuple(range(rank))
    return _to(op, overload, arguments, dim=named, keepdim=arguments.get("keepdim", False), dtype=None)


def _variance(arguments: Arguments, out: Any) -> Call:
    call = _reduced("var", "correction", arguments, out)
    call.arguments["count"] = prod(arguments["self"].shape[dim] for dim in call.arguments["dim"])
    return call


def _along(op: str, overload: str, arguments: Arguments, _out: Any) -> Call:
    """An operator along one dimension, counted from the front."""
    dim = arguments["dim"]
    return _to(op, overload, arguments, dim=dim if dim is None else dim % arguments["self"].ndim, dtype=None)


def _arg_extremum(op: str, arguments: Arguments, out: Any) -> Call:
    """The position of a maximum or minimum, with the number of values that they choose from."""
    call, x = _along(op, "default", arguments, out), arguments["self"]
    dim = call.arguments["dim"]
    call.arguments["count"] = x.numel() if dim is None else x.shape[dim]
    return call


def _extremum(op: str, arguments: Arguments, out: Any) -> tuple[Call, Call]:
    """max(dim) and min(dim): the values, and their positions."""
    position = _arg_extremum(f"arg{op}", arguments, out)
    dims = {"dim": (position.arguments["dim"],), "keepdim": arguments["keepdim"]}
    return Call(f"a{op}", "default", {"self": arguments["self"], **dims}), position


def _sorted(op: str, arguments: Arguments, _out: Any) -> tuple[Call, Call]:
    """The sorted values alone: in which order equal ones come differs between libraries."""
    x = arguments["self"]
    dim = arguments["dim"] % x.ndim
    count = x.shape[dim]
    descending = arguments.get("descending", arguments.get("largest", True))
    kept = {"self": x, "dim": dim, "k": arguments.get("k", count), "descending": descending, "count": count}
    if op == "topk":
        kept |= {"largest": arguments["largest"], "sorted": True}
    return Call(op, "default", kept), refused("positions")


def _addmm(arguments: Arguments, _out: Any) -> Call:
    """A ``linear`` of constants: bias + x·matrix."""
    return Call(
        "linear", "default", {"input": arguments["mat1"], "weight": arguments["mat2"].t(), "bias": arguments["self"]}
    )


def _matmul(arguments: Arguments, _out: Tensor) -> Call:
    return Call("matmul", "default", dict(zip(("self", "other"), arguments.values(), strict=True)))


def _cast(arguments: Arguments, out: Tensor) -> Call | None:
    """A change of type; None where the type stays."""
    x = arguments["self"]
    return None if out.dtype == x.dtype else Call("_to_copy", "default", {"self": x, "dtype": out.dtype})


def _power(arguments: Arguments, out: Tensor) -> Call | None:
    base, exponent = arguments["self"], arguments["exponent"]
    if isinstance(exponent, Tensor) or not isinstance(base, Tensor):
        return Call("pow", "Tensor_Tensor" if isinstance(base, Tensor) else "Scalar", dict(arguments))
    if exponent == 1:
        return None
    if exponent == 2:
        return Call("mul", "Tensor", {"self": base, "other": base})
    if exponent in _POWERS and out.is_floating_point():
        return Call(_POWERS[exponent], "default", {"self": base})
    return Call("pow", "Tensor_Scalar", {"self": base, "exponent": _typed(exponent, out)})


_POWERS = {0.5: "sqrt", -1: "reciprocal", -0.5: "rsqrt"}


def _clamped(arguments: Arguments, out: Tensor) -> Call:
    bounds = (arguments.get(name, arguments.get(f"{name}_val")) for name in ("min", "max"))
    low, high = (None if bound is None else _typed(bound, out) for bound in bounds)
    return Call("clamp", "default", {"self": arguments["self"], "min": low, "max": high})


def _typed(number: float, out: Tensor) -> float:
    """A number of the result's kind, float or integer."""
    return float(number) if out.is_floating_point() else int(number)


def _where(arguments: Arguments, out: Tensor) -> Call:
    chosen = {name: arguments[name] for name in ("self", "other")}
    numbers = {name: torch.tensor(x, dtype=out.dtype) for name, x in chosen.items() if not isinstance(x, Tensor)}
    return Call("where", "self", {"condition": arguments["condition"], **chosen, **numbers})


def _rms_norm(arguments: Arguments, _out: Any) -> Call:
    """Where eps is left out, that of float32, whatever precision it is computed in later."""
    eps = torch.finfo(torch.float32).eps if arguments["eps"] is None else arguments["eps"]
    return Call("rms_norm", "default", {**arguments, "eps": eps})


def _cat(arguments: Arguments, out: Tensor) -> Call:
    """Tensors of shape (0,) are left out, as PyTorch does."""
    parts = [part for part in arguments["tensors"] if part.shape != (0,)]
    return Call("cat", "default", {"tensors": parts, "dim": arguments["dim"] % out.ndim})


_ARITHMETIC = {
    **{op: op for op in ("add", "sub", "mul", "div", "rsub")},
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
}
REWRITES: dict[str, Callable[[Arguments, Any], Rewritten]] = {
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
    "argmax.default": partial(_arg_extremum, "argmax"),
    "argmin.default": partial(_arg_extremum, "argmin"),
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
"""By operator: from its arguments by name and its result to what is recorded."""
LEAVES = {f"{op}.{overload}" for op, row in OPERATORS.items() for overload in row.overloads}
"""Operators that are recorded as they are called."""

_ARITHMETIC_OPERANDS = {
    *(*activations.OPERATORS, *arithmetic.OPERATORS, *_ARITHMETIC),
    *("max", "min", "mean", "where", "cat"),
}
"""Operators that take their operands in the type of the result."""
_COMPARED = {"gt", "lt", "ge", "le", "eq", "ne"}
"""Operators that take both operands in the type that PyTorch promotes them to."""
_BOOLEAN = {name for name in logic.OPERATORS if name.startswith("logical_")} | {"any", "all"}
"""Operators that take numbers as bools."""
_SUMMED = {"sum", "cumsum"}
"""Operators that take bools and int32 as int64."""


def promoted(op: str, args: Sequence[Any], out: Any) -> list[Any] | None:
    """The arguments with every tensor operand cast to the type that PyTorch computes in; None where none needs it.

    ``out`` is the result. The first argument of ``where`` is a bool, and stays one.
    """
    if op == "cat":
        wanted = {part.dtype for part in args[0]} - {out.dtype}
        return [[part.to(out.dtype) for part in args[0]], *args[1:]] if wanted else None
    first = 1 if op == "where" else 0
    numbers = args[first : first + 2]
    if any(number.is_complex() for number in numbers if isinstance(number, Tensor)):  # refused by itself
        return None
    if op in _ARITHMETIC_OPERANDS and isinstance(out, Tensor):
        wanted = out.dtype
    elif op in _COMPARED:
        wanted = torch.result_type(*numbers)
    elif op in _BOOLEAN:
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
    """PyTorch takes a floating-point constant without dimensions as a number, whatever its type."""
    return tensor.ndim == 0 and tensor.is_floating_point() and wanted.is_floating_point
