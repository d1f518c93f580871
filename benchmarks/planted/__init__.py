"""Faults planted on purpose, to measure what a gate sees: into a file, or into the runtime that runs it."""

from __future__ import annotations

from export.onnxfile.model import Model
from export.proof.structure import Structure

from .edits import Edit
from .movement import MOVEMENT
from .operators import OPERATOR_FAULTS
from .sites import Plan, faulty, planned, planted
from .weights import WEIGHTS

__all__ = ["FAULTS", "OF_OPERATORS", "RUNTIME_ONLY", "faulty", "plan", "planted"]

OF_OPERATORS = (
    *("sum over another dimension", "mean for sum", "sum for mean", "max for min", "RMSNorm's epsilon 1e-3"),
    *("LayerNorm's epsilon 1e-3", "cos for sin", "exponent one more", "sides of a choice exchanged"),
    *("greater for less", "concatenated in the other order", "factors of a product exchanged"),
    *("softmax along another dimension", "two rows of an embedding exchanged", *MOVEMENT),
)
"""Faults that have a place only where a module calls operators beyond those of the building blocks."""
_ALL: dict[str, Plan] = WEIGHTS | OPERATOR_FAULTS | MOVEMENT
FAULTS: dict[str, Plan] = {n: p for n, p in _ALL.items() if n not in OF_OPERATORS} | {n: _ALL[n] for n in OF_OPERATORS}
"""Those of the building blocks first."""
RUNTIME_ONLY = ("products rounded to TF32",)
"""Faults that no file can hold."""


def plan(name: str, model: Model, structure: Structure, seed: int) -> Edit | None:
    """Where a fault goes in this file; None where the file has no place for it, or where it would change nothing."""
    return planned(FAULTS[name], model, structure.layers, seed)
