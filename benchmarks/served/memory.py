"""What a process and all that it started hold in memory and take of the processor, by Linux's /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_KIB = 1024


def resident(session: int) -> int:
    """Bytes of resident memory of every process of a session, which a server of ours leads by its process id."""
    total = 0
    for folder, _ in _processes(session):
        with suppress(OSError):
            total += int((folder / "status").read_text().partition("VmRSS:")[2].split()[0]) * _KIB
    return total


def processor_seconds(session: int) -> float:
    """The seconds of processor time that every process of a session has taken."""
    ticks = sum(int(fields[11]) + int(fields[12]) for _, fields in _processes(session))
    return ticks / os.sysconf("SC_CLK_TCK")


def _processes(session: int) -> Iterator[tuple[Path, list[str]]]:
    """The folder in /proc of every process of a session, and what its ``stat`` has behind the name."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):  # it ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()  # the name may hold anything
            if int(fields[3]) == session:
                yield stat.parent, fields
