"""Work in forked children, which a crash, an endless loop or too much memory ends without ending the run.

What is imported stays imported: a child begins in milliseconds where a process with torch needs seconds. The parent
must have no threads, since a child would wait for locks that they hold.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Record = dict[str, Any]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables of the environment that are 1 where numpy and torch are to start no threads."""


@dataclass(frozen=True)
class Ending:
    """How a child ended that did not finish its job: by a signal, with an exit code, or stopped for its time."""

    words: str
    signal: int = 0
    timed_out: bool = False
    printed: str = ""
    """The last that it printed."""


@dataclass
class _Child(Generic[Job]):
    pid: int
    job: Job
    pipe: int
    deadline: float
    printed: Path
    rest: bytes = b""
    records: list[Record] = field(default_factory=list[Record])


def without_threads(module: str) -> None:
    """Begin anew as ``python -m module`` in an environment where numpy and torch start no threads, if need be."""
    if any(os.environ.get(name) != "1" for name in ONE_THREAD):
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])


def threads() -> int:
    """How many threads this process has."""
    return len(list(Path("/proc/self/task").iterdir()))


def forked(
    jobs: deque[Job],
    work: Callable[[Job], Iterator[Record]],
    folder: Path,
    *,
    processes: int,
    seconds: float,
    gigabytes: float = 4,
) -> Generator[tuple[Job, Record | Ending | None], None, None]:
    """Do each job in a child of its own; gives its records as they come, then None or how it ended instead.

    A child that is silent for ``seconds`` is killed. ``gigabytes`` of memory may be added to the parent's. Jobs may be
    appended meanwhile. ``folder`` takes what the children print.
    """
    if threads() > 1:
        raise RuntimeError(f"a process that forks must have one thread, and this has {threads()}")
    children: dict[int, _Child[Job]] = {}
    with selectors.DefaultSelector() as waiting:
        try:
            while jobs or children:
                while jobs and len(children) < processes:
                    child = _begun(jobs.popleft(), work, folder, seconds, gigabytes)
                    children[child.pipe] = child
                    waiting.register(child.pipe, selectors.EVENT_READ)
                first = min(child.deadline for child in children.values())
                ready = [key.fd for key, _ in waiting.select(max(0.0, first - monotonic()))]
                for pipe in ready:
                    child = children[pipe]
                    received = os.read(pipe, 2**16)
                    child.deadline = monotonic() + seconds
                    *lines, child.rest = (child.rest + received).split(b"\n")
                    for line in lines:
                        yield child.job, json.loads(line)
                    if not received:
                        waiting.unregister(pipe)
                        del children[pipe]
                        yield child.job, _ended(child)
                for child in [each for each in children.values() if each.deadline < monotonic()]:
                    waiting.unregister(child.pipe)
                    del children[child.pipe]
                    os.kill(child.pid, signal.SIGKILL)
                    _ended(child)
                    words = f"silent for {seconds:.0f} s"
                    yield child.job, Ending(words, timed_out=True, printed=_tail(child.printed))
        finally:
            for child in children.values():
                os.kill(child.pid, signal.SIGKILL)
                _ended(child)


def _begun(
    job: Job, work: Callable[[Job], Iterator[Record]], folder: Path, seconds: float, gigabytes: float
) -> _Child[Job]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    printed = folder / f"printed-{reading}.txt"
    pid = os.fork()
    if pid:
        os.close(writing)
        return _Child(pid, job, reading, monotonic() + seconds, printed)
    try:
        os.close(reading)
        output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for record in work(job):
            line = json.dumps(record).encode() + b"\n"
            while line:
                line = line[os.write(writing, line) :]
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _ended(child: _Child[Any]) -> Ending | None:
    """Wait for a child; None where it finished its job."""
    os.close(child.pipe)
    status = os.waitpid(child.pid, 0)[1]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Ending(f"signal {number} ({signal.Signals(number).name})", number, printed=_tail(child.printed))
    code = os.waitstatus_to_exitcode(status)
    return Ending(f"exit code {code}", printed=_tail(child.printed)) if code else None


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""
