"""How long calls take with each of several settings: in turn, in rounds, so that a noisy machine is noisy for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np

from runtime.session.session import Session
from runtime.session.settings import Settings

_ROUNDS = 9
_FEWEST_ROUNDS = 3
_BLOCK = (0.005, 0.15)
"""Shortest and longest time of a candidate's turn without a rate, in seconds."""
_FEWEST_CALLS = 4
_HOPELESS = 2.0
"""Times the fastest of its file at warm-up from which a candidate is left out."""
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Candidate:
    """A file and settings to run it with."""

    kind: str
    path: Path
    settings: Settings


@dataclass(frozen=True)
class Measurement:
    """What calls of one candidate took. Times are in seconds, for a call of the whole batch."""

    candidate: Candidate
    threads: int
    """Of one call, as it really ran."""
    latency: float
    """The median over the rounds of each round's median."""
    p50: float
    p99: float
    """Over all calls."""
    cpu: float
    """Processor time of all threads for a call, busy waiting between calls included: the median over the rounds."""
    calls: int
    rounds: tuple[float, ...]
    """The median of each round."""


def fewest_calls() -> int:
    """Of a candidate, however few seconds there are."""
    return _FEWEST_ROUNDS * _FEWEST_CALLS


def measure(
    tried: Sequence[Candidate],
    feed: Mapping[str, np.ndarray],
    *,
    rate: float | None = None,
    seconds: float = 20.0,
    progress: Progress | None = None,
) -> tuple[list[Measurement], list[str]]:
    """Measure every candidate on ``feed``, float32 (batch, *row) by the inputs' names; what was left out, in words.

    With ``rate`` calls come so many times a second, else back to back. All candidates are open at once; in each round
    every one has a turn, in another order each time. Those that a warm-up shows to be hopeless, and the slowest where
    ``seconds`` do not suffice for all, are left out, but never the first of a file; where even those need longer, it
    takes longer. Raises what ``Session`` raises.
    """
    left_out: list[str] = []
    with ExitStack() as opened:
        calls: dict[Candidate, tuple[Session, Callable[[], object]]] = {}
        warm: dict[Candidate, float] = {}
        rules, small = _rules(tried), 0
        for candidate in tried:
            if candidate not in rules and not _has_room(candidate.path):
                small += 1
                continue
            session = opened.enter_context(Session(candidate.path, "cpu", tuning=None, **_given(candidate.settings)))
            calls[candidate] = (session, _caller(session, feed))
            warm[candidate] = _warm(calls[candidate][1])
        if small:
            left_out.append(f"{small} settings that this machine has not the memory to hold open beside the others")
        kept = _promising(warm, left_out)
        for candidate in calls.keys() - kept:
            calls[candidate][0].close()
        kept, turn, rounds = _plan(kept, warm, rate, seconds, left_out)
        taken: dict[Candidate, list[tuple[np.ndarray, float]]] = {candidate: [] for candidate in kept}
        for number in range(rounds):
            for candidate in kept if number % 2 == 0 else kept[::-1]:
                count = max(_FEWEST_CALLS, round(turn * rate if rate else turn / warm[candidate]))
                taken[candidate].append(_turn(calls[candidate][1], count, rate))
            if progress is not None:
                progress(number + 1, rounds)
        batch = len(next(iter(feed.values())))
        threads = {candidate: _threads(calls[candidate][0], batch) for candidate in kept}
    return [_measurement(candidate, threads[candidate], turns) for candidate, turns in taken.items()], left_out


def _has_room(path: Path) -> bool:
    """Whether a session of the file, which may hold its weights twice, leaves half of the free memory; on Linux."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return True
    line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    size = sum(file.stat().st_size for file in (path, Path(f"{path}.data")) if file.is_file())
    return 4 * size < int(line.split()[1]) * 1024


def _given(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in vars(settings).items() if value is not None}


def _caller(session: Session, feed: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """A call as a user's: ``predict`` where the model has one output."""
    rows: Any = dict(feed) if len(feed) > 1 else next(iter(feed.values()))
    return (lambda: session.predict(rows)) if len(session.outputs) == 1 else (lambda: session.run(rows))


