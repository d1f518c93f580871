"""Which requests and answers the bytes of a connection are: followed beside the passing on, never before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from runtime.extras import imported

PURPOSE = "a shadow"
Headers = dict[str, str]
"""Names in lower case; of a name that comes twice, the last value."""


@dataclass(slots=True)
class Message:
    """A request or an answer, as far as it came."""

    target: str = ""
    """The path of a request."""
    method: str = ""
    status: int = 0
    headers: Headers = field(default_factory=dict[str, str])
    pieces: list[bytes] = field(default_factory=list[bytes])
    size: int = 0
    wanted: bool = True
    """Whether its body is kept."""
    ended: float = 0.0
    """``perf_counter()`` when its last byte came."""

    def body(self) -> bytes:
        """In one piece."""
        return b"".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer."""

    request: Message
    answer: Message

    @property
    def whole(self) -> bool:
        """Whether both bodies were kept, and the request was all there when its answer ended."""
        return self.request.wanted and self.answer.wanted and self.request.ended > 0


class Follower:
    """Reads both directions of an HTTP/1.1 connection, and gives ``found`` every exchange that ``wanted`` asks for.

    ``wanted`` is asked for each POST request by its path. Bodies of more than ``max_body`` bytes are not kept. What
    cannot be followed (another protocol, an answer that ends with its connection) is left: the bytes go on passing.
    """

    def __init__(self, wanted: Callable[[str], bool], max_body: int, found: Callable[[Exchange], None]):
        self._wanted, self._max_body, self._found = wanted, max_body, found
        self._httptools = imported("httptools", PURPOSE)
        self._requests: deque[Message] = deque()
        self._lost = False
        self._request_parser = self._httptools.HttpRequestParser(_Requests(self))
        self._answer_parser = self._httptools.HttpResponseParser(_Answers(self))

    def request(self, data: bytes) -> None:
        """Bytes that the client sent."""
        self._feed(self._request_parser, data)

    def answer(self, data: bytes) -> None:
        """Bytes that the server sent."""
        self._feed(self._answer_parser, data)

    @property
    def unanswered(self) -> int:
        """Wanted requests that have no complete answer yet, or whose answer could not be followed."""
        return sum(message.target != "" for message in self._requests)

    @property
    def in_progress(self) -> bool:
        """Whether a request has no complete answer yet."""
        return not self._lost and bool(self._requests)

    def _feed(self, parser: Any, data: bytes) -> None:
        if self._lost:
            return
        try:
            parser.feed_data(data)
        except (self._httptools.HttpParserError, self._httptools.HttpParserUpgrade):
            self._lost = True

    def keep(self, message: Message, body: bytes) -> None:
        """Add a piece of a body."""
        message.size += len(body)
        if message.wanted and message.size <= self._max_body:
            message.pieces.append(body)
        else:
            message.wanted = False
            message.pieces.clear()

    def requested(self, message: Message) -> None:
        """A request's head is there."""
        message.method = self._request_parser.get_method().decode("latin-1")
        if message.method != "POST" or not self._wanted(message.target):
            message.target, message.wanted = "", False
        self._requests.append(message)

    def answer_begins(self, message: Message) -> bool:
        """An answer's head is there. False: no body follows, although its head speaks of one."""
        message.status = self._answer_parser.get_status_code()
        request = self._requests[0] if self._requests else Message()
        message.wanted = request.wanted
        return request.method != "HEAD"

    def answered(self, message: Message) -> None:
        """An answer is complete."""
        if 100 <= message.status < 200:
            return
        if not self._requests:
            self._lost = True
            return
        request = self._requests.popleft()
        message.ended = perf_counter()
        if request.target:
            self._found(Exchange(request, message))

    def without_body(self, message: Message) -> None:
        """Begin anew after the answer to a HEAD request, whose head is all that comes."""
        self._answer_parser = self._httptools.HttpResponseParser(_Answers(self))
        self.answered(message)


class _Messages:
    """What httptools calls for either direction."""

    def __init__(self, follower: Follower):
        self._follower, self._message = follower, Message()

    def on_message_begin(self) -> None:
        self._message = Message()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._message.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._follower.keep(self._message, body)


class _Requests(_Messages):
    def on_url(self, url: bytes) -> None:
        self._message.target += url.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._follower.requested(self._message)

    def on_message_complete(self) -> None:
        self._message.ended = perf_counter()


class _Answers(_Messages):
    def on_headers_complete(self) -> None:
        if not self._follower.answer_begins(self._message):
            self._follower.without_body(self._message)

    def on_message_complete(self) -> None:
        self._follower.answered(self._message)
