"""Every contender on one model, at one batch or more, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import COMPILED, EAGER, NUMPY, SKLEARN
from benchmarks.subjects import Subject
from benchmarks.targets import BULK_RUN, ONE_THREAD_SESSION
from runtime.timing.contenders import ONE_THREAD, OPENVINO, PLAIN, PREDICT, TRACT, contenders_of, others
from runtime.timing.contest import Contender, Contest, LeftOut
from runtime.timing.timer import Timings

PEERS = Path(__file__).resolve().parent.parent / ".peers"
"""Where ``make bench`` installs OpenVINO and tract."""
NOTHING = "no call at all"
_INTERVAL = 0.01


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 31
    block: float = 0.015
    """Seconds of a contender's calls in a round."""
    most_calls: int = 2000

    def rounds_of(self, seconds: float) -> int:
        """Fewer rounds where one takes long, but at least 5 (or as many as requested)."""
        return min(self.rounds, max(5, round(self.rounds * 1.0 / max(seconds, 1.0))))


@dataclass(frozen=True)
class Case:
    """What was measured for a model at a batch."""

    model: str
    batch: int
    timings: dict[str, Timings]
    apart: dict[str, float]
    """How far each output is from float64, as a share of the largest."""
    left_out: list[LeftOut] = field(default_factory=list)


def contenders(subject: Subject, *, compile_too: bool) -> list[Contender]:
    """Every way to run a model."""
    steps, arguments = {"steps": str(subject.steps)}, {"name": subject.name}
    entered = [entry for entry in contenders_of(subject.path, "cpu", {}) if entry.name not in (OPENVINO, TRACT)]
    entered.append(Contender(EAGER, "benchmarks.peers:eager", arguments))
    if compile_too:
        entered.append(Contender(COMPILED, "benchmarks.peers:eager", arguments | {"compiled": True}))
    entered.append(Contender(NUMPY, "benchmarks.peers:by_numpy", steps))
    entered.append(Contender(SKLEARN, "benchmarks.peers:by_sklearn", steps))
    return entered + others(subject.path, [str(PEERS)])


def bulk_contenders(subject: Subject) -> list[Contender]:
    """The contenders for a large number of rows."""
    entered = [entry for entry in contenders(subject, compile_too=False) if entry.name in (PREDICT, EAGER, OPENVINO)]
    two = {"path": str(subject.path), "threads": 2}
    return [*entered, Contender(BULK_RUN, "runtime.timing.contenders:plain", two)]


def measured(
    subject: Subject, batches: Sequence[int], entered: Sequence[Contender], effort: Effort, tell: Callable[[str], None]
) -> list[Case]:
    """Every contender at each of the batches, all on the same rows; a wrong answer is not timed."""
    cases = []
    with Contest(entered) as contest:
        for batch in batches:
            rows = subject.rows(batch)
            expected = subject.exact(rows)
            # torch.compile compiles again for every batch, which takes minutes: it is measured at batch 1.
            only = [one.name for one in entered if batch == 1 or one.name not in (COMPILED,)]
            apart, left_out = contest.load(rows, expected, only=only)
            estimates = contest.time_briefly(effort.block)
            calls = {name: max(1, min(effort.most_calls, round(effort.block / t))) for name, t in estimates.items()}
            rounds = effort.rounds_of(sum((calls[name] + 1) * t for name, t in estimates.items()))
            tell(f"{subject.name}, batch {batch:,}: {len(calls)} contenders, {rounds} rounds")
            timings = contest.time_rounds(rounds, calls)
            cases.append(Case(subject.name, batch, timings, apart, [*contest.left_out, *left_out]))
    return cases


def missing_peers() -> list[LeftOut]:
    """The runtimes that are not installed, and how to install them."""
    installed = {entry.name for entry in others(Path(), [str(PEERS)])}
    hint = "not installed. What to do: make bench, which installs it beside the benchmarks"
    return [LeftOut(name, hint) for name in (OPENVINO, TRACT) if name not in installed]


def paced(subject: Subject, rounds: int, calls: int) -> Case:
    """One row every 10 ms: ours by default, ours on one thread that never spins, plain ONNX Runtime."""
    alone = {"path": str(subject.path), "device": "cpu", "settings": {"threads": 1, "spin_us": 0}}
    entered = [entry for entry in contenders_of(subject.path, "cpu", {}) if entry.name in (PREDICT, PLAIN, ONE_THREAD)]
    entered.append(Contender(ONE_THREAD_SESSION, "runtime.timing.contenders:predict", alone))
    with Contest(entered) as contest:
        rows = subject.rows(1)
        apart, left_out = contest.load(rows, subject.exact(rows))
        timings = contest.time_rounds(rounds, dict.fromkeys(apart, calls), warm_up=0, interval=_INTERVAL)
    with Contest([Contender(NOTHING, "benchmarks.peers:nothing")]) as contest:
        contest.load(rows, None)
        timings |= contest.time_rounds(1, {NOTHING: calls}, warm_up=0, interval=_INTERVAL)
    return Case(subject.name, 1, timings, apart, left_out)