def _threads(session: Session, batch: int) -> int:
    settings = session.settings
    if batch >= settings.shared_from and settings.workers > 1:
        return settings.workers
    return settings.threads if batch >= settings.whole_from else 1


def _warm(call: Callable[[], object]) -> float:
    """The shortest of a few calls, after one that sets everything up."""
    call()
    found, end = [], perf_counter() + 0.05
    while len(found) < 3 or (perf_counter() < end and len(found) < 200):
        start = perf_counter()
        call()
        found.append(perf_counter() - start)
    return min(found)


def _promising(warm: Mapping[Candidate, float], left_out: list[str]) -> list[Candidate]:
    """All but those that take more than twice as long as the fastest of their file."""
    fastest = {kind: min(t for c, t in warm.items() if c.kind == kind) for kind in {c.kind for c in warm}}
    rules = _rules(warm)
    kept = [c for c, t in warm.items() if t <= _HOPELESS * fastest[c.kind] or c in rules]
    if len(kept) < len(warm):
        left_out.append(f"{len(warm) - len(kept)} settings that took twice the time of the fastest at warm-up")
    return kept


def _rules(tried: Iterable[Candidate]) -> set[Candidate]:
    """The first candidate of each file, which has the rule's settings: it is measured whatever happens."""
    return set({candidate.kind: candidate for candidate in reversed(list(tried))}.values())


def _plan(
    kept: list[Candidate], warm: Mapping[Candidate, float], rate: float | None, seconds: float, left_out: list[str]
) -> tuple[list[Candidate], float, int]:
    """The candidates that ``seconds`` suffice for, how long a turn is, and how many rounds there are."""

    def turn_of(candidate: Candidate, turn: float) -> float:
        least = _FEWEST_CALLS * max(warm[candidate], 1 / rate if rate else 0.0)
        return max(turn, least)

    rules = _rules(warm)
    ordered = sorted(kept, key=lambda candidate: (candidate not in rules, warm[candidate]))
    while ordered[-1] not in rules and _FEWEST_ROUNDS * sum(turn_of(c, _BLOCK[0]) for c in ordered) > seconds:
        ordered.pop()
    if len(ordered) < len(kept):
        left_out.append(f"the slowest {len(kept) - len(ordered)} settings, which {seconds:g} s do not suffice for")
    turn = min(_BLOCK[1], max(_BLOCK[0], seconds / (_ROUNDS * len(ordered))))
    rounds = int(seconds / sum(turn_of(c, turn) for c in ordered))
    return [c for c in kept if c in ordered], turn, max(_FEWEST_ROUNDS, rounds)


def _turn(call: Callable[[], object], count: int, rate: float | None) -> tuple[np.ndarray, float]:
    """The times of ``count`` calls, the first left out, and the processor time of one."""
    times = np.empty(count)
    began, due = process_time(), perf_counter()
    for index in range(count):
        start = perf_counter()
        call()
        times[index] = perf_counter() - start
        if rate is not None:
            due += 1 / rate
            sleep(max(0.0, due - perf_counter()))
    return times[1:], (process_time() - began) / count


def _measurement(candidate: Candidate, threads: int, turns: Sequence[tuple[np.ndarray, float]]) -> Measurement:
    rounds = tuple(float(np.median(times)) for times, _ in turns)
    every = np.concatenate([times for times, _ in turns])
    return Measurement(
        candidate=candidate,
        threads=threads,
        latency=float(np.median(rounds)),
        p50=float(np.percentile(every, 50)),
        p99=float(np.percentile(every, 99)),
        cpu=float(np.median([cpu for _, cpu in turns])),
        calls=len(every),
        rounds=rounds,
    )
