"""The self-test of a file in C: arithmetic, constants, the library's functions, proved answers, and NaN.

An answer is proved within a bound of the exact one; both are given as the lowest and the highest float32 that the bound
allows, so that no processor needs double precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from runtime import Answers

from .contract import Argument
from .function_test import function_test
from .program import Program
from .text import floats

_START, _FACTOR = 2166136261, 16777619
"""FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/), on words. Each step is a bijection of what came before for one
word, and of the word for what came before: no change of a single constant leaves the sum as it was."""


def checksum(values: Sequence[np.ndarray]) -> int:
    """The sum over the bits of float32 arrays."""
    result = _START
    for words in values:
        for word in np.ascontiguousarray(words, np.float32).view(np.uint32).reshape(-1).tolist():
            result = (result ^ word) * _FACTOR & 0xFFFFFFFF
    return result


def self_test(
    program: Program,
    name: str,
    made: Sequence[Argument],
    answers: Answers,
    nan: Mapping[str, np.ndarray],
    functions: Sequence[str],
) -> str:
    """The text of ``NAME_self_test``.

    ``nan``: for each output, where NaN comes out if all that comes in is NaN; ``functions`` of the library are called.
    """
    capital, arrays = name.upper(), list[str]()
    for each in made:
        table, port = f"{name}_test_{each.variable}", each.port.name
        if each.is_input:
            arrays.append(floats(table, answers.inputs[port]))
        else:
            low, high = _ends(answers.exact[port], answers.bound[port])
            arrays += [floats(f"{table}_low", low), floats(f"{table}_high", high)]
            where = np.broadcast_to(nan[port], (1, *answers.exact[port].shape[1:])).reshape(-1)
            digits = ", ".join("1" if each else "0" for each in where)
            arrays.append(f"static const unsigned char {table}_nan[{where.size}] = {{{digits}}};")
    inputs, outputs = [each for each in made if each.is_input], [each for each in made if not each.is_input]
    filled = "\n".join(
        f"    for (int i = 0; i < {e.size}; i++) {{\n        {e.variable}[i] = nan;\n    }}" for e in inputs
    )
    outs, buffers = ("\n".join(f"    float {each.variable}[{each.size}];" for each in part) for part in (outputs, made))
    checks = "\n".join(_bound_check(name, each) for each in outputs)
    lost = "\n".join(_nan_check(name, each) for each in outputs)
    rows = ", ".join([f"{name}_test_{e.variable} + row * {e.size}" for e in inputs] + [e.variable for e in outputs])
    tables = ",\n".join(f"        {{{table}, {size}}}" for table, size in program.weights)
    total = checksum(program.values)
    return f"""\
#ifndef {capital}_NO_SELF_TEST

{chr(10).join(arrays)}

static unsigned long {name}_bits(float value)
{{
    unsigned int word;
    memcpy(&word, &value, sizeof word);
    return word;
}}

/* By the bits: a compiler that takes NaN for impossible would leave a comparison out. */
static int {name}_is_nan(float value)
{{
    return ({name}_bits(value) & 0x7fffffffUL) > 0x7f800000UL;
}}

static int {name}_test_arithmetic(void)
{{
    volatile float read_large = 0x1p+27f, read_small = 1.0f, read_zero = 0.0f;
    const float large = read_large, small = read_small, zero = read_zero;
    const float sum = (large + small) - large;
    const float nan = zero / zero;
    return sizeof(unsigned int) == 4 && sum == 0.0f && {name}_is_nan(nan) && nan != nan;
}}

/* FNV-1a over the bits of every constant, read from memory: changing any one of them changes it. */
static int {name}_test_constants(void)
{{
    static const struct {{
        const volatile float *values;
        unsigned long size;
    }} tables[] = {{
{tables}
    }};
    unsigned long sum = {_START}UL;
    for (unsigned int k = 0; k < sizeof tables / sizeof tables[0]; k++) {{
        for (unsigned long i = 0; i < tables[k].size; i++) {{
            sum = ((sum ^ {name}_bits(tables[k].values[i])) * {_FACTOR}UL) & 0xffffffffUL;
        }}
    }}
    return sum == {total}UL;
}}

{function_test(name, functions)}

static int {name}_test_answer(int row)
{{
{outs}
    {name}_infer({rows});
{checks}
    return 1;
}}

static int {name}_test_nan(void)
{{
    volatile float zero = 0.0f;
    const float nan = zero / zero;
{buffers}
{filled}
    {name}_infer({", ".join(each.variable for each in made)});
{lost}
    return 1;
}}

int {name}_self_test(void)
{{
    if (!{name}_test_arithmetic()) {{
        return {capital}_WRONG_ARITHMETIC;
    }}
    if (!{name}_test_constants()) {{
        return {capital}_WRONG_CONSTANTS;
    }}
    if (!{name}_test_functions()) {{
        return {capital}_WRONG_FUNCTION;
    }}
    for (int row = 0; row < {answers.rows}; row++) {{
        if (!{name}_test_answer(row)) {{
            return {capital}_WRONG_ANSWER;
        }}
    }}
    return {name}_test_nan() ? {capital}_PASSED : {capital}_LOST_NAN;
}}

#endif"""


def _ends(exact: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest float32 within the bound of the exact answers."""
    low, high = exact - bound, exact + bound
    with np.errstate(over="ignore"):
        lowest, highest = low.astype(np.float32), high.astype(np.float32)
    lowest = np.where(lowest < low, np.nextafter(lowest, np.float32(np.inf)), lowest)
    return lowest, np.where(highest > high, np.nextafter(highest, np.float32(-np.inf)), highest)


def _bound_check(name: str, each: Argument) -> str:
    table, y = f"{name}_test_{each.variable}", each.variable
    return f"""\
    for (int i = 0; i < {each.size}; i++) {{
        const int place = row * {each.size} + i;
        if (!({y}[i] >= {table}_low[place] && {y}[i] <= {table}_high[place]) || {name}_is_nan({y}[i])) {{
            return 0;
        }}
    }}"""


def _nan_check(name: str, each: Argument) -> str:
    return f"""\
    for (int i = 0; i < {each.size}; i++) {{
        if ({name}_is_nan({each.variable}[i]) != {name}_test_{each.variable}_nan[i]) {{
            return 0;
        }}
    }}"""
