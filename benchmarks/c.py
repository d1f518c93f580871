"""How fast is a network in C, one row at a time, beside ONNX Runtime, another generator of C, and numpy?

Each case is one run: medians of paired rounds, each contender in a process of its own, in random order. Programs in C
time themselves from inside, on 64 rows in turn; the others are timed as calls from Python. A wrong answer is not timed.
Beside the times stand how far each is from float64, and for programs in C the bytes of instructions, of constants, and
of the stack that a call takes.
Run it with ``python -m benchmarks.c [--quick] [--only TEXT] [--builds FOLDER] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.c_builds import from_python, programs
from benchmarks.c_drivers import MLPX, Driver, Program
from benchmarks.cases import PEERS, Effort
from benchmarks.machine import keep_to_two_cores, print_machine, write_results
from benchmarks.networks import POLICY
from benchmarks.subjects import Subject, prepared
from benchmarks.targets import Outcome, Target
from export.csource.compilers import compilers
from runtime.timing.contenders import INTO, ONE_THREAD
from runtime.timing.contest import TOLERANCE, Contest, LeftOut
from runtime.timing.timer import Timings, paired, time_rounds

CASES = ("tiny", "digits", "small", POLICY, "medium")
ROWS = 64
TARGETS = tuple(
    Target(f"C over {over}: {case}, {build}", at_most, (case, 1), f"{MLPX}, {build}", over)
    for case, over, at_most in (("digits", INTO, 0.2), (POLICY, ONE_THREAD, 1.0))
    for build in ("gcc -O2", "gcc -O3 -march=native")
)


@dataclass(frozen=True)
class Case:
    """What was measured of a network."""

    name: str
    timings: dict[str, Timings]
    apart: dict[str, float]
    """The largest difference from float64 on all rows, as a share of the largest output."""
    programs: dict[str, Program]
    stack: dict[str, int]
    """Bytes."""
    left_out: list[LeftOut]


def tell(text: str) -> None:
    """What is being done, on standard error."""
    print(text, file=sys.stderr, flush=True)


def measured(subject: Subject, folder: Path, options: argparse.Namespace, effort: Effort) -> Case:
    """Build every program and, unless only that is asked for, measure all contenders."""
    rows = subject.rows(ROWS)
    expected = subject.exact(rows)
    (x,), (exact,) = rows.values(), expected
    sizes = x.shape[1], exact.shape[1]
    tell(f"{subject.name}: compiling")
    made, left_out = programs(subject, sizes, folder, options.peers, options.onnxruntime)
    entered = from_python(subject, sizes, folder, next(iter(compilers()[0]), None))
    (folder / "rows").write_bytes(x.tobytes())
    timings, apart, stack = dict[str, Timings](), dict[str, float](), dict[str, int]()
    if options.build_only:
        return Case(subject.name, timings, apart, {}, stack, left_out)
    with ExitStack() as open_processes:
        drivers: dict[str, Driver] = {}
        for program in made:
            driver = Driver(program, folder / "rows")
            open_processes.callback(driver.close)
            apart[program.name] = float(np.abs(driver.answers(ROWS) - exact).max() / np.abs(exact).max())
            if apart[program.name] <= TOLERANCE:
                drivers[program.name], stack[program.name] = driver, driver.stack()
            else:
                left_out.append(LeftOut(program.name, f"it is {apart[program.name]:.2g} of the largest output away"))
        contest = open_processes.enter_context(Contest(entered))
        distances, wrong = contest.load(rows, expected)
        contest.load({name: values[:1] for name, values in rows.items()}, None, only=list(distances))
        calls = {n: max(1, round(effort.block / t)) for n, t in contest.time_briefly(effort.block).items()}
        runners = {
            name: partial(process.ask, "time", calls=calls[name], warm_up=0.003, core=0)
            for name, process in contest.ready.items()
        } | {name: partial(driver.time, *driver.plan(effort.block)) for name, driver in drivers.items()}
        tell(f"{subject.name}: {len(runners)} contenders, {effort.rounds} rounds")
        timings = time_rounds(runners, effort.rounds)
        left_out += [*contest.left_out, *wrong]
    return Case(subject.name, timings, apart | distances, {p.name: p for p in made}, stack, left_out)


def outcome(target: Target, cases: dict[str, Case]) -> Outcome:
    """The result of a row."""
    case = cases[target.case[0]]
    for name in (target.one, target.over):
        if name not in case.timings:
            reason = next((one.reason for one in case.left_out if name.startswith(one.name)), "it was not built")
            return Outcome(target, None, f"{name}: {reason}")
    return Outcome(target, paired(case.timings[target.one], case.timings[target.over]))


def format_case(case: Case) -> list[str]:
    """Every contender, from the fastest on, with its time over ONNX Runtime's on one thread."""
    lines = [f"{case.name}, {max((len(t.blocks) for t in case.timings.values()), default=0)} rounds"]
    lines.append(
        f"  {'':<46}{'µs':>9}  {'over 1-thread run':<20}{'from float64':>13}{'code':>8}{'data':>11}{'stack':>8}"
    )
    base = case.timings.get(ONE_THREAD)
    for name, timings in sorted(case.timings.items(), key=lambda item: item[1].median):
        ratio = ""
        if base is not None:
            over = paired(timings, base)
            ratio = f"{over.median:5.2f} ({over.low:.2f} to {over.high:.2f})"
        program = case.programs.get(name)
        figures = (program.code, program.constants, case.stack[name]) if program is not None else (None,) * 3
        size = "".join(f"{'-' if n is None else f'{n:,}':>{w}}" for n, w in zip(figures, (8, 11, 8), strict=True))
        lines.append(f"  {name:<46}{1e6 * timings.median:>9,.2f}  {ratio:<20}{case.apart[name]:>13.1e}{size}")
    return lines + [f"  {one.name:<46}left out: {one.reason}" for one in case.left_out]


