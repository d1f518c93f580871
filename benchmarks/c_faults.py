"""Which faults in a network's C code does its self-test find, by its checksum and by its rows alone?

A constant at a time is changed in the memory of a compiled library whose constants may be written, the self-test runs,
and the constant is put back: one bit, 0.1 %, its sign, or another constant's value. The self-test with its checksum
taken out tells what the rows find by themselves. Then builds that compute something else: wrong options, a processor
that flushes subnormal numbers to zero, and libraries of functions that are wrong.
Run it with ``python -m benchmarks.c_faults [--faults N] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import print_machine, write_results
from benchmarks.networks import POLICY, network
from export import inspect, publish
from export.csource.compilers import Compiler, CRunning, compilers, load
from export.csource.proving import nan_outputs
from export.csource.writing import Contract, CSource, c_source
from export.errors import TargetError
from runtime import read_certificate

RESULTS = ("passed", "wrong arithmetic", "wrong constants", "wrong answer", "lost NaN", "wrong function")
_TABLE = re.compile(r"static const float (\w+_(?:weights_\d+|numbers))\[(\d+)\]")
_SUM = re.compile(r"return sum == \d+UL;")
_FLAGS = ("-O2",)


def one_bit(values: np.ndarray, place: int, _other: int) -> np.float32:
    """The next float32 number."""
    return np.nextafter(values[place], np.float32(np.inf))


def a_thousandth(values: np.ndarray, place: int, _other: int) -> np.float32:
    """0.1 % more."""
    return np.float32(values[place] * np.float32(1.001))


def sign(values: np.ndarray, place: int, _other: int) -> np.float32:
    """The other sign."""
    return np.float32(-values[place])


def swapped(values: np.ndarray, _place: int, other: int) -> np.float32:
    """Another constant's value."""
    return np.float32(values[other])


