"""How an ATen operator may stand in an ONNX file, a file per family: every row is the patterns of one operator.

It is what the verifier accepts, written apart from what the exporter writes (``export.operators``), and takes in what
other exporters write as well.
"""

from __future__ import annotations

from collections.abc import Callable

from export.graph import Node

from . import activations, affine, arithmetic, logic, movement, normalisation, reductions
from .language import Pattern

PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    **affine.PATTERNS,
    **activations.PATTERNS,
    **arithmetic.PATTERNS,
    **reductions.PATTERNS,
    **movement.PATTERNS,
    **normalisation.PATTERNS,
    **logic.PATTERNS,
}
"""Every operator that can be proved, by its name in ``torch.ops.aten``."""
