"""What else keeps the processor busy while something is measured; on Linux, as the kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep, thread_time

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_BUSY_FIELDS = (1, 2, 3, 6, 7)
"""Of a core's line in /proc/stat: user, nice, system, irq, softirq; idle and what a host took are not ours to count."""
_NOTABLE = 0.2
"""Cores from which a load is worth a note."""
_LIBRARY = "onnxruntime"
WHAT_TO_DO = 'What to do: stop it, or let idle threads sleep: session option session.intra_op.allow_spinning, "0"'


class LoadWatch:
    """How many of the usable cores others use, from now on.

    Others are other processes and the other threads of this one. The calling thread and processes that it has started
    and waited for are not.
    """

    def __init__(self) -> None:
        self._start = perf_counter()
        self._used = self._others()

    def cores(self) -> float | None:
        """On average since the start; None where the system does not say."""
        if self._used is None or (used := self._others()) is None:
            return None
        return max(0.0, (used - self._used) / (perf_counter() - self._start))

    def note(self) -> str | None:
        """A sentence, where it is enough to change what is measured."""
        cores = self.cores()
        if cores is None or cores < _NOTABLE:
            return None
        used = f"other programs, or other threads of this one, used {cores:.1f} of {len(_usable())} cores meanwhile"
        return f"{used}: these are the times of a loaded machine. {WHAT_TO_DO}"

    def _others(self) -> float | None:
        busy = _busy_seconds()
        times = os.times()
        return None if busy is None else busy - times.children_user - times.children_system - thread_time()


@dataclass(frozen=True)
class BusyProcess:
    """A process that has ONNX Runtime loaded, and was busy."""

    pid: int
    command: str
    cores: float

    def format(self) -> str:
        """The note that ``mlpx doctor`` prints."""
        used = f"process {self.pid} ({self.command}) has ONNX Runtime loaded and uses {self.cores:.1f} cores"
        return (
            f"{used}. If it has nothing to do, its idle threads spin, and slow down what runs beside it. {WHAT_TO_DO}"
        )


def busy_with_onnxruntime(seconds: float = 0.3, proc: Path = Path("/proc")) -> list[BusyProcess]:
    """Other processes, of those that this user may look at, that were busy for so many seconds with it loaded."""
    before, start = dict(_processor_times(proc)), perf_counter()
    sleep(seconds)
    after, elapsed = dict(_processor_times(proc)), perf_counter() - start
    found: list[BusyProcess] = []
    for pid, used in after.items():
        cores = (used - before.get(pid, used)) / _TICKS / elapsed
        with suppress(OSError):  # it has ended, or belongs to somebody else
            if cores >= _NOTABLE and pid != os.getpid() and _LIBRARY in (proc / str(pid) / "maps").read_text():
                arguments = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found.append(BusyProcess(pid, " ".join(arguments).strip()[:60], cores))
    return found


def _processor_times(proc: Path) -> Iterator[tuple[int, int]]:
    """The clock ticks that each process has used."""
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            yield int(folder.name), int(fields[11]) + int(fields[12])


def _usable() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _busy_seconds(path: Path = Path("/proc/stat")) -> float | None:
    """Of the usable cores together, since the machine was started."""
    names = {f"cpu{core}" for core in _usable()}
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        return sum(int(line[field]) for line in lines if line[0] in names for field in _BUSY_FIELDS) / _TICKS
    except (OSError, ValueError, IndexError):
        return None
