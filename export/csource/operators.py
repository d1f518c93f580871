"""The table of operators: what each becomes in C."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from . import elementwise, linear, movement, segments
from .program import Program
from .step import Steps

OPERATORS: dict[str, Callable[[Program, NodeProto], Steps]] = {
    **linear.OPERATORS,
    **elementwise.OPERATORS,
    **segments.OPERATORS,
    **movement.OPERATORS,
}
"""By the name of the ONNX operator: its steps, for a program that it may add constants and functions to."""
