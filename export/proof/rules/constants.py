"""Rounding errors of float32, and the error constants of elementary functions.

A kernel is right when its result is within u·(a + r·|y| + m·|z|) of the exact value y = f(z), u = 2^-24: ``a`` bounds
the error absolutely, ``r`` relative to the result, ``m`` relative to the argument. The limits are what a proof
allows. They are not fitted to a machine, so that a machine with a wrong kernel fails.
``python -m benchmarks.constants`` measures ONNX Runtime and PyTorch against them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

U = 2.0**-24
ETA = 2.0**-126
LARGEST = float(np.finfo(np.float32).max)
PROBABILISTIC = 8
"""λ of the probabilistic line: it fails to hold with probability 2·exp(-λ²/2) per sum (Higham and Mary, SIAM J. Sci.
Comput. 41(5), 2019, theorem 2.4)."""


def gamma(k: float) -> float:
    """γ_k, the relative error of k roundings in a row; infinite where k·u reaches 1."""
    return k * U / (1 - k * U) if k * U < 1 else float("inf")


def probabilistic_gain(k: float) -> float:
    """γ_k over the probabilistic line expm1(λ·√k·u + k·u² / (1 - u)); at least 1."""
    likely = float(np.expm1(PROBABILISTIC * np.sqrt(k) * U + k * U**2 / (1 - U)))
    return max(1.0, gamma(k) / likely)


@dataclass(frozen=True)
class Limits:
    """The constants (a, r, m) that a proof allows, in units of u, and where they come from."""

    limits: tuple[float, float, float]
    source: str


CONSTANTS: dict[str, Limits] = {
    "sigmoid": Limits((4, 0, 0), "measured 2.98 u; libraries clamp at -18, so no relative bound holds"),
    "tanh": Limits((0, 8, 0), "measured 5.46 u of y, over all numbers"),
    "gelu": Limits(
        (0, 1, 8), "measured 5.97 u of x; x·(1 + erf) cancels for negative x, so the error is relative to x"
    ),
    "gelu tanh": Limits((0, 1, 5), "measured 3.27 u of x; as gelu"),
    "silu": Limits((0, 1, 5), "measured 3.29 u of x; x times a sigmoid with an absolute error"),
    "mish": Limits((0, 6, 5), "measured 0.49 of it; tanh and two roundings of y, what is added to 1 is lost: of x"),
    "elu": Limits((3, 1, 0), "times alpha: the exponential to 2 u of at most 1, the difference 1 u; the product 1 u"),
    "selu": Limits((6, 4, 0), "elu's a times 1.7581; two constants and two products, one rounding each"),
    "celu": Limits((4, 1, 0), "as elu, and x/alpha has two roundings, which the exponential makes 0.74 u of"),
    "softplus": Limits((4, 4, 2), "the exponential and the logarithm; beta·x and the quotient one rounding each"),
    "log_sigmoid": Limits((4, 4, 0), "as softplus; measured 0.34 of it"),
    "hardsigmoid": Limits((2, 1, 0), "derived: x/6 has two roundings for abs(x) < 3, the sum one; clipping adds none"),
    "hardswish": Limits((0, 3, 3), "derived: x times a hardsigmoid, or three roundings of x·(x + 3)/6"),
    "softmax": Limits((0, 4, 0), "roundings of one exponential; the rest is derived in the rule"),
    "log_softmax": Limits((0, 4, 0), "roundings of one exponential; the rest is derived in the rule"),
    "exp": Limits((0, 5, 0), "measured 1.28 u of y; CUDA's guide says 2 ulp besides the rounding"),
    "expm1": Limits((5, 6, 0), "derived: the exponential's 5 u of 1 + y, and the difference"),
    "log": Limits((1, 4, 0), "measured 0.64 of it, and 4.4 u of y near 1, where it is held absolutely"),
    "log1p": Limits((2, 4, 0), "derived: the logarithm's, and 1 u that the rounded sum moves it by"),
    "sin": Limits((3, 0, 0), "measured 1.68 u up to 1e30; CUDA's guide says 2 ulp besides the rounding, 2.5 u below 1"),
    "cos": Limits((3, 0, 0), "as sin"),
    "atan": Limits((0, 7, 0), "measured 4.77 u of y, near 1"),
    "asinh": Limits((0, 7, 0), "measured 2.14 u of y; with atan's room for other libraries"),
    "erf": Limits((0, 5, 0), "measured 1.39 u of y; CUDA's guide says 2 ulp besides the rounding"),
    "pow": Limits((0, 10, 0), "measured 1.0 u of y; CUDA's guide says 4 ulp besides the rounding"),
    "sqrt": Limits((0, 2, 0), "measured 1.50 u of y: a step of Newton's method with AVX-512"),
    "rsqrt": Limits(
        (0, 5, 0), "a root and a quotient, measured 1.50 u of y; CUDA's guide says 2 ulp besides the rounding"
    ),
}
"""By operator; gelu has a second row for its tanh formula."""
