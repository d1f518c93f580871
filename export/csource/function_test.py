"""The part of the self-test that asks the mathematics library: each function that a network calls, at some points.

Rows with wide bounds may not show a function that is slightly wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

import numpy as np

from .text import array, number

_UNIT = 2.0**-24
"""The unit roundoff of float32."""
_RELATIVE, _ABSOLUTE = 16 * _UNIT, 2 * _UNIT
"""How far a library may be from the exact value: those in use are within 8 roundings, and may lose what is near 0."""
_EVERYWHERE = (-20.0, -5.0, -1.0, -0.3, -0.01, 0.01, 0.3, 1.0, 5.0, 20.0)
_POSITIVE = (1e-10, 0.01, 0.3, 1.0, 1.5, 5.0, 20.0, 1e10)
_POWERS = ((0.01, 0.5), (0.3, -1.7), (0.9, 20.0), (1.5, 2.5), (2.0, 10.0), (5.0, -3.0), (20.0, 1.7), (-1.5, 3.0))
FUNCTIONS: dict[str, tuple[Callable[..., float], tuple[float, ...] | tuple[tuple[float, float], ...]]] = {
    "expf": (math.exp, (*_EVERYWHERE, -80.0, 80.0)),
    "expm1f": (math.expm1, (*_EVERYWHERE, -80.0, 80.0)),
    "tanhf": (math.tanh, _EVERYWHERE),
    "erff": (math.erf, (*_EVERYWHERE, -2.0, 2.0)),
    "logf": (math.log, _POSITIVE),
    "log1pf": (math.log1p, (-0.9, -0.3, *_POSITIVE)),
    "sinf": (math.sin, (-5.0, -1.0, -0.01, 0.01, 1.0, 5.0)),
    "cosf": (math.cos, (-5.0, -1.0, -0.01, 0.01, 1.0, 5.0)),
    "atanf": (math.atan, _EVERYWHERE),
    "asinhf": (math.asinh, (*_EVERYWHERE, -1e10, 1e10)),
    "powf": (math.pow, _POWERS),
}
"""What each computes, and where it is asked: numbers, or pairs for a function of two."""
EXACT = ("ceilf", "fabsf", "floorf", "rintf", "sqrtf")
"""Functions whose results are exact or rounded correctly by every library, and which are not asked."""


def called(texts: Iterable[str]) -> list[str]:
    """The functions of the table that are called in code, in the table's order."""
    code = "\n".join(texts)
    return [name for name in FUNCTIONS if re.search(rf"\b{name}\(", code)]


def numbers_of(functions: Iterable[str]) -> int:
    """The float32 numbers that ``function_test`` holds for them."""
    return sum(_values(function).size for function in functions)


def function_test(name: str, functions: Iterable[str]) -> str:
    """The text of ``NAME_test_functions``."""
    arrays, loops = list[str](), list[str]()
    for function in functions:
        values, table = _values(function), f"{name}_test_{function}"
        width = values.shape[1]
        taken = ", ".join(f"point[{i}]" for i in range(width - 2))
        arrays.append(array("static const float", table, map(number, values.reshape(-1).tolist()), f"[{values.size}]"))
        loops.append(f"""\
    for (int i = 0; i < {values.size}; i += {width}) {{
        const volatile float *point = {table} + i;
        const float y = {function}({taken});
        if (!(y >= point[{width - 2}] && y <= point[{width - 1}])) {{
            return 0;
        }}
    }}
""")
    start = "\n\n".join(arrays) + "\n\n" if arrays else ""
    return f"""\
{start}/* The library's functions where their exact values are known: what goes in, the lowest and the highest value. */
static int {name}_test_functions(void)
{{
{"".join(loops)}    return 1;
}}"""


def _values(function: str) -> np.ndarray:
    """A row for each point (points, arguments + 2): what goes in, the lowest and the highest value."""
    compute, points = FUNCTIONS[function]
    inputs = np.array(points, np.float32).reshape(len(points), -1)
    exact = np.array([compute(*map(float, row)) for row in inputs])
    reach = _RELATIVE * np.abs(exact) + _ABSOLUTE
    return np.column_stack([inputs, exact - reach, exact + reach])
