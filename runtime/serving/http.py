"""uvicorn's HTTP protocol with limits: sizes of heads, slow clients, the number of connections."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .options import Options

_PHRASES = {
    408: ("Request Timeout", "the request did not arrive in time"),
    431: ("Request Header Fields Too Large", "the request's head is larger than this server takes"),
    503: ("Service Unavailable", "this server has all the connections that it takes"),
}


def limited(options: Options) -> type[HttpToolsProtocol]:
    """The protocol class with the limits of these options."""

    class Limited(HttpToolsProtocol):
        """A connection that is closed when it asks for too much, or takes too long."""

        since: float | None = None
        """When the request that is being read began; None while one is answered, or the connection is idle."""
        stalled: float | None = None
        """Since when the client does not take its answer."""
        _head = 0
        """Bytes of a request's head that came, of which the end did not."""
        _in_head = True
        _ended = False
        """A request ended within the bytes that are being read, so they are not all of the next one's head."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self.since = self.loop.time()
            if len(self.connections) > options.connections:
                self.refuse(503)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self.since is None:
                self.since = self.loop.time()
            self._ended = False
            super().data_received(data)
            if self._in_head and not self._ended and not self.transport.is_closing():
                self._head += len(data)
                if self._head > options.max_head:
                    self.refuse(431)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self.since = True, self.loop.time()

        def on_headers_complete(self) -> None:
            self._in_head, self._head = False, 0
            if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > options.max_head:
                self.refuse(431)
                return
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if self.cycle is not None:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self.since, self._ended = None, True  # the next head begins with the next message, not with these bytes
            if self.cycle is not None:
                super().on_message_complete()

        def pause_writing(self) -> None:
            self.stalled = self.loop.time()
            super().pause_writing()

        def resume_writing(self) -> None:
            self.stalled = None
            super().resume_writing()

        def refuse(self, status: int) -> None:
            """Answer with an error, and close the connection."""
            phrase, words = _PHRASES[status]
            body = b'{"error":"%s"}' % words.encode()
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            if not self.transport.is_closing():
                self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
                self.transport.close()

    return Limited


def sweep(connections: set[Any], now: float, options: Options) -> int:
    """Close the connections whose request, or whose client, takes too long; how many there were."""
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