def record_of(case: Case) -> dict[str, object]:
    """A case for JSON: seconds and bytes."""
    return {
        "seconds": {name: {"median": t.median, "rounds": t.rounds, "cpu": t.cpu} for name, t in case.timings.items()},
        "from_float64": case.apart,
        "bytes": {
            name: {"code": program.code, "constants": program.constants, "stack": case.stack.get(name)}
            for name, program in case.programs.items()
        },
        "left_out": [asdict(one) for one in case.left_out],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds: to see that it works, not to measure")
    parser.add_argument("--only", default="", metavar="TEXT", help="the networks with this in their name")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--peers", type=Path, default=PEERS, help="the folder with emx-onnx-cgen; default: %(default)s")
    parser.add_argument("--onnxruntime", type=Path, metavar="LIBRARY", help="libonnxruntime.so; default: the package's")
    parser.add_argument("--builds", type=Path, metavar="FOLDER", help="where programs are kept, to be used again")
    parser.add_argument("--build-only", action="store_true", help="with --builds: measure in another run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = [name for name in CASES if options.only in name]
    if not names:
        parser.error(f"no network has '{options.only}' in its name; they are {', '.join(CASES)}")
    keep_to_two_cores()
    effort = Effort(rounds=3, block=0.003) if options.quick else Effort(rounds=options.rounds)
    cases: dict[str, Case] = {}
    with tempfile.TemporaryDirectory(prefix="mlpx-c-") as temporary:
        for name in names:
            folder = (options.builds or Path(temporary)).resolve() / name
            folder.mkdir(parents=True, exist_ok=True)
            cases[name] = measured(prepared(name, folder), folder, options, effort)
    if options.build_only:
        return
    print_machine()
    for case in cases.values():
        print("\n".join(format_case(case)))
    rows = [outcome(target, cases) for target in TARGETS if target.case[0] in cases]
    if rows:
        print(f"\n{'what':<68} {'at most':>8}  measured (quartiles)")
    print("\n".join(row.format() for row in rows))
    if options.json:
        found = [
            {"name": row.target.name, "at_most": row.target.at_most, "verdict": row.verdict, "why_not": row.why_not}
            | {"measured": asdict(row.found) if row.found is not None else None}
            for row in rows
        ]
        write_results(
            options.json, quick=options.quick, targets=found, cases={n: record_of(c) for n, c in cases.items()}
        )


if __name__ == "__main__":
    main()
