"""Several contenders, each in a process of its own, measured in turn.

A contender that is not running is stopped (SIGSTOP, where the system has it), so that threads which wait busily for
more work do not take the processor from the one that runs.
"""

from __future__ import annotations

import pickle
import random
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from .timer import Block, Timings

_START = "import sys; sys.path[:] = sys.argv[1:]; from runtime.timing.worker import main; main()"
_STOP, _GO = getattr(signal, "SIGSTOP", None), getattr(signal, "SIGCONT", None)
TOLERANCE = 1e-4
"""Of a float32 output, as a share of the largest: well above rounding, well below a wrong weight or half precision."""


class ContestError(RuntimeError):
    """A contender's process could not do what it was told."""


@dataclass(frozen=True)
class Contender:
    """Something that runs a model, made in its process by ``factory(**arguments)``; see ``worker.Bind``."""

    name: str
    factory: str
    """``package.module:function``"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    """Folders where its packages are looked for besides."""


@dataclass(frozen=True)
class LeftOut:
    """A contender that is not timed."""

    name: str
    reason: str


class Worker:
    """The process of one contender. It starts at once, and does nothing until it is asked."""

    def __init__(self, contender: Contender):
        self.name = contender.name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        command = [sys.executable, "-c", _START, *sys.path, *contender.path]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors)

    def tell(self, request: str, **arguments: Any) -> None:
        """Wake the process and give it work; ``answer`` waits for the result."""
        assert self._process.stdin is not None
        if _GO is not None:
            self._process.send_signal(_GO)
        try:
            pickle.dump((request, arguments), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # ``answer`` finds the process ended, and says how

    def answer(self) -> Any:
        """What the request gave; the process is stopped then. Raises ContestError: the reason why it could not."""
        assert self._process.stdout is not None
        try:
            went_well, result = pickle.load(self._process.stdout)
        except EOFError:
            raise ContestError(f"its process ended with code {self._process.wait()}: {self._last_words()}") from None
        if _STOP is not None:
            self._process.send_signal(_STOP)
        if not went_well:
            raise ContestError(result)
        return result

    def ask(self, request: str, **arguments: Any) -> Any:
        self.tell(request, **arguments)
        return self.answer()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class Contest:
    """Contenders that have opened their models; use it in a ``with`` block. Those that cannot are in ``left_out``."""

    def __init__(self, contenders: Sequence[Contender]):
        self.left_out: list[LeftOut] = []
        self._folder = tempfile.TemporaryDirectory(prefix="mlpx-bench-")
        self._opened: dict[str, Worker] = {}
        self._ready: dict[str, Worker] = {}
        try:
            for contender in contenders:
                self._opened[contender.name] = worker = Worker(contender)
                worker.tell("open", factory=contender.factory, arguments=contender.arguments)
            for worker in list(self._opened.values()):
                self._kept(worker, worker.answer)
        except BaseException:
            self.close()
            raise

    def take(
        self,
        rows: Mapping[str, np.ndarray],
        expected: Sequence[np.ndarray] | None,
        *,
        tolerance: float = TOLERANCE,
        only: Sequence[str] | None = None,
    ) -> tuple[dict[str, float], list[LeftOut]]:
        """Give all, or ``only`` some, the same rows, and compare what they make of them with what is expected.

        Gives how far each is from it, as a share of the largest output, and those that are left out: they cannot run
        these rows, or their answer is wrong.
        """
        given, wanted = Path(self._folder.name) / "rows.npz", None
        _save(given, rows)
        if expected is not None:
            wanted = Path(self._folder.name) / "expected.npz"
            _save(wanted, {str(index): array for index, array in enumerate(expected)})
        found: dict[str, float] = {}
        left_out: list[LeftOut] = []
        self._ready = {}
        for name, worker in self._opened.items():
            if only is not None and name not in only:
                continue
            try:
                found[name] = worker.ask("take", rows=given, expected=wanted, tolerance=tolerance)
                self._ready[name] = worker
            except ContestError as error:
                left_out.append(LeftOut(name, str(error)))
        return found, left_out

    def tried(self, block: float) -> dict[str, float]:
        """Seconds of a call of each contender, roughly: by as many as fit into a tenth of ``block`` seconds."""
        seconds = {}
        for name, worker in self._ready.items():
            first = worker.ask("time", calls=1, warm_up=0.0).median
            seconds[name] = worker.ask("time", calls=max(1, round(0.1 * block / first)), warm_up=0.0).median
        return seconds

    def rounds(
        self,
        rounds: int,
        calls: Mapping[str, int],
        *,
        warm_up: float = 0.003,
        seed: int = 0,
        after: Callable[[], None] = lambda: None,
    ) -> dict[str, Timings]:
        """So many rounds, in each of which every contender makes its calls, in another order every time.

        All start on the first core: cores that share their parts with other machines are not equally fast, and a
        process tends to stay where it is. ONNX Runtime's defaults pin their threads to the other cores.
        """

        def work(worker: Worker, turn: int) -> Block:
            return worker.ask("time", calls=calls[worker.name], warm_up=warm_up, core=0)

        return self._in_turn(rounds, seed, after, work)

    def paced(self, rounds: int, calls: int, interval: float, *, seed: int = 0) -> dict[str, Timings]:
        """The same at one call every ``interval`` seconds."""

        def work(worker: Worker, turn: int) -> Block:
            return worker.ask("pace", calls=calls, interval=interval)

        return self._in_turn(rounds, seed, lambda: None, work)

    def together(self, calls: int) -> list[Block]:
        """Every contender's calls at the same time."""
        for worker in self._ready.values():
            worker.tell("time", calls=calls, warm_up=0.01)
        return [worker.answer() for worker in self._ready.values()]

    def close(self) -> None:
        for worker in self._opened.values():
            worker.close()
        self._opened, self._ready = {}, {}
        self._folder.cleanup()

    def __enter__(self) -> Contest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_turn(
        self, rounds: int, seed: int, after: Callable[[], None], work: Callable[[Worker, int], Block]
    ) -> dict[str, Timings]:
        order, rng = list(self._ready.values()), random.Random(seed)
        blocks: dict[str, list[Block]] = {name: [] for name in self._ready}
        for turn in range(rounds):
            rng.shuffle(order)
            for worker in order:
                blocks[worker.name].append(work(worker, turn))
            after()
        return {name: Timings(tuple(found)) for name, found in blocks.items()}

    def _kept(self, worker: Worker, work: Callable[[], Any]) -> None:
        try:
            work()
        except ContestError as error:
            self.left_out.append(LeftOut(worker.name, str(error)))
            self._opened.pop(worker.name).close()


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """``numpy.savez`` for names that are not identifiers, such as "file"."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)
