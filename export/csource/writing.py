"""The header and the code of a file's network, the same bytes on every machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.onnxfile.model import Model
from runtime import Answers, Port, Summary

from .contract import Argument, Figures, arguments, definitions, header, parameters
from .function_test import called, numbers_of
from .kernels import KERNELS
from .layout import layout
from .operators import read_program
from .program import Program
from .self_test import self_test
from .text import identifier


@dataclass(frozen=True)
class Contract:
    """What is known of a file besides its operators."""

    summary: Summary
    sha256: str
    answers: Answers
    nan: Mapping[str, np.ndarray]
    """For each output, where NaN comes out if all that comes in is NaN."""


@dataclass(frozen=True)
class CSource:
    """A network in C: the texts of ``NAME.h`` and ``NAME.c``."""

    name: str
    header: str
    code: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    figures: Figures
    bools: frozenset[str] = frozenset()
    """Outputs that are bool in the file, and 0 or 1 here."""
    merged: frozenset[str] = frozenset()
    """Outputs whose first dimension in the file is a multiple of the batch."""

    def files(self) -> dict[str, str]:
        """The texts by the names of their files."""
        return {f"{self.name}.h": self.header, f"{self.name}.c": self.code}


def c_source(source: Path | bytes | Model, name: str, contract: Contract | None = None) -> CSource:
    """The network of a file in C, for models of any name; with a ``contract`` it describes and tests itself.

    Raises ModelError: not an ONNX file; TargetError: an operator that C cannot hold yet.
    """
    name = identifier(name)
    program = read_program(source, name)
    ports = [_port(program, value) for value in (*program.inputs, *program.outputs)]
    inputs, outputs = ports[: len(program.inputs)], ports[len(program.inputs) :]
    if contract is not None:
        known = {port.name: port for port in (*contract.summary.inputs, *contract.summary.outputs)}
        inputs, outputs = ([known.get(port.name, port) for port in side] for side in (inputs, outputs))
    made = arguments(inputs, outputs)
    variables = [each.variable for each in made]
    rows = layout(program, variables[: len(inputs)], variables[len(inputs) :])
    summary, sha256, tested = None, "", 0
    texts = [
        f'#include "{name}.h"\n\n#include <math.h>\n#include <string.h>',
        _GUARDS.replace("@", f"{name.upper()}_"),
        *(definitions(name, made) if contract is not None else ()),
        *program.arrays,
        *(_kernel(KERNELS[kernel], name) for kernel in program.kernels),
        _functions(name, made, rows.lines, rows.scratch),
    ]
    if contract is not None:
        summary, sha256, answers, functions = contract.summary, contract.sha256, contract.answers, called(texts)
        tested = answers.rows * sum(each.size * (1 if each.is_input else 2) for each in made) + numbers_of(functions)
        texts.append(self_test(program, name, made, answers, contract.nan, functions))
    figures = Figures(sum(size for _, size in program.weights), rows.scratch, tested)
    return CSource(
        name,
        header(name, made, figures, summary, sha256),
        "\n\n".join(texts) + "\n",
        *(tuple(each for each in made if each.is_input is kind) for kind in (True, False)),
        figures=figures,
        bools=frozenset(output for output in program.outputs if program.is_bool(output)),
        merged=frozenset(output for output in program.outputs if program.leading(output)),
    )


def _port(program: Program, name: str) -> Port:
    return Port(name, ("batch", *program.row(name)))


_GUARDS = """\
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__)
#error "compiled with -ffast-math or alike, which the proof does not cover: leave it out for this file"
#endif
#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "float is computed in a wider type, which the proof does not cover: compile with -msse2 -mfpmath=sse"
#endif

/* A product and a sum are rounded one after the other, so that every compiler gives the same bits. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif

/* GCC makes vectors of such sums from -O3 on, and keeps them in registers in a function of its own. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#define @FAST __attribute__((noinline, optimize("O3", "fp-contract=off")))
#else
#define @FAST
#endif

/* Numbers in a vector, for sums that lie side by side: with AVX, GCC by itself keeps such sums in memory, which takes
 * twice as long. The bits are the same without, as with -D@NO_VECTORS. */
#if !defined(__GNUC__) || defined(@NO_VECTORS)
#define @LANES 1
#elif defined(__AVX512F__)
#define @LANES 16
#elif defined(__AVX__)
#define @LANES 8
#elif defined(__SSE2__) || defined(__aarch64__)
#define @LANES 4
#else
#define @LANES 1
#endif"""


def _kernel(text: str, name: str) -> str:
    return re.sub("@(?=[A-Z])", f"{name.upper()}_", text).replace("@", f"{name}_")


def _functions(name: str, made: list[Argument], lines: list[str], scratch: int) -> str:
    taken, passed = parameters(made), ", ".join(each.variable for each in made)
    body = "\n".join(f"    {line}" if line else "" for line in lines[lines[:1] == [""] :])
    unused = "" if scratch else "    (void)scratch;\n"
    rows = ", ".join(f"{each.variable} + row * {each.size}" for each in made)
    return f"""\
void {name}_infer_in({taken}, float *scratch)
{{
{unused}{body}
}}

void {name}_infer({taken})
{{
    float scratch[{name.upper()}_SCRATCH];
    {name}_infer_in({passed}, scratch);
}}

void {name}_infer_rows(size_t n, {taken})
{{
    for (size_t row = 0; row < n; row++) {{
        {name}_infer({rows});
    }}
}}"""
