"""Operands of several element types, which PyTorch brings to one by itself and an ONNX operator does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_OF_TWO = {
    *("add", "sub", "subtract", "rsub", "mul", "multiply", "pow", "maximum", "minimum", "max", "min"),
    *("gt", "lt", "ge", "le", "eq", "ne"),
}
"""Both operands in the type that holds both."""
_TO_FLOAT = {
    *("div", "divide", "true_divide", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "erf", "atan", "sigmoid", "tanh"),
    *("reciprocal", "expm1", "log1p", "softmax", "log_softmax", "mean"),
}
"""Whole numbers as float32."""
_TO_WHOLE = {"sum", "cumsum"}
"""Truths as whole numbers."""


def promoted(op: str, args: Sequence[Any]) -> list[Any] | None:
    """The arguments with every tensor operand in the type that PyTorch computes in; None where they are in it."""
    if op == "cat":
        return _of_one_type(args)
    first = 1 if op == "where" else 0
    numbers = args[first : first + 2] if op in _OF_TWO | {"where"} | _TO_FLOAT else args[:1]
    tensors = [number for number in numbers if isinstance(number, Tensor)]
    if not tensors:
        return None
    if op in _OF_TWO or op == "where":
        wanted = torch.result_type(*numbers) if len(numbers) == 2 else tensors[0].dtype
    elif op in _TO_FLOAT:
        wanted = torch.float32 if not tensors[0].is_floating_point() else tensors[0].dtype
    elif op in _TO_WHOLE:
        wanted = torch.int64 if not tensors[0].is_floating_point() else tensors[0].dtype
    else:
        return None
    if all(tensor.dtype == wanted or _is_number(tensor, wanted) for tensor in tensors):
        return None
    cast = [part.to(wanted) if isinstance(part, Tensor) else part for part in numbers]
    return [*args[:first], *cast, *args[first + len(cast) :]]


def _of_one_type(args: Sequence[Any]) -> list[Any] | None:
    """The tensors of a ``cat`` in the type that holds all of them."""
    wanted = args[0][0].dtype
    for part in args[0]:
        wanted = torch.promote_types(wanted, part.dtype)
    if all(part.dtype == wanted for part in args[0]):
        return None
    return [[part.to(wanted) for part in args[0]], *args[1:]]


def _is_number(tensor: Tensor, wanted: torch.dtype) -> bool:
    """A constant of no dimension is a number to PyTorch, whatever its type."""
    return tensor.ndim == 0 and tensor.is_floating_point() and wanted.is_floating_point
