"""The self-test that code holds: it passes, and every planted fault fails it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch.nn import functional

from export import TargetError, publish
from export.csource.compilers import LEVELS, Compiler, load
from export.csource.elementwise import EXPRESSIONS
from export.csource.function_test import EXACT, FUNCTIONS
from export.csource.kernels import KERNELS
from export.csource.writing import CSource
from tests.support.c_code import constants, edited, value_of, with_constant
from tests.support.hand_written import Written
from tests.support.repeats import examples

from .conftest import shipped

PASSED, ARITHMETIC, CONSTANTS, ANSWER, NAN, FUNCTION = range(6)
PLANTED = examples(8, of=80)


def result(source: CSource, compiler: Compiler, flags: Sequence[str] = ("-O1",)) -> int:
    running = load(source, compiler, flags)
    try:
        return running.self_test()
    finally:
        running.close()


@pytest.mark.parametrize("flags", LEVELS, ids=" ".join)
def test_it_passes(flags: tuple[str, ...], source: CSource, compiler: Compiler) -> None:
    assert result(source, compiler, flags) == PASSED


def sampled(source: CSource, count: int) -> list[tuple[str, int, float]]:
    """Constants of the code: their arrays, places and values."""
    rng = np.random.default_rng(0)
    every = [
        (name, i, float(value_of(text))) for name, texts in constants(source).items() for i, text in enumerate(texts)
    ]
    return [every[i] for i in rng.choice(len(every), count, replace=False)]


def test_any_changed_constant_is_seen(source: CSource, gcc: Compiler) -> None:
    """By one bit, in any array; zeros that fill a block are among them."""
    for name, place, value in sampled(source, PLANTED):
        nearest = float(np.nextafter(np.float32(value), np.float32(np.inf)))
        assert result(with_constant(source, name, place, nearest), gcc, ("-O0",)) == CONSTANTS, (name, place)


def without_sum(source: CSource) -> CSource:
    """The code without the check of the constants' bits, so that the rows are on their own."""
    (line,) = re.findall(r"    return sum == \d+UL;", source.code)
    return edited(source, line, "    return sum != 0UL;")


def test_the_rows_alone_see_larger_faults(source: CSource, gcc: Compiler) -> None:
    """A weight that is off by as much as the largest one: of the faults that are planted, at least nine of ten."""
    bare, seen = without_sum(source), 0
    assert result(bare, gcc, ("-O0",)) == PASSED
    planted = [each for each in sampled(source, 4 * PLANTED) if "weights" in each[0] and each[2] != 0][:PLANTED]
    for name, place, value in planted:
        largest = max(abs(float(value_of(text))) for text in constants(source)[name])
        faulty = with_constant(bare, name, place, value + largest)
        seen += result(faulty, gcc, ("-O0",)) == ANSWER
    assert seen >= 0.9 * len(planted)


def test_a_fault_in_a_statement_is_seen(source: CSource, gcc: Compiler) -> None:
    start = f"(b + j * {source.name.upper()}_LANES)"
    assert result(edited(source, f"{start};", f"{start} * 0.0f;"), gcc) == ANSWER
    activation = "a < 0.0f ? 0.0f : a;" if source.name == "digits" else "tanhf(a);"
    other = source.code.replace(activation, "a < 0.0f ? -0.01f * a : a;")
    assert result(dataclasses.replace(source, code=other), gcc) == ANSWER


def test_fast_math_is_refused(source: CSource, compiler: Compiler) -> None:
    for flags in (("-O2", "-ffast-math"), ("-O2", "-ffinite-math-only")):
        with pytest.raises(TargetError, match="compiled with -ffast-math or alike, which the proof does not cover"):
            load(source, compiler, flags)


def result_of_program(source: CSource, compiler: Compiler, flags: Sequence[str], folder: Path) -> int:
    """What it returns in a process of its own: a library with fast mathematics changes how its process rounds."""
    main = f'#include "{source.name}.h"\n\nint main(void)\n{{\n    return {source.name}_self_test();\n}}\n'
    for name, text in {**source.files(), "main.c": main}.items():
        (folder / name).write_text(text, encoding="utf-8")
    compiler.compile([folder / f"{source.name}.c", folder / "main.c"], folder / "program", flags)
    return subprocess.run([folder / "program"], check=False).returncode


def test_fast_math_fails_it_where_the_compiler_does_not_say_so(source: CSource, gcc: Compiler, tmp_path: Path) -> None:
    hidden = ("-U__FAST_MATH__", "-U__FINITE_MATH_ONLY__", "-U__ASSOCIATIVE_MATH__", "-Wno-builtin-macro-redefined")
    for flags in (("-O2", "-ffast-math"), ("-O2", "-ffinite-math-only"), ("-O2", "-funsafe-math-optimizations")):
        assert result_of_program(source, gcc, (*flags, *hidden), tmp_path) == ARITHMETIC


def test_nan_that_is_lost_fails_it(source: CSource, gcc: Compiler) -> None:
    call = f"{source.name}_infer_in(x, y, scratch);"
    lost = f"{source.name}_infer_in(x, y, scratch);\n    y[0] = y[0] > 0.0f ? y[0] : (y[0] <= 0.0f ? y[0] : 0.0f);"
    assert result(edited(source, call, lost), gcc) == NAN


def test_it_can_be_left_out(source: CSource, gcc: Compiler) -> None:
    running = load(source, gcc, ("-O1", f"-D{source.name.upper()}_NO_SELF_TEST"))
    with pytest.raises(AttributeError):
        running.self_test()
    running.close()


def with_factor(source: CSource, function: str, factor: str) -> CSource:
    """Code whose library computes a multiple of a function."""
    define = f"#include <string.h>\n#define {function}(...) ({factor} * ({function})(__VA_ARGS__))"
    return edited(source, "#include <string.h>", define)


def test_a_function_of_the_library_that_is_slightly_wrong_fails_it(source: CSource, gcc: Compiler) -> None:
    called = [name for name in ("tanhf", "expf", "expm1f") if f" {name}(" in source.code]
    for name in called:
        for factor, expected in (("1.0f", PASSED), ("1.00001f", FUNCTION), ("0.999f", FUNCTION)):
            assert result(with_factor(source, name, factor), gcc) == expected, (name, factor)
    assert called or source.name == "digits"


def test_every_function_that_a_network_may_call_is_asked(compiler: Compiler, tmp_path: Path) -> None:
    """Each by itself: the rows' bounds are wide where several follow each other."""
    module = Written(
        lambda _, x: (
            *((x.abs() + 0.5).pow(1.7), x.atan(), x.asinh(), x.sin(), x.cos(), x.erf(), x.exp(), x.tanh()),
            *((x.abs() + 0.5).log(), functional.elu(x), functional.softplus(x)),
        )
    )
    path = publish(module.eval(), tmp_path / "m.onnx", input_shape=(3,), device="cpu", page=False, bound=False)[0].path
    source = shipped(path)
    assert result(source, compiler, ("-O2",)) == PASSED
    for name in FUNCTIONS:
        assert result(with_factor(source, name, "1.00001f"), compiler) == FUNCTION, name


def test_no_function_of_the_library_is_forgotten() -> None:
    called = re.findall(r"\b(\w+f)\(", "\n".join((*EXPRESSIONS.values(), *KERNELS.values())))
    assert {*called} == {*FUNCTIONS, *EXACT}
