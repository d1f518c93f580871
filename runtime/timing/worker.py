"""The process of one contender, which does what it is asked over its standard input.

Requests and answers are pickles: a request is the name of a method of ``Commands`` and its arguments, an answer whether
that succeeded, and the result or the reason why not.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from .timer import Block, Call, time_block

Feed = dict[str, np.ndarray]
MakeCall = Callable[[Feed], Call]
"""From rows by the inputs' names to a call without arguments that runs the model on them.

A contender's factory, ``factory(**arguments)``, opens the model and returns one. The call returns the output, or all
outputs in the file's order, as arrays.
"""


class Unsuitable(Exception):
    """This contender cannot run this file; the message says why."""


class Commands:
    """What a contender's process can be asked to do."""

    make_call: MakeCall
    call: Call

    def open(self, factory: str, arguments: Mapping[str, Any]) -> None:
        """Open the model. ``factory`` is ``package.module:function``."""
        module, _, name = factory.partition(":")
        self.make_call = getattr(import_module(module), name)(**arguments)

    def load(self, rows: Feed, expected: Sequence[np.ndarray] | None, tolerance: float) -> float:
        """Take the rows for the calls to come; how far the outputs are from the expected ones.

        The distance is the largest over all outputs, as a share of the output's largest expected value. Raises
        Unsuitable: it is beyond the tolerance, so that a wrong answer is never timed.
        """
        self.call = self.make_call({name: _fresh(values) for name, values in rows.items()})
        outputs = self.call()
        if expected is None:
            return 0.0
        outputs = _as_list(outputs)
        if len(expected) != len(outputs):
            raise Unsuitable(f"it gives {len(outputs)} outputs, and {len(expected)} are expected")
        distance = max(_distance(output, reference) for output, reference in zip(outputs, expected, strict=True))
        if not distance <= tolerance:
            message = f"{distance:.2g} of the largest output away, allowed {tolerance:g}"
            raise Unsuitable(f"it gives a wrong answer: {message}")
        return distance

    def time(self, calls: int, core: int | None = None, **how: Any) -> Block:
        """``time_block``, with its options. The calls start on the given one of the usable cores, and may leave it."""
        if core is not None and hasattr(os, "sched_setaffinity"):
            usable = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {sorted(usable)[core % len(usable)]})
            os.sched_setaffinity(0, usable)  # threads that start later are free
        return time_block(self.call, calls, **how)


def _fresh(values: np.ndarray) -> np.ndarray:
    """A copy as a user would make it: an unpickled array has a dtype object of its own, which ``Session`` looks at."""
    copy = np.empty(values.shape, values.dtype.type)
    copy[...] = values
    return copy


def _as_list(outputs: np.ndarray | Mapping[str, Any] | Sequence[Any]) -> list[np.ndarray]:
    if isinstance(outputs, np.ndarray):
        return [outputs]
    return [np.asarray(output) for output in (outputs.values() if isinstance(outputs, Mapping) else outputs)]


def _distance(output: np.ndarray, reference: np.ndarray) -> float:
    if output.shape != reference.shape:
        raise Unsuitable(f"it gives an output of shape {output.shape}, and {reference.shape} is expected")
    finite = np.isfinite(reference)
    if not np.array_equal(output[~finite], reference[~finite], equal_nan=True):
        return np.inf
    reference = reference[finite]
    if not reference.size:
        return 0.0
    largest = float(np.abs(reference).max())
    distance = float(np.abs(output[finite].astype(np.float64) - reference).max())
    return distance / largest if largest else distance


def _first_line(error: Exception) -> str:
    """An error of a library, which may be pages long, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def main() -> None:
    """Answer requests until the standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints does not get between the answers
    _end_with_parent()
    commands = Commands()
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = True, getattr(commands, name)(**arguments)
        except Exception as error:
            answer = False, str(error) if isinstance(error, Unsuitable) else _first_line(error)
        pickle.dump(answer, answers)
        answers.flush()


def _end_with_parent() -> None:
    """Where a parent is killed while this process is stopped, nothing else would ever end it."""
    if sys.platform == "linux":  # pragma: no branch - not on other systems
        from ctypes import CDLL
        from signal import SIGKILL

        set_parent_death_signal = 1
        CDLL(None).prctl(set_parent_death_signal, SIGKILL)
