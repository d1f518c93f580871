"""Several contenders, each in a process of its own, measured in turn.

A contender that is not running is stopped (SIGSTOP, where the system has it), so that threads which spin while they
wait for work do not take the processor from the one that runs.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import numpy as np

from .timer import Timings, time_briefly, time_rounds

_START = "import sys; sys.path[:] = sys.argv[1:]; from runtime.timing.worker import main; main()"
_STOP, _CONTINUE = getattr(signal, "SIGSTOP", None), getattr(signal, "SIGCONT", None)
TOLERANCE = 1e-4
"""Of a float32 output, as a share of the largest: well above rounding, well below a wrong weight or half precision."""
_END = 2.0
"""Seconds for a process to end by itself."""


class ContestError(RuntimeError):
    """A contender's process could not do what it was asked."""


@dataclass(frozen=True)
class Contender:
    """Something that runs a model, made in its process by ``factory(**arguments)``; see ``worker.MakeCall``."""

    name: str
    factory: str
    """``package.module:function``"""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    path: tuple[str, ...] = ()
    """More folders to look for its packages in."""


@dataclass(frozen=True)
class LeftOut:
    """A contender that is not timed."""

    name: str
    reason: str


class ContenderProcess:
    """The process of one contender. It starts at once, and does nothing until it is asked."""

    def __init__(self, contender: Contender):
        self.name: str = contender.name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        command = [sys.executable, "-c", _START, *sys.path, *contender.path]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors)

    def send(self, request: str, **arguments: Any) -> None:
        """Wake the process and give it work; ``receive`` waits for the result."""
        assert self._process.stdin is not None
        self._wake()
        try:
            pickle.dump((request, arguments), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # ``receive`` finds that the process has ended, and says how

    def receive(self) -> Any:
        """The result of the request; then the process is stopped. Raises ContestError: why there is no result."""
        assert self._process.stdout is not None
        try:
            succeeded, result = pickle.load(self._process.stdout)
        except EOFError:
            raise ContestError(f"its process ended with code {self._process.wait()}: {self._last_line()}") from None
        if _STOP is not None:  # pragma: no branch - not on Windows
            self._process.send_signal(_STOP)
        if not succeeded:
            raise ContestError(result)
        return result

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request and wait for its result. Raises ContestError: why there is none."""
        self.send(request, **arguments)
        return self.receive()

    def finish(self) -> None:
        """Let the process end by itself, as it does without requests to come; ``close`` waits for it."""
        assert self._process.stdin is not None
        self._wake()
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """End the process, by force where it does not end by itself, and close its streams."""
        assert self._process.stdout is not None
        self.finish()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:  # in a call that does not end
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _wake(self) -> None:
        if _CONTINUE is not None:  # pragma: no branch - not on Windows
            self._process.send_signal(_CONTINUE)

    def _last_line(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


class Contest:
    """Contenders that have opened their models; use it in a ``with`` block. Those that cannot are in ``left_out``."""

    def __init__(self, contenders: Sequence[Contender]):
        self.left_out: list[LeftOut] = []
        self.ready: dict[str, ContenderProcess] = {}
        """Those that have rows and compute the right outputs for them."""
        self._open: dict[str, ContenderProcess] = {}
        try:
            for contender in contenders:
                self._open[contender.name] = process = ContenderProcess(contender)
                process.send("open", factory=contender.factory, arguments=contender.arguments)
            for name, process in list(self._open.items()):
                try:
                    process.receive()
                except ContestError as error:
                    self.left_out.append(LeftOut(name, str(error)))
                    self._open.pop(name).close()
        except BaseException:
            self.close()
            raise

    def load(
        self,
        rows: Mapping[str, np.ndarray],
        expected: Sequence[np.ndarray] | None,
        *,
        tolerance: float = TOLERANCE,
        only: Sequence[str] | None = None,
    ) -> tuple[dict[str, float], list[LeftOut]]:
        """Give all, or ``only`` some, the same rows, and compare their outputs with the expected ones.

        Returns how far each is from them, as a share of the largest output, and those that are left out: they cannot
        run these rows, or their answer is wrong.
        """
        distances: dict[str, float] = {}
        left_out: list[LeftOut] = []
        self.ready = {}
        for name, process in self._open.items():
            if only is not None and name not in only:
                continue
            try:
                distances[name] = process.ask("load", rows=rows, expected=expected, tolerance=tolerance)
                self.ready[name] = process
            except ContestError as error:
                left_out.append(LeftOut(name, str(error)))
        return distances, left_out

    def time_briefly(self, block: float) -> dict[str, float]:
        """Rough seconds per call of each contender, from calls for a tenth of ``block`` seconds."""
        return {
            name: time_briefly(lambda calls, process=process: process.ask("time", calls=calls), 0.1 * block).median
            for name, process in self.ready.items()
        }

    def time_rounds(
        self,
        rounds: int,
        calls: Mapping[str, int],
        *,
        warm_up: float = 0.003,
        interval: float | None = None,
        busy: float = 0.0,
        after: Callable[[int], object] = lambda _: None,
    ) -> dict[str, Timings]:
        """Every contender's calls, back to back or paced; see ``timer.time_block`` and ``timer.time_rounds``.

        All start on the first core: cores that share their parts with other machines are not equally fast, and a
        process tends to stay where it is. ONNX Runtime's defaults pin their threads to the other cores.
        """
        options = {"warm_up": warm_up, "interval": interval, "busy": busy, "core": 0}
        runners = {
            name: partial(process.ask, "time", calls=calls[name], **options) for name, process in self.ready.items()
        }
        return time_rounds(runners, rounds, after)

    def close(self) -> None:
        """End all processes."""
        for process in self._open.values():
            process.finish()  # all at once, so that each is waited for while the others end
        for process in self._open.values():
            process.close()
        self._open, self.ready = {}, {}

    def __enter__(self) -> Contest:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