CHANGES: dict[str, Callable[[np.ndarray, int, int], np.float32]] = {
    "a constant, to the next float32": one_bit,
    "a constant, by 0.1 %": a_thousandth,
    "the sign of a constant": sign,
    "two constants of a table, swapped": swapped,
}
BUILDS: dict[str, tuple[tuple[str, ...], str]] = {
    "-ffast-math": (("-O2", "-ffast-math"), ""),
    "-Ofast": (("-Ofast",), ""),
    "-ffinite-math-only": (("-O2", "-ffinite-math-only"), ""),
    "-fassociative-math and what it needs": (
        ("-O2", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
        "",
    ),
    "-mrecip, -freciprocal-math": (("-O2", "-mrecip", "-freciprocal-math"), ""),
    "expm1f off by 1 %": (("-O2",), "expm1f(x) 1.01f * (expm1f)(x)"),
    "expm1f off by 0.1 %": (("-O2",), "expm1f(x) 1.001f * (expm1f)(x)"),
    "expm1f off by 1e-5": (("-O2",), "expm1f(x) 1.00001f * (expm1f)(x)"),
    "expm1f of NaN is -1": (("-O2",), "expm1f(x) ((x) > -88.0f ? (expm1f)(x) : -1.0f)"),
    "expm1f as expf - 1": (("-O2",), "expm1f(x) (expf(x) - 1.0f)"),
}
"""Options, and the definition of a function that is wrong."""


def source_of(name: str, folder: Path) -> CSource:
    """The code of a network as ``mlpx package --for c`` writes it."""
    spec, module = network(name)
    path = folder / f"{name}.onnx"
    publish(module, path, spec=spec, device="cpu", page=False, bound=False)
    certificate = read_certificate(path.with_name(f"{name}.parity.json"))
    assert certificate.answers is not None
    nan = nan_outputs(path, certificate)
    return c_source(path, name, Contract(inspect(path).summary, certificate.sha256, certificate.answers, nan))


def writable(source: CSource, *, with_sum: bool) -> CSource:
    """The code with constants that may be changed in memory, and with or without its checksum."""
    code = _TABLE.sub(r"float \1[\2]", source.code)
    return dataclasses.replace(source, code=code if with_sum else _SUM.sub("return sum != 0UL;", code))


def planted(source: CSource, compiler: Compiler, faults: int) -> dict[str, dict[str, int]]:
    """For each kind of change: how many were made, and how many the sum and the rows alone find."""
    whole, bare = (load(writable(source, with_sum=kind), compiler, _FLAGS) for kind in (True, False))
    tables = [(name, int(size)) for name, size in _TABLE.findall(source.code)]
    starts = np.cumsum([0, *(size for _, size in tables)])
    places = np.unique(np.linspace(0, starts[-1] - 1, min(faults, int(starts[-1]))).astype(int))
    rng, found = np.random.default_rng(0), dict[str, dict[str, int]]()
    assert whole.self_test() == bare.self_test() == 0
    for name, change in CHANGES.items():
        count: dict[str, int] = dict.fromkeys(("faults", "by the checksum", "by the rows alone"), 0)
        for place in places:
            table = int(np.searchsorted(starts, place, side="right") - 1)
            at, other = int(place - starts[table]), int(rng.integers(tables[table][1]))
            values = [_memory(running, *tables[table]) for running in (whole, bare)]
            others = (at, other) if change is swapped else (at,)
            before = values[0].copy()
            changed = change(before, at, other)
            if changed.tobytes() == before[at].tobytes():
                continue
            count["faults"] += 1
            for running, array, key in zip((whole, bare), values, list(count)[1:], strict=True):
                array[at] = changed
                if len(others) == 2:
                    array[other] = before[at]
                count[key] += running.self_test() != 0
                array[:] = before
        found[name] = count
    for running in (whole, bare):
        running.close()
    return found


def _memory(running: CRunning, table: str, size: int) -> np.ndarray:
    """A table of constants in the library's memory."""
    return np.ctypeslib.as_array((ctypes.c_float * size).in_dll(running.library, table))


def wrong_builds(source: CSource, compiler: Compiler) -> dict[str, str]:
    """What each of ``BUILDS`` comes to; those that define a function only where the code calls it."""
    found: dict[str, str] = {}
    for name, (flags, define) in BUILDS.items():
        if define and f"{define.partition('(')[0]}(" not in source.code:
            continue
        defined = f"#include <math.h>\n#define {define}\n" if define else ""
        code = dataclasses.replace(
            source, code=source.code.replace("#include <string.h>", f"#include <string.h>\n{defined}")
        )
        try:
            running = load(code, compiler, flags)
        except TargetError as error:
            lines = str(error).splitlines()
            refused = next((line.partition("#error ")[2] for line in lines if "#error " in line), "")
            found[name] = f"does not compile: {refused or lines[1]}"
            continue
        found[name] = RESULTS[running.self_test()]
        running.close()
    running = load(source, compiler, _FLAGS)
    set_flush, restore = _flush_to_zero(compiler)
    set_flush()
    found["subnormal numbers flushed to zero (MXCSR)"] = RESULTS[running.self_test()]
    restore()
    running.close()
    return found


_MXCSR = """\
#include <xmmintrin.h>
void set_flush(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
void restore(void) { _mm_setcsr(_mm_getcsr() & ~0x8040u); }
"""


def _flush_to_zero(compiler: Compiler) -> tuple[Callable[[], int], Callable[[], int]]:
    """Functions that set and clear FTZ and DAZ."""
    with tempfile.TemporaryDirectory() as folder:
        code, library = Path(folder) / "flush.c", Path(folder) / "flush.so"
        code.write_text(_MXCSR)
        compiler.compile([code], library, ["-shared", "-fPIC"])
        loaded = ctypes.CDLL(str(library))
        return loaded.set_flush, loaded.restore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=2000, help="of each kind, spread evenly; default: %(default)s")
    parser.add_argument("--only", default="", metavar="TEXT", help="the networks with this in their name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found, missing = compilers()
    if not found:
        parser.error("; ".join(missing))
    results: dict[str, object] = {}
    print_machine()
    with tempfile.TemporaryDirectory(prefix="mlpx-c-faults-") as folder:
        for name in (name for name in ("digits", POLICY) if options.only in name):
            source = source_of(name, Path(folder))
            kinds, builds = planted(source, found[0], options.faults), wrong_builds(source, found[0])
            results[name] = {"planted": kinds, "builds": builds}
            print(f"\n{name + ', ' + found[0].name:<46}{'planted':>8}{'by the checksum':>17}{'by the rows alone':>19}")
            for kind, count in kinds.items():
                print(f"  {kind:<44}" + "".join(f"{n:>{w},}" for n, w in zip(count.values(), (8, 17, 19), strict=True)))
            for build, result in builds.items():
                print(f"  {build:<44}{result}")
    write_results(options.json, results=results)


if __name__ == "__main__":
    main()
