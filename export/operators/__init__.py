"""What each ATen operator becomes in an ONNX file, a file per family."""

from . import activations, affine, arithmetic, logic, lookup, movement, normalisation, reductions
from .table import Operator

OPERATORS: dict[str, Operator] = {
    **affine.OPERATORS,
    **activations.OPERATORS,
    **arithmetic.OPERATORS,
    **reductions.OPERATORS,
    **movement.OPERATORS,
    **lookup.OPERATORS,
    **normalisation.OPERATORS,
    **logic.OPERATORS,
}
"""Every operator that can be in a file, by its name in ``torch.ops.aten``."""
