"""uvicorn's HTTP protocol with limits: sizes of heads, slow clients, the number of connections."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .fast_path import Direct, direct
from .options import Options
from .rest import Rest

_PHRASES = {
    408: ("Request Timeout", "the request did not arrive in time"),
    431: ("Request Header Fields Too Large", "the request's head is larger than this server takes"),
    503: ("Service Unavailable", "this server has all the connections that it takes"),
}


def limited(options: Options, rest: Rest) -> type[HttpToolsProtocol]:
    """The protocol class with the limits of these options, and the short way to the models of ``rest``."""

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
            if (asked := self._direct()) is not None:
                self.cycle = asked  # pyright: ignore[reportAttributeAccessIssue]
                return
            super().on_headers_complete()

        def _direct(self) -> Direct | None:
            """The short way for the request whose head is here, if it may take that."""
            parser: Any = self.parser
            before = self.cycle is not None and not self.cycle.response_complete
            if before or parser.get_method() != b"POST" or self.flow.write_paused or parser.get_http_version() != "1.1":
                return None
            return direct(rest, options.max_body, self.url, dict(self.headers), parser.should_keep_alive())

        def on_body(self, body: bytes) -> None:
            if self.cycle is not None:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self.since, self._ended = None, True  # the next head begins with the next message, not with these bytes
            if type(self.cycle) is Direct:
                if self.cycle.more_body:
                    self.cycle.more_body = False
                    rest.answer_directly(self.cycle, partial(self._write, self.cycle))
            elif self.cycle is not None:
                super().on_message_complete()

        def _write(
            self, asked: Direct, status: int, lines: list[tuple[bytes, bytes]], body: bytes | memoryview
        ) -> None:
            """Write the answer of a request on the short way, as uvicorn does the others."""
            asked.response_complete = True
            if self.transport.is_closing():
                return
            close = not asked.keep_alive or (b"connection", b"close") in lines
            if close and (b"connection", b"close") not in lines:
                lines = [*lines, (b"connection", b"close")]
            head = b"".join([STATUS_LINE[status], *(b"%s: %s\r\n" % line for line in lines), b"\r\n", body])
            self.transport.write(head)
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
