"""What does a call take in a loop of a fixed rate, and does ``Session`` choose its threads rightly there?

One row at a time through ``predict_into``: ``Session`` by its rule, on one thread, on two, and plain ONNX Runtime,
which keeps its threads spinning; each in a process of its own, in turn. Calls are due at absolute times. Between them
the loop sleeps (``--wait sleep``), sleeps and spins for the last 200 microseconds, as real-time loops do (``mixed``),
or spins all the time, as a simulation that computes in between does (``busy``). Rate 0 is a tight loop. "late" are
calls that took longer than the period.
Run it with ``python -m benchmarks.paced [--model NAME] [--rate HZ] [--wait sleep mixed busy] [--seconds S] [--json
FILE]``; a model at a rate takes four times the seconds, and all that is measured by default 15 minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import keep_to_two_cores, print_machine, write_results
from benchmarks.subjects import Subject, prepared
from runtime.timing.contenders import PLAIN
from runtime.timing.contest import Contender, Contest
from runtime.timing.timer import Ratio, Timings, paired

RULE, ONE, TWO = "Session", "Session, 1 thread", "Session, 2 threads"
SETTINGS = {RULE: {}, ONE: {"threads": 1}, TWO: {"threads": 2}}
MODELS, RATES = ("small", "medium", "large"), (0, 1000, 500, 100, 10)
WITHIN = 1.1
"""What the rule may take, over the better of one thread and two."""
_SPUN = 200e-6
_ROUNDS = 15
_TIGHT_CALLS = 1000
_FEWEST_CALLS = 5


@dataclass(frozen=True)
class Figures:
    """A contender's calls, in seconds."""

    median: float
    p99: float
    cpu: float
    """Processor time per call, over all threads, with what the loop itself spins."""
    late: float
    """Share of the calls that took longer than the period."""


@dataclass(frozen=True)
class Loop:
    """A model in a loop."""

    model: str
    rate: float
    wait: str
    calls: int
    """Of each contender."""
    figures: Mapping[str, Figures]
    median_over_better: Ratio
    """The rule's time over that of one thread or two, whichever is faster: by round, the median and the quartiles."""
    p99_over_better: float
    """The same of all calls."""

    def format(self) -> list[str]:
        """The lines of the printed table."""
        pace = f"every {1e3 / self.rate:g} ms, {self.wait}" if self.rate else "back to back"
        lines = [f"{self.model}, {pace}, {self.calls} calls"]
        for name, one in self.figures.items():
            times = "  ".join(f"{what} {1e6 * getattr(one, what):>9,.1f} µs" for what in ("median", "p99", "cpu"))
            lines.append(f"  {name:<22} {times}" + (f"  late {100 * one.late:.0f} %" if one.late else ""))
        ratio = self.median_over_better
        verdict = "ok" if ratio.median <= WITHIN and self.p99_over_better <= WITHIN else "missed"
        spread = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        lines.append(
            f"  over the better of 1 and 2 threads: median {spread}, p99 {self.p99_over_better:.2f}  {verdict}"
        )
        return lines


def contenders(subject: Subject) -> list[Contender]:
    """The rule, one thread, two, and plain ONNX Runtime."""
    path, module = str(subject.path), "runtime.timing.contenders"
    ours = [
        Contender(name, f"{module}:predict_into", {"path": path, "device": "cpu", "settings": settings})
        for name, settings in SETTINGS.items()
    ]
    return [*ours, Contender(PLAIN, f"{module}:plain", {"path": path})]


def measured(contest: Contest, model: str, rate: float, wait: str, seconds: float) -> Loop:
    """All contenders in a loop of this rate, for so many seconds each."""
    slowest = max(contest.time_briefly(0.05).values())
    if rate:
        count = max(_FEWEST_CALLS, round(seconds / _ROUNDS / max(slowest, 1 / rate)))
        interval = 1 / rate
        busy = {"sleep": 0.0, "mixed": _SPUN, "busy": interval}[wait]
        timings = contest.time_rounds(
            _ROUNDS, dict.fromkeys(contest.ready, count), warm_up=0, interval=interval, busy=busy
        )
    else:
        count = min(_TIGHT_CALLS, max(_FEWEST_CALLS, round(seconds / _ROUNDS / slowest)))
        timings = contest.time_rounds(_ROUNDS, dict.fromkeys(contest.ready, count), warm_up=0.01)
    period = 1 / rate if rate else np.inf
    figures = {name: _figures(timings[name], period) for name in timings}
    better = min((timings[ONE], timings[TWO]), key=lambda each: each.median)
    return Loop(
        model,
        rate,
        wait,
        timings[RULE].calls,
        figures,
        paired(timings[RULE], better),
        figures[RULE].p99 / min(figures[ONE].p99, figures[TWO].p99),
    )


def _figures(timings: Timings, period: float) -> Figures:
    late = np.mean(np.concatenate([block.seconds for block in timings.blocks]) > period)
    return Figures(timings.median, timings.quantile(0.99), timings.cpu, float(late))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--rate", nargs="+", type=float, default=RATES, help="calls a second; 0: back to back")
    parser.add_argument("--wait", nargs="+", choices=("sleep", "mixed", "busy"), default=("sleep",))
    parser.add_argument("--seconds", type=float, default=15.0, help="of each contender in each loop")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_to_two_cores()
    loops: list[Loop] = []
    print_machine()
    with tempfile.TemporaryDirectory(prefix="mlpx-bench-") as folder:
        for name in options.model:
            subject = prepared(name, Path(folder))
            rows = subject.rows(1)
            with Contest(contenders(subject)) as contest:
                contest.load(rows, subject.exact(rows))
                for rate in options.rate:
                    for wait in options.wait if rate else ("sleep",):
                        loops.append(measured(contest, name, rate, wait, options.seconds))
                        print("\n".join(loops[-1].format()), flush=True)
    write_results(options.json, loops=[asdict(loop) for loop in loops])


if __name__ == "__main__":
    main()
