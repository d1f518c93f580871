"""How long calls of ``Session`` take with each of several settings, all open in this process and measured in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.session.session import Session
from runtime.session.tuning_file import Measured

from .candidates import Candidate
from .timer import Block, Call, Timings, no_progress, time_block, time_briefly, time_rounds

_ROUNDS = 9
_FEWEST_ROUNDS = 3
_SHORTEST_BLOCK, _LONGEST_BLOCK = 0.005, 0.15
"""Of a candidate without a rate, in seconds."""
_FEWEST_CALLS = 4
"""Of a block, with the first, which is not timed."""
_BRIEFLY = 0.05
_HOPELESS = 2.0
"""Times the fastest of its file, in brief calls beforehand, from which a candidate is left out."""


def fewest_calls() -> int:
    """Of a candidate, however few seconds there are."""
    return _FEWEST_ROUNDS * _FEWEST_CALLS


def measure(
    candidates: Sequence[Candidate],
    feed: Mapping[str, np.ndarray],
    *,
    rate: float | None = None,
    seconds: float = 20.0,
    progress: Callable[[int, int], object] = no_progress,
) -> tuple[dict[Candidate, Measured], list[str]]:
    """Measure every candidate on ``feed``, float32 (batch, *row) by the inputs' names; what was left out, in words.

    With ``rate`` calls come so many times a second, else back to back. All candidates are open at once, and have a
    block of calls in each round. Those that brief calls show to be hopeless, and the slowest where ``seconds`` do not
    suffice for all, are left out, but never the first of a file, which has the rule's settings; where even those need
    longer, it takes longer. Raises what ``Session`` raises.
    """
    left_out: list[str] = []
    sessions: dict[Candidate, Session] = {}
    calls: dict[Candidate, Call] = {}
    estimates: dict[Candidate, float] = {}
    rules = _first_of_each_file(candidates)
    with ExitStack() as stack:
        for candidate in candidates:
            if candidate in rules or _fits_in_memory(candidate.path):
                session = Session(candidate.path, "cpu", tuning=None, **candidate.settings.chosen())
                sessions[candidate] = stack.enter_context(session)
                calls[candidate] = call = _caller(session, feed)
                estimates[candidate] = float(time_briefly(partial(time_block, call), _BRIEFLY, 3).seconds.min())
        if len(sessions) < len(candidates):
            count = len(candidates) - len(sessions)
            left_out.append(f"{count} settings that this machine has not the memory to hold open beside the others")
        kept = _promising(estimates, left_out)
        for candidate in sessions.keys() - kept:
            sessions[candidate].close()
        kept, block, rounds = _plan(kept, estimates, rate, seconds, left_out)
        runners: dict[Candidate, Callable[[], Block]] = {}
        for candidate in kept:
            count = max(_FEWEST_CALLS, round(block * rate if rate else block / estimates[candidate])) - 1
            runners[candidate] = partial(time_block, calls[candidate], count, interval=1 / rate if rate else None)
        timings = time_rounds(runners, rounds, lambda done: progress(done, rounds))
        batch = len(next(iter(feed.values())))
        found = {each: _measured(each, sessions[each], timings[each], batch, paced=rate is not None) for each in kept}
        return found, left_out


def _fits_in_memory(path: Path) -> bool:
    """Whether a session of the file, which may hold its weights twice, leaves half of the free memory; on Linux."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():  # pragma: no cover - not on Linux
        return True
    line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    size = sum(file.stat().st_size for file in (path, Path(f"{path}.data")) if file.is_file())
    return 4 * size < int(line.split()[1]) * 1024


def _caller(session: Session, feed: Mapping[str, np.ndarray]) -> Call:
    """A user's call: ``predict`` where the model has one output."""
    rows: Any = dict(feed) if len(feed) > 1 else next(iter(feed.values()))
    return partial(session.predict if len(session.outputs) == 1 else session.run, rows)


def _first_of_each_file(candidates: Iterable[Candidate]) -> set[Candidate]:
    return set({candidate.kind: candidate for candidate in reversed(list(candidates))}.values())


def _promising(estimates: Mapping[Candidate, float], left_out: list[str]) -> list[Candidate]:
    """All but those that take more than twice as long as the fastest of their file."""
    rules = _first_of_each_file(estimates)
    fastest = {rule.kind: min(time for each, time in estimates.items() if each.kind == rule.kind) for rule in rules}
    kept = [each for each, time in estimates.items() if time <= _HOPELESS * fastest[each.kind] or each in rules]
    if len(kept) < len(estimates):
        left_out.append(f"{len(estimates) - len(kept)} settings that took twice the time of the fastest at warm-up")
    return kept


def _plan(
    candidates: list[Candidate],
    estimates: Mapping[Candidate, float],
    rate: float | None,
    seconds: float,
    left_out: list[str],
) -> tuple[list[Candidate], float, int]:
    """The candidates that ``seconds`` suffice for, the seconds of a block, and the number of rounds."""

    def round_of(candidates: Sequence[Candidate], block: float) -> float:
        pause = 1 / rate if rate else 0.0
        return sum(max(block, _FEWEST_CALLS * max(estimates[each], pause)) for each in candidates)

    rules = _first_of_each_file(candidates)
    ordered = sorted(candidates, key=lambda candidate: (candidate not in rules, estimates[candidate]))
    while ordered[-1] not in rules and _FEWEST_ROUNDS * round_of(ordered, _SHORTEST_BLOCK) > seconds:
        ordered.pop()
    if len(ordered) < len(candidates):
        count = len(candidates) - len(ordered)
        left_out.append(f"the slowest {count} settings, which {seconds:g} s do not suffice for")
    block = min(_LONGEST_BLOCK, max(_SHORTEST_BLOCK, seconds / (_ROUNDS * len(ordered))))
    rounds = max(_FEWEST_ROUNDS, int(seconds / round_of(ordered, block)))
    return [candidate for candidate in candidates if candidate in ordered], block, rounds


def _measured(candidate: Candidate, session: Session, timings: Timings, batch: int, *, paced: bool) -> Measured:
    settings = session.settings
    from_rows = settings.idle_from if paced else settings.whole_from
    if batch >= settings.shared_from and settings.workers > 1:
        threads = settings.workers
    else:
        threads = settings.threads if batch >= from_rows else 1
    return Measured(
        candidate.settings,
        threads,
        latency=timings.median,
        p50=timings.quantile(0.5),
        p99=timings.quantile(0.99),
        cpu=timings.cpu,
        calls=timings.calls,
        rounds=timings.rounds,
    )
