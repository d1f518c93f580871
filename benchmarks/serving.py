"""How many requests per second does ``mlpx serve`` answer, beside other servers, on this machine?

Every row of ``benchmarks.served.targets``. One server runs at a time, restarted in every round, in random order; each
has one worker and ONNX Runtime with one thread, and shares 2 cores with the program that loads it. Before the load each
request is sent once, and its answer compared with the proved bound. Ratios are within a round. A full run takes about
25 minutes. The peers are in environments of their own (``make servers``); a missing one is reported.
Run it with ``python -m benchmarks.serving [--quick] [--only TEXT] [--rounds N] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.machine import keep_to_two_cores, print_machine, write_results
from benchmarks.served.closed import missing
from benchmarks.served.parts import PARTS
from benchmarks.served.rounds import Effort, Table, measured
from benchmarks.served.subjects import made
from benchmarks.served.targets import LOADS, MANY, OURS, Load, Outcome, Target, rows_named
from runtime.timing.timer import quartiles


def tell(text: str) -> None:
    """What is being measured, on standard error."""
    print(text, file=sys.stderr, flush=True)


def outcome(target: Target, table: Table) -> Outcome:
    """The result of a row, from the rounds in which both servers were loaded."""
    assert isinstance(target.case, Load)
    rates = []
    for name in (OURS, target.over):
        if reason := table.left_out.get((name, target.case)):
            return Outcome(target, None, f"{name}: {reason}")
        rates.append([loaded.rate for loaded in table.loaded[name, target.case]])
    return Outcome(target, quartiles([ours / theirs for ours, theirs in zip(*rates, strict=True)]))


def format_load(load: Load, table: Table) -> list[str]:
    """Every server under a load: the medians of its rounds."""
    lines = [load.name]
    for name in load.servers:
        if reason := table.left_out.get((name, load)):
            lines.append(f"  {name:<28}not measured: {reason}")
        elif rounds := table.loaded.get((name, load)):
            rate, p50, p99 = (quartiles([getattr(loaded, key) for loaded in rounds]) for key in ("rate", "p50", "p99"))
            failed = sum(loaded.failed for loaded in rounds)
            times = f"p50 {1e3 * p50.median:7.2f} ms  p99 {1e3 * p99.median:7.2f} ms"
            spread = f"({rate.low:,.0f} to {rate.high:,.0f})"
            lines.append(f"  {name:<28}{rate.median:>8,.0f} /s {spread:<18} {times}  {failed} failed")
    return lines if len(lines) > 1 else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works, not to measure")
    parser.add_argument("--only", default="", metavar="TEXT", help="the rows with this in their name")
    parser.add_argument("--all-loads", action="store_true", help="measure also the loads that no row asks for")
    parser.add_argument("--rounds", type=int, default=Effort.rounds)
    parser.add_argument("--seconds", type=float, default=Effort.seconds, help="of every load in a round")
    parser.add_argument("--requests", type=int, default=Effort.requests, help="of the row about memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    targets = rows_named(options.only)
    if not targets:
        names = "\n  ".join(target.name for target in rows_named(""))
        parser.error(f"no row has '{options.only}' in its name. The rows:\n  {names}")
    if (reason := missing()) is not None:
        sys.exit(reason)
    keep_to_two_cores()
    effort = Effort(options.rounds, options.seconds, options.requests)
    if options.quick:
        effort = Effort(rounds=1, seconds=2, requests=min(options.requests, 20_000))
    cases = {target.case for target in targets}
    loads = [load for load in LOADS if load in cases or (options.all_loads and options.only in load.name)]
    start = perf_counter()
    with tempfile.TemporaryDirectory(prefix="mlpx-serving-") as place:
        folder = Path(place)
        pairs = {(name, load.model) for load in loads for name in load.servers}
        subjects = made(sorted(pairs | {(OURS, MANY.model)}), folder, tell)
        table = measured(loads, subjects, effort, random.Random(0), folder, tell)
        parts: dict[str, Any] = {}
        for part in PARTS:
            if part in cases:
                tell(PARTS[part].__doc__ or part)  # the line that says what it measures
                parts[part] = PARTS[part](subjects, effort, folder)
    rows = [
        outcome(target, table) if isinstance(target.case, Load) else Outcome(target, *parts[target.case][:2])
        for target in targets
    ]
    print_machine()
    for load in loads:
        print("\n".join(format_load(load, table)))
    for part in parts.values():
        print("\n".join(part[2]))
    print(f"\n{'what':<84} {'wanted':>6}  measured (quartiles)")
    for row in rows:
        print(row.format())
    seconds = perf_counter() - start
    print(f"{seconds:.0f} s" + (", too short to be figures (--quick)" if options.quick else ""))
    if options.json:
        record = {
            "quick": options.quick,
            "seconds": seconds,
            "targets": [
                {
                    "name": row.target.name,
                    "wanted": row.target.bound,
                    "at_least": row.target.at_least,
                    "measured": asdict(row.found) if row.found is not None else None,
                    "verdict": row.verdict,
                    "why_not": row.why_not,
                }
                for row in rows
            ],
            "loads": {
                load.name: {
                    name: [asdict(one) for one in table.loaded.get((name, load), [])]
                    or table.left_out.get((name, load), "not asked for")
                    for name in load.servers
                }
                for load in loads
            },
            "parts": {name: part[2] for name, part in parts.items()},
        }
        write_results(options.json, **record)


if __name__ == "__main__":
    main()
