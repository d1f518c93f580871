"""The process of one contender. It does nothing but what it is told over its standard input.

Requests and answers are pickles: a request is the name of a method of ``Hand`` and its arguments, an answer whether
that went well, and the result or the reason why not.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np

from .timer import Block

Call = Callable[[], Any]
Feed = dict[str, np.ndarray]
Bind = Callable[[Feed], Call]
"""From rows by the inputs' names to a call without arguments that runs the model on them.

A contender's factory, ``factory(**arguments)``, opens the model and gives one. What a call gives is the output, or all
outputs in the file's order, as arrays.
"""


class Unsuitable(Exception):
    """This contender cannot run this file; the message says why."""


class Hand:
    """What a worker can be told."""

    bind: Bind
    call: Call

    def open(self, factory: str, arguments: Mapping[str, Any]) -> None:
        """Open the model. ``factory`` is ``package.module:function``."""
        module, _, name = factory.partition(":")
        self.bind = getattr(import_module(module), name)(**arguments)

    def take(self, rows: Path, expected: Path | None, tolerance: float) -> float:
        """Take the rows of an ``.npz`` file for the calls to come; how far the outputs are from what is expected.

        The distance is the largest over all outputs, as a share of the output's largest expected value. Raises
        Unsuitable: it is beyond the tolerance, so that a wrong answer is never timed.
        """
        self.call = self.bind(_arrays(rows))
        outputs = self.call()
        if expected is None:
            return 0.0
        outputs = _listed(outputs)
        wanted = list(_arrays(expected).values())
        if len(wanted) != len(outputs):
            raise Unsuitable(f"it gives {len(outputs)} outputs, and {len(wanted)} are expected")
        apart = max(_apart(output, exact) for output, exact in zip(outputs, wanted, strict=True))
        if not apart <= tolerance:
            raise Unsuitable(f"it gives a wrong answer: {apart:.2g} of the largest output away, allowed {tolerance:g}")
        return apart

    def time(self, calls: int, warm_up: float, core: int | None = None) -> Block:
        """Time so many calls, after at least one and as many as fit into ``warm_up`` seconds that are not timed.

        They start on the given one of the usable cores, and may leave it.
        """
        if core is not None:
            _move_to(core)
        call, clock = self.call, perf_counter
        warm = clock() + warm_up
        call()
        while clock() < warm:
            call()
        seconds = np.empty(calls)
        cpu = process_time()
        for index in range(calls):
            start = clock()
            call()
            seconds[index] = clock() - start
        return Block(seconds, (process_time() - cpu) / calls)

    def pace(self, calls: int, interval: float) -> Block:
        """Time so many calls at one call every ``interval`` seconds; the pauses' use of the processor counts."""
        call, clock = self.call, perf_counter
        call()
        sleep(interval)
        seconds = np.empty(calls)
        cpu, begin = process_time(), clock()
        for index in range(calls):
            start = clock()
            call()
            seconds[index] = clock() - start
            sleep(max(0.0, begin + (index + 1) * interval - clock()))
        return Block(seconds, (process_time() - cpu) / calls)


def _move_to(core: int) -> None:
    """Put this thread on one of its cores, counted from 0 and around; threads that it starts later are free."""
    if hasattr(os, "sched_setaffinity"):
        usable = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {sorted(usable)[core % len(usable)]})
        os.sched_setaffinity(0, usable)


def _arrays(path: Path) -> Feed:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def _listed(outputs: Any) -> list[np.ndarray]:
    if isinstance(outputs, np.ndarray):
        return [outputs]
    return [np.asarray(output) for output in (outputs.values() if isinstance(outputs, Mapping) else outputs)]


def _apart(output: np.ndarray, exact: np.ndarray) -> float:
    if output.shape != exact.shape:
        raise Unsuitable(f"it gives an output of shape {output.shape}, and {exact.shape} is expected")
    finite = np.isfinite(exact)
    if not np.array_equal(output[~finite], exact[~finite], equal_nan=True):
        return np.inf
    exact = exact[finite]
    if not exact.size:
        return 0.0
    largest = float(np.abs(exact).max())
    apart = float(np.abs(output[finite].astype(np.float64) - exact).max())
    return apart / largest if largest else apart


def _told(error: Exception) -> str:
    """An error of a library, which may be pages long, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def main() -> None:
    """Answer requests until the standard input ends."""
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints does not get between the answers
    _end_with_parent()
    hand = Hand()
    while True:
        try:
            name, arguments = pickle.load(inbox)
        except EOFError:
            return
        try:
            answer = True, getattr(hand, name)(**arguments)
        except Exception as error:
            answer = False, str(error) if isinstance(error, Unsuitable) else _told(error)
        pickle.dump(answer, outbox)
        outbox.flush()


def _end_with_parent() -> None:
    """Where a parent is killed while this process is stopped, nothing else would ever end it."""
    if sys.platform == "linux":
        from ctypes import CDLL
        from signal import SIGKILL

        set_parent_death_signal = 1
        CDLL(None).prctl(set_parent_death_signal, SIGKILL)
