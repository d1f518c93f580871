"""How fast is mlpx, beside what a user would write and beside other runtimes, on this machine?

Every row of ``benchmarks.targets`` beside its target, in one run: medians of paired rounds, each contender in a process
of its own, in random order; a wrong answer is not timed. It prints the limits of the machine too. On a machine with
more than 2 cores it uses 2. A full run takes about 12 minutes.
Run it with ``make bench``, or ``python -m benchmarks.speed [--quick] [--only TEXT] [--rounds N] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import limits
from benchmarks.cases import Case, Effort, bulk_contenders, contenders, measured, missing_peers, paced
from benchmarks.machine import keep_to_two_cores, print_machine, write_results
from benchmarks.parts import PARTS
from benchmarks.subjects import prepared
from benchmarks.targets import BULK, PACED, TARGETS, Outcome, Target
from runtime.timing.contenders import PLAIN
from runtime.timing.timer import paired
from tests.support.cases import WIDTHS

TEN = 10.0
Cases = dict[tuple[str, int] | str, Case]


def tell(text: str) -> None:
    """What is being measured, on standard error."""
    print(text, file=sys.stderr, flush=True)


def cases_of(targets: Sequence[Target], folder: Path, effort: Effort, *, quick: bool) -> Cases:
    """Measure every model and batch that the targets name; with ``quick`` only the contenders that they name."""
    pairs = dict.fromkeys(target.case for target in targets if isinstance(target.case, tuple))
    named = {name for target in targets for name in (target.one, target.over)}
    results: Cases = {}
    for name in dict.fromkeys(model for model, _ in pairs):
        subject = prepared(name, folder)
        batches = [batch for model, batch in pairs if model == name and batch != BULK.get(name)]
        if batches:
            entered = contenders(subject, compile_too=name in WIDTHS and not quick)
            entered = [contender for contender in entered if not quick or contender.name in named]
            results |= {(name, case.batch): case for case in measured(subject, batches, entered, effort, tell)}
        if (name, BULK.get(name)) in pairs:
            (case,) = measured(subject, [BULK[name]], bulk_contenders(subject), effort, tell)
            results[name, case.batch] = case
    if any(target.case == "paced" for target in targets):
        tell(f"{PACED}, a call every 10 ms")
        results["paced"] = paced(prepared(PACED, folder), *((3, 5) if quick else (7, 100)))
    return results


def outcome(target: Target, cases: Cases) -> Outcome:
    """The result of a row, from the case that measured it."""
    case = cases[target.case]
    for name in (target.one, target.over):
        if name not in case.timings:
            reason = next((left.reason for left in case.left_out if left.name == name), "it was not entered")
            return Outcome(target, None, f"{name}: {reason}")
    return Outcome(target, paired(case.timings[target.one], case.timings[target.over], cpu=target.case == "paced"))


def outcomes(targets: Sequence[Target], cases: Cases, options: argparse.Namespace) -> list[Outcome]:
    """Every row, in the table's order; those that no case measures by their own part."""
    results: dict[tuple[str, int] | str, Outcome] = {}
    for target in targets:
        if target.case in cases:
            results[target.name] = outcome(target, cases)
        elif target.name not in results:
            part = PARTS[str(target.case)]
            tell(part.__doc__ or "")  # the line that says what it measures
            for case, figure in part(options).items():
                for other in (row for row in targets if row.case == case):
                    is_reason = isinstance(figure, str)
                    results[other.name] = Outcome(other, None, figure) if is_reason else Outcome(other, figure)
    return [results[target.name] for target in targets]


def format_case(key: tuple[str, int] | str, case: Case) -> list[str]:
    """Every contender of a case: its median, and its time over plain ONNX Runtime's."""
    head = f"{case.model}, a call every 10 ms" if key == "paced" else f"{case.model}, batch {case.batch:,}"
    lines = [f"{head}, {max(len(t.blocks) for t in case.timings.values())} rounds"]
    base = next((t for name, t in case.timings.items() if name.startswith(PLAIN)), None)
    for name, timings in sorted(case.timings.items(), key=lambda item: item[1].median):
        times = f"{1e6 * timings.median:>12,.1f} µs  CPU {1e6 * timings.cpu:>12,.1f} µs"
        ratio = ""
        if base is not None and len(base.blocks) == len(timings.blocks):
            over = paired(timings, base)
            ratio = f"  over run {over.median:5.2f} ({over.low:.2f} to {over.high:.2f})"
        lines.append(f"  {name:<32}{times}{ratio}")
    return lines + [f"  {one.name:<32}left out: {one.reason}" for one in case.left_out]


def record_of(case: Case) -> dict[str, Any]:
    """A case for JSON, in seconds."""
    timings = {
        name: {
            "median": t.median,
            "p99": t.quantile(0.99),
            "cpu": t.cpu,
            "rounds": t.rounds,
            "cpu_rounds": [block.cpu for block in t.blocks],
        }
        for name, t in case.timings.items()
    }
    left_out = [asdict(one) for one in case.left_out]
    return {"model": case.model, "batch": case.batch, "seconds": timings, "apart": case.apart, "left_out": left_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds: to see that it works, not to measure")
    parser.add_argument("--only", default="", metavar="TEXT", help="the rows with this in their name")
    parser.add_argument("--rounds", type=int, default=Effort.rounds)
    parser.add_argument("--gigabytes", type=float, default=TEN, help="of the file that memory is measured on")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    targets = [target for target in TARGETS if options.only in target.name]
    if not targets:
        names = "\n  ".join(target.name for target in TARGETS)
        parser.error(f"no row has '{options.only}' in its name. The rows:\n  {names}")
    keep_to_two_cores()
    start = perf_counter()
    effort = Effort(rounds=3, block=0.003) if options.quick else Effort(rounds=options.rounds)
    tell("limits of the machine")
    ceilings = limits.measured(seconds=0.02 if options.quick else 0.3)
    with tempfile.TemporaryDirectory(prefix="mlpx-bench-") as folder:
        cases = cases_of(targets, Path(folder), effort, quick=options.quick)
        rows = outcomes(targets, cases, options)
    print_machine()
    print("\n".join(limits.format_limits(ceilings)))
    for key, case in cases.items():
        print("\n".join(format_case(key, case)))
    for one in missing_peers():
        print(f"{one.name}: {one.reason}")
    print(f"\n{'what':<68} {'at most':>8}  measured (quartiles)")
    for row in rows:
        print(row.format())
    if any(row.target.case == "memory" and row.found for row in rows) and options.gigabytes != TEN:
        print(f"memory was measured on files of {options.gigabytes:g} GB instead of {TEN:g}")
    seconds = perf_counter() - start
    print(f"{seconds:.0f} s" + (", too few rounds to be figures (--quick)" if options.quick else ""))
    if options.plot:
        from benchmarks.speed_plot import written

        written(cases, options.plot)
    if options.json:
        record = {
            "quick": options.quick,
            "seconds": seconds,
            "limits": ceilings,
            "targets": [
                {
                    "name": row.target.name,
                    "at_most": row.target.at_most,
                    "unit": row.target.unit,
                    "measured": asdict(row.found) if row.found is not None else None,
                    "verdict": row.verdict,
                    "why_not": row.why_not,
                }
                for row in rows
            ],
            "cases": {str(key) if key == "paced" else f"{key[0]}, {key[1]}": record_of(c) for key, c in cases.items()},
        }
        write_results(options.json, **record)


if __name__ == "__main__":
    main()
