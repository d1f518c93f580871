"""The patterns in which an ATen operator may occur in an ONNX file, a file per family of operators.

The verifier accepts these and no others. They are written independently of what the exporter writes
(``export.operators``), and include what other exporters write.
"""

from __future__ import annotations

from collections.abc import Callable

from export.graph import Node

from . import activations, affine, arithmetic, logic, movement, normalisation, reductions
from .language import Pattern

_FAMILIES = (affine, activations, arithmetic, reductions, movement, normalisation, logic)
PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    op: patterns for family in _FAMILIES for op, patterns in family.PATTERNS.items()
}
"""Every operator that can be proved, by its name in ``torch.ops.aten``."""
