"""How the system schedules the threads that help a caller."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress


@contextmanager
def threads_that_never_preempt() -> Generator[None]:
    """Threads that this one starts in the block wait for a core, instead of taking it from whoever runs there.

    An idle virtual machine's scheduler often wakes a thread on the core of the thread that woke it. With the usual
    policy it then takes the core from the caller, who waits for it: a call on two threads took twice as long as on one.
    They get Linux' policy for batch jobs (``SCHED_BATCH``) instead, with which the caller does their work first. A
    caller of another policy, as of a real-time one, and other systems are left as they are.
    """
    usual = False
    if sys.platform == "linux":  # pragma: no branch - not on other systems
        with suppress(OSError):  # a sandbox may refuse it
            usual = os.sched_getscheduler(0) == os.SCHED_OTHER
            if usual:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        if usual:
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
