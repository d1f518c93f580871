"""How far a correct float32 evaluation of an operator can be from its exact value: one file per family of operators.

For an exact input z, known up to e, and the exact value y = f(z), a rule gives the radius around y that holds the
result of any float32 evaluation with rounding to nearest: matrix products and sums in any order, with or without fused
multiply-add. u = 2^-24 is the unit roundoff, γ_k = k·u / (1 - k·u) bounds k roundings in a row (Higham, Accuracy and
Stability of Numerical Algorithms, 2002, lemma 3.1), and every operation may flush an argument or a result below 2^-126
to zero. Elementary functions have their own constants (``constants``). Where float32 may overflow on the way, the
radius is infinite: such elements are exempt, and counted.

Everything is float64, whose own error (2^-29 of a float32 rounding) the caller adds.
"""

from . import activations, arithmetic, elementwise, exact, movement, normalisation, powers, reductions, spans
from .common import Rule, guarded
from .functions import Function
from .spans import Enclosure

_FAMILIES = (activations, arithmetic, elementwise, exact, movement, normalisation, powers, reductions)
RULES: dict[str, Rule] = {op: guarded(rule) for family in _FAMILIES for op, rule in family.RULES.items()}
"""The rule of each operator by its name in ``torch.ops.aten``. A module with any other operator is never proved."""
FUNCTIONS: dict[str, Function] = {**activations.FUNCTIONS, **elementwise.FUNCTIONS}
"""Functions of one value, by their operators' names."""
ENCLOSURES: dict[str, Enclosure] = {
    op: spans.guarded(enclosure) for family in _FAMILIES for op, enclosure in family.ENCLOSURES.items()
}
"""How each operator encloses its values over a box, beside its rule."""
