"""Operands of several element types, which PyTorch brings to one by itself and an ONNX operator does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from export.operators import activations, arithmetic, logic

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
