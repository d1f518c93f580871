"""What a comparison of two answers comes to."""

from __future__ import annotations

from dataclasses import dataclass

EQUAL, WITHIN, BEYOND, UNBOUNDED = "equal", "within", "beyond", "unbounded"
OTHER, REFUSED, LATE, LOST = "other", "refused", "late", "lost"
MEANING = {
    EQUAL: "the same numbers",
    WITHIN: "apart by at most the sum of the bounds",
    BEYOND: "apart by more than the sum of the bounds",
    UNBOUNDED: "apart, where a side has no bound",
    OTHER: "other outputs, shapes or datatypes, or one side answers and the other refuses",
    REFUSED: "both refuse the request",
    LATE: "no answer of the new server in time",
    LOST: "the new server failed, or could not be reached",
}
"""Every kind of outcome, in words."""
DIFFERENCES = (BEYOND, OTHER)
"""Kinds that say that the new server computes something else."""
REPORTED = (BEYOND, UNBOUNDED, OTHER, LATE, LOST)
"""Kinds that are told one by one."""

QUEUE, SHARE, SIZE, OLD, MIRROR = "queue", "share", "size", "old", "mirror"
LEFT_OUT = {
    QUEUE: "the queue for the new server was full",
    SHARE: "left out by --share",
    SIZE: "larger than --max-body, or cut short",
    OLD: "the old server was busy or failed (429 or 5xx), or its answer did not end",
    MIRROR: "the comparing process was not there",
}
"""Why a request was not mirrored."""


@dataclass(frozen=True)
class Outcome:
    """One request that was mirrored; times in seconds."""

    kind: str
    """A key of ``MEANING``."""
    model: str
    words: str = ""
    """What is different, and where."""
    rows: int = 0
    apart: float | None = None
    """The largest difference of two numbers; None where there are none to compare."""
    share: float | None = None
    """The largest difference over what is allowed there; None without a bound."""
    moved: int = 0
    """Rows whose largest value is another one, of outputs with several values."""
    request: str = ""
    """The x-request-id of the old server's answer."""
    old_seconds: float = 0.0
    new_seconds: float | None = None
