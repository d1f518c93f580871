"""What a process and all that it started hold in memory, by Linux's /proc."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_KIB = 1024


def resident(session: int) -> int:
    """Bytes of resident memory of every process of a session, which a server of ours leads by its process id."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):  # it ended meanwhile
            # Behind the name, which may hold anything: state, parent, group, session.
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                status = stat.with_name("status").read_text()
                total += int(status.partition("VmRSS:")[2].split()[0]) * _KIB
    return total
