"""How the calls of a thread come, and whether the threads that would help with the next one are worth waking.

A thread of ONNX Runtime's pool spins for some microseconds after its work, and then sleeps. A call that comes later has
to wake it. This costs little where the caller was busy meanwhile, and a tenth of a millisecond or more where it slept
too: in a virtual machine the scheduler then often wakes the thread on the caller's own core (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns

_SLEPT_NS = 200_000
"""Sleep of the caller up to which waking another thread costs little: an idle core is polled for so long."""
_CALLS_AFTER_SLEEP = 4
"""Calls that are made alone after a sleep: waking the threads for a shorter burst costs more than they save."""


class Pace:
    """The pace of one thread's calls.

    ``spin_us`` is how long an idle thread of the pool spins. ``clock`` gives nanoseconds, ``cpu_clock`` those that this
    thread was on a processor.
    """

    def __init__(
        self, spin_us: int, clock: Callable[[], int] = perf_counter_ns, cpu_clock: Callable[[], int] = thread_time_ns
    ):
        self._spin = 1000 * spin_us
        self._clock, self._cpu_clock = clock, cpu_clock
        self._end = self._start = -(10**18)  # the first call comes after a sleep
        self._start_cpu = 0
        self._alone = 0

    def choosing(
        self, alone: Callable[[], None], together: Callable[[], None], *, wake_if_busy: bool
    ) -> Callable[[], None]:
        """A call that is made ``alone`` or ``together`` with the pool's threads, as the calls come.

        Together while the threads are awake; where they sleep and the caller was busy, if ``wake_if_busy``; and alone
        after the caller slept.
        """
        clock, spin, long = self._clock, self._spin, max(self._spin, _SLEPT_NS)

        def run() -> None:
            gap = clock() - self._end
            if gap > long and self._has_slept():
                self._alone = _CALLS_AFTER_SLEEP
            if self._alone:
                self._alone -= 1
                alone()
            elif gap > spin and not wake_if_busy:
                alone()
            else:
                together()
            self._end = clock()

        return run

    def _has_slept(self) -> bool:
        """Whether this thread slept for long since it was last asked, which a tight loop does not do."""
        now, cpu = self._clock(), self._cpu_clock()
        slept = now - self._start - (cpu - self._start_cpu)
        self._start, self._start_cpu = now, cpu
        return slept > _SLEPT_NS
