"""The short way of a small request to its model: from the last byte of its body to the answer without a task.

A request of the usual kind (POST, a known model, a body of at most ``MOST`` bytes as it is) is parsed when its last
byte is there, waits in the model's queue, and is written when its call is done. Every other request takes the way
through ASGI, with its tasks and events: those that stand behind another on their connection, are compressed or come
from a page, those of a server that wants a token, and of clients that do not take their answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from .loaded_model import Served

if TYPE_CHECKING:
    from .rest import Rest

MOST = 2**16
_LONG_WAY = frozenset(
    (b"authorization", b"content-encoding", b"expect", b"origin", b"sec-fetch-site", b"transfer-encoding", b"upgrade")
)
"""Headers that want a closer look."""


class _Nobody:
    """Nobody waits for a part of the body."""

    def set(self) -> None:
        """As of an event."""


class Direct:
    """A request on the short way, with what uvicorn's protocol looks at in a request that is not answered yet."""

    __slots__ = (
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "more_body",
        "response_complete",
        "served",
        "start",
        "url",
    )

    message_event = _Nobody()

    def __init__(self, served: Served, url: bytes, headers: Mapping[bytes, bytes], keep_alive: bool):
        self.served, self.url, self.headers, self.keep_alive = served, url, headers, keep_alive
        self.body, self.more_body = bytearray(), True
        self.response_complete = self.disconnected = False
        self.start = perf_counter()


def direct(rest: Rest, most: int, url: bytes, headers: Mapping[bytes, bytes], keep_alive: bool) -> Direct | None:
    """The short way for a POST of at most ``most`` bytes; None for one that must take the long one."""
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 5 or int(length) > min(most, MOST) or not _LONG_WAY.isdisjoint(headers):
        return None
    served = rest.served_at(url)
    return None if served is None else Direct(served, url, headers, keep_alive)
