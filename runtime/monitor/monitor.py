"""A check in turns: whether the last one holds, and counters of all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.live.report import Finding
from runtime.prometheus import head, line

PROVED, FAILED, ERROR = "proved", "failed", "error"
"""How a turn ends: it holds, it does not, or it could not be carried out."""
_INTERVALS = 2.0
"""Intervals after which a result is too old to rely on."""


class Verdict(Protocol):
    """What a check reports, as DeviceReport and LiveReport do."""

    @property
    def proved(self) -> bool:
        """Whether it holds."""
        ...

    @property
    def findings(self) -> Sequence[Finding]:
        """Why it does not."""
        ...

    @property
    def causes(self) -> Sequence[str]:
        """What explains the findings."""
        ...


@dataclass(frozen=True)
class Turn:
    """One check and how it ended."""

    result: str
    """"proved", "failed" or "error"."""
    words: tuple[str, ...]
    """Its findings and their causes, or the error."""
    at: float
    """When it ended, seconds since 1970."""
    seconds: float
    report: Verdict | None
    """None where it could not be carried out."""


class Monitor:
    """Repeats a check every ``every`` seconds; other threads may ask for the state meanwhile.

    ``clock`` is a clock that never goes back, ``now`` the time of day, both in seconds.
    """

    def __init__(
        self,
        check: Callable[[], Verdict],
        every: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ):
        self._check, self._every, self._clock, self._now = check, every, clock, now
        self._lock = threading.Lock()
        self._counts = dict.fromkeys((PROVED, FAILED, ERROR), 0)
        self._last: Turn | None = None
        self._ended = 0.0
        self._last_success: float | None = None

    def turn(self) -> Turn:
        """Check once. No error of the check ends it: it is the turn's result."""
        start = self._clock()
        report: Verdict | None = None
        try:
            report = self._check()
            result = PROVED if report.proved else FAILED
            words = (*(finding.words for finding in report.findings), *(f"cause: {cause}" for cause in report.causes))
        except Exception as error:  # whatever it is: a check that cannot be carried out does not end the turns
            result, words = ERROR, (str(error) or type(error).__name__,)
        end = self._clock()
        turn = Turn(result, words, self._now(), end - start, report)
        with self._lock:
            self._counts[result] += 1
            self._last, self._ended = turn, end
            if result == PROVED:
                self._last_success = turn.at
        return turn

    @property
    def state(self) -> tuple[bool, str]:
        """Whether the last turn holds and is recent, and in words why or why not."""
        with self._lock:
            last, age = self._last, self._clock() - self._ended
        if last is None:
            return False, "not checked yet"
        if last.result != PROVED:
            return False, f"{last.result}: {'; '.join(last.words)}"
        if age > _INTERVALS * self._every + last.seconds:
            return False, f"the last check is {age:.0f} s old, and one is due every {self._every:g} s"
        return True, "proved"

    def metrics(self) -> str:
        """The counters in Prometheus' text format."""
        return "\n".join(self._metrics()) + "\n"

    def _metrics(self) -> Iterator[str]:
        ready, _ = self.state
        with self._lock:
            counts, last, success = dict(self._counts), self._last, self._last_success
        name = "mlpx_verify_checks_total"
        yield from head(name, "counter", "Checks, by how they ended; error: it could not be carried out.")
        for result, count in counts.items():
            yield line(name, count, result=result)
        for name, description, value in (
            ("proved", "1 where the last check holds.", None if last is None else int(last.result == PROVED)),
            ("ready", "1 where the last check holds and is recent.", int(ready)),
            ("seconds", "How long the last check took.", None if last is None else last.seconds),
            ("last_success_timestamp_seconds", "When a check held last, since 1970.", success),
        ):
            if value is not None:
                yield from head(f"mlpx_verify_{name}", "gauge", description)
                yield line(f"mlpx_verify_{name}", value)
