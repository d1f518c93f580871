"""uvicorn's HTTP protocol with limits (sizes of heads, slow clients, connections) and a fast path for small requests.

The fast path takes a request of the usual kind from the last byte of its body to its answer without an asyncio task:
POST, a loaded model's infer path, a plain body of at most ``_FAST_BYTES``. It is parsed when its last byte is there,
waits in the model's queue, and its answer is written when its call is done. A client sends the same head again and
again: one that took the fast path before, and comes with its whole body, is not parsed. Every other request goes
through ASGI, with tasks and events: pipelined behind another one, compressed or from a page, to a server that requires
a token, from a client that does not take its answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .bodies import HttpRequest
from .handlers import Answer
from .loaded_model import LoadedModel
from .options import Options
from .rest import Rest

_PHRASES = {
    408: ("Request Timeout", "the request did not arrive in time"),
    431: ("Request Header Fields Too Large", "the request's head is larger than this server takes"),
    503: ("Service Unavailable", "this server has all the connections that it takes"),
}
_FAST_BYTES = 2**16
_KNOWN_HEADS = 1000
"""Heads that are remembered."""
_SLOW_HEADERS = frozenset(
    (b"authorization", b"content-encoding", b"expect", b"origin", b"sec-fetch-site", b"transfer-encoding", b"upgrade")
)
"""Headers that only ``Rest.__call__`` understands."""


class _NoEvent:
    """Nothing waits for a part of the body."""

    def set(self) -> None:
        """As of an event."""


class FastRequest:
    """A request on the fast path, with the attributes that uvicorn reads of a request that is not answered yet."""

    __slots__ = ("body", "disconnected", "keep_alive", "model", "more_body", "request", "response_complete")

    model: LoadedModel
    request: HttpRequest
    keep_alive: bool
    body: bytearray
    more_body: bool
    response_complete: bool
    disconnected: bool
    message_event: _NoEvent = _NoEvent()

    def __init__(self, model: LoadedModel, request: HttpRequest, keep_alive: bool):
        self.model, self.request, self.keep_alive = model, request, keep_alive
        self.body, self.more_body = bytearray(), True
        self.response_complete = self.disconnected = False


@dataclass(frozen=True, slots=True)
class _KnownHead:
    """What was parsed of a head that took the fast path."""

    url: bytes
    headers: Mapping[bytes, bytes]
    keep_alive: bool
    end: int
    """Of the request, with its body."""


async def _no_body() -> Mapping[str, Any]:
    """The body of a request on the fast path is in its ``FastRequest``."""
    return {"type": "http.disconnect"}


def protocol_class(options: Options, rest: Rest) -> type[HttpToolsProtocol]:
    """The protocol class with the limits of these options, and the fast path to the models of ``rest``."""
    largest_fast = min(options.max_body, _FAST_BYTES)
    known_heads: dict[bytes, _KnownHead] = {}

    class LimitedProtocol(HttpToolsProtocol):
        """A connection that is closed when it asks for too much, or takes too long."""

        cycle: Any
        """What answers the last request, a ``FastRequest`` or uvicorn's; None before the first."""
        since: float | None = None
        """When the request that is being read began; None while one is answered, or the connection is idle."""
        stalled: float | None = None
        """Since when the client does not take its answer."""
        _head = 0
        """The bytes so far of a request's head that is not complete."""
        _in_head = True
        _piece = b""
        """What is being parsed, while it can be one whole request."""
        _ended = False
        """A request ended within the bytes that are being read, so they are not all of the next one's head."""

        # uvicorn's own method narrows asyncio's parameter in the same way.
        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self.since = self.loop.time()
            if len(self.connections) > options.connections:
                self.refuse(503)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self.since is None:
                if self._is_known(data):
                    return
                self.since, self._piece = self.loop.time(), data
            self._ended = False
            super().data_received(data)
            self._piece = b""
            if self._in_head and not self._ended and not self.transport.is_closing():
                self._head += len(data)
                if self._head > options.max_head:
                    self.refuse(431)

        def _is_known(self, data: bytes) -> bool:
            """Whether this is a whole request with a head that is known; it is answered then."""
            head = data[: data.find(b"\r\n\r\n") + 4]
            known = known_heads.get(head)
            if known is None or known.end != len(data) or self.flow.write_paused:
                return False
            if self.cycle is not None and not self.cycle.response_complete:
                return False
            model = rest.fast_model(known.url)
            if model is None:
                return False
            self._unset_keepalive_if_required()
            request = rest.new_request("POST", known.url.decode("latin-1"), known.headers, _no_body)
            fast = self.cycle = FastRequest(model, request, known.keep_alive)
            fast.more_body = False
            rest.infer(model, request, data[len(head) :], partial(self._write, fast))
            return True

        def _remember(self, headers: Mapping[bytes, bytes], length: int, keep_alive: bool) -> None:
            """Know the head again, if what is being parsed is its request and nothing else."""
            end = self._piece.find(b"\r\n\r\n") + 4
            if len(self._piece) == end + length and len(known_heads) < _KNOWN_HEADS:
                known_heads[self._piece[:end]] = _KnownHead(self.url, headers, keep_alive, end + length)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self.since = True, self.loop.time()

        def on_headers_complete(self) -> None:
            self._in_head, self._head = False, 0
            if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > options.max_head:
                self.refuse(431)
                return
            if (fast := self._fast_request()) is not None:
                self.cycle = fast
                return
            super().on_headers_complete()

        def _fast_request(self) -> FastRequest | None:
            """For the request whose head is complete, if it may take the fast path."""
            parser: Any = self.parser
            earlier = self.cycle is not None and not self.cycle.response_complete
            if (
                earlier
                or parser.get_method() != b"POST"
                or self.flow.write_paused
                or parser.get_http_version() != "1.1"
            ):
                return None
            headers = dict(self.headers)
            length = headers.get(b"content-length", b"")
            if not length.isdigit() or len(length) > 5 or int(length) > largest_fast:
                return None
            model = rest.fast_model(self.url) if _SLOW_HEADERS.isdisjoint(headers) else None
            if model is None:
                return None
            request = rest.new_request("POST", self.url.decode("latin-1"), headers, _no_body)
            keep_alive = parser.should_keep_alive()
            self._remember(headers, int(length), keep_alive)
            return FastRequest(model, request, keep_alive)

        def on_body(self, body: bytes) -> None:
            if self.cycle is not None:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self.since, self._ended = None, True  # the next head begins with the next message, not with these bytes
            fast = self.cycle
            if type(fast) is FastRequest:
                if fast.more_body:
                    fast.more_body = False
                    rest.infer(fast.model, fast.request, bytes(fast.body), partial(self._write, fast))
            elif self.cycle is not None:
                super().on_message_complete()

        def _write(self, fast: FastRequest, answer: Answer) -> None:
            """Write the answer of a request on the fast path, as uvicorn does the others."""
            lines, body = rest.finish(fast.request, answer)
            fast.response_complete = True
            if self.transport.is_closing():
                return
            close = not fast.keep_alive or (b"connection", b"close") in lines
            if close and (b"connection", b"close") not in lines:
                lines = [*lines, (b"connection", b"close")]
            self.transport.write(
                b"".join([STATUS_LINE[answer.status], *(b"%s: %s\r\n" % line for line in lines), b"\r\n", body])
            )
            if close:
                self.transport.close()
            self.on_response_complete()

        def pause_writing(self) -> None:
            self.stalled = self.loop.time()
            super().pause_writing()

        def resume_writing(self) -> None:
            self.stalled = None
            super().resume_writing()

        def refuse(self, status: int) -> None:
            """Answer with an error, and close the connection."""
            phrase, message = _PHRASES[status]
            body = b'{"error":"%s"}' % message.encode()
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            if not self.transport.is_closing():
                self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
                self.transport.close()

    return LimitedProtocol


def close_slow_connections(connections: set[Any], now: float, options: Options) -> int:
    """Close the connections whose request, or whose client, takes too long; their number."""
    closed = 0
    for connection in list(connections):
        if connection.stalled is not None and now - connection.stalled > options.read_timeout:
            connection.transport.abort()
        elif connection.since is not None and now - connection.since > options.read_timeout:
            connection.refuse(408)
        else:
            continue
        closed += 1
    return closed
