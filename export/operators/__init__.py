"""What each ATen operator becomes in an ONNX file, a file per family."""

from export.emitter import Operator

from . import activations, affine, arithmetic, logic, movement, normalisation, reductions

_FAMILIES = (affine, activations, arithmetic, reductions, movement, normalisation, logic)
OPERATORS: dict[str, Operator] = {op: row for family in _FAMILIES for op, row in family.OPERATORS.items()}
"""Every operator that can be in a file, by its name in ``torch.ops.aten``."""
