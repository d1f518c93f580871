"""How much memory a piece of work takes."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread


class Peak:
    """The largest resident memory of this process in a ``with`` block, above its start, in bytes."""

    def __enter__(self) -> Peak:
        self.start = self.largest = resident()
        self._ended = Event()
        self._watch = Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._ended.wait(0.002):
            self.largest = max(self.largest, resident())

    @property
    def above(self) -> int:
        return self.largest - self.start


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def largest_resident() -> int:
    """The peak resident memory of this process, in bytes; unlike ``ru_maxrss`` without that of its parent."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
