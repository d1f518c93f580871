"""What ``+ - * / @`` and their functions mean on tensors of a forward: a block of two values, or of one and a constant.

A constant is a number, or a parameter or buffer with a value per feature. Every case is one float32 operation, in
PyTorch as in the file.
"""

from __future__ import annotations

import operator
from typing import Any

import torch

SYMBOLS: dict[Any, str] = {
    **dict.fromkeys([operator.add, operator.iadd, torch.add, "add", "add_"], "+"),
    **dict.fromkeys([operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract"], "-"),
    **dict.fromkeys([operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"], "*"),
    **dict.fromkeys([operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide], "/"),
    **dict.fromkeys(["div", "div_", "divide", "true_divide"], "/"),
    **dict.fromkeys([operator.neg, torch.neg, torch.negative, "neg", "negative"], "negative"),
    **dict.fromkeys([operator.matmul, torch.matmul, torch.mm, "matmul", "mm"], "@"),
}
"""Functions and tensor methods by what they compute of their first two arguments."""

OF_TWO = {"+": "add", "-": "subtract", "*": "multiply"}
"""The block of two values."""
WITH_CONSTANT = {
    "+": ("scale", "offset"),
    "-": ("standardize", "mean"),
    "*": ("scale", "factor"),
    "/": ("standardize", "std"),
}
"""The block of a value with a constant behind it, and the constant's role in it."""
