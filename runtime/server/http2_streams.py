"""Streams of HTTP/2: what a client has room for is sent, and the rest waits."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from time import perf_counter

from . import http2_frames as h2

_FORGIVEN = 10
"""Frames without use that an answer makes up for."""


class Call(ABC):
    """What happens on a stream."""

    @abstractmethod
    def data(self, content: bytes, ended: bool) -> None:
        """A piece of the body; ``ended``: it is the last one."""

    @abstractmethod
    def cancelled(self) -> None:
        """The client gave up, or its connection ended."""

    @abstractmethod
    def end_overdue(self, seconds: float) -> None:
        """End the call if what the client sends takes longer than that to arrive."""


class Stream:
    """One request and its answer."""

    __slots__ = (
        "call",
        "connection",
        "emptied",
        "finished",
        "given",
        "number",
        "pending",
        "remote_ended",
        "trailers",
        "waits",
        "window",
    )

    def __init__(self, connection: Sending, number: int, window: int):
        self.connection, self.number, self.window = connection, number, window
        self.call: Call | None = None
        self.given = 0
        """Bytes that came since the client's window was last enlarged."""
        self.remote_ended = self.finished = False
        self.pending: deque[memoryview] = deque()
        """What the client has no room for."""
        self.waits = 0.0
        """``perf_counter()`` when that began to wait."""
        self.emptied: asyncio.Event | None = None
        """Somebody waits until all of it is sent."""
        self.trailers: bytes | None = None

    def send(self, head: bytes, content: bytes, trailers: bytes | None) -> None:
        """Send a header block (empty: none), a piece of the body, and the last header block if it is there."""
        self.connection.send(self, head, content, trailers)

    async def sent(self) -> None:
        """Wait until the client had room for everything."""
        if self.pending:
            self.emptied = asyncio.Event()
            await self.emptied.wait()


class Sending(asyncio.Protocol):
    """The half of a connection that sends."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.window, self.stream_window, self.frame_size = h2.INITIAL_WINDOW, h2.INITIAL_WINDOW, h2.FRAME_SIZE
        """What the client has room for: of the connection, of a new stream, in a frame."""
        self.useless = 0
        """Frames without use that the client is ahead by."""
        self._ready: dict[int, Stream] = {}
        """Streams that wait, and not for a window of their own."""
        self.paused = self.leaving = False

    def taken(self, stream: Stream) -> None:
        """Let the client send more, once what it sent needs no room any more."""
        if stream.given >= h2.WINDOW // 2 and not stream.remote_ended and not self.transport.is_closing():
            self.transport.write(h2.window_update(stream.number, stream.given))
            stream.given = 0

    def send(self, stream: Stream, head: bytes, content: bytes, trailers: bytes | None) -> None:
        """As ``Stream.send``."""
        if stream.finished or self.transport.is_closing():
            return
        pieces: list[bytes] = []
        number, size = stream.number, len(content)
        if head:
            pieces.append(h2.frame(h2.HEADERS, h2.END_HEADERS, number, head))
        fits = size <= stream.window and size <= self.window and size <= self.frame_size
        if size and trailers is None:
            self.forgive()
        if size and fits and not stream.pending and not self.paused:
            stream.window -= size
            self.window -= size
            pieces += [h2.HEAD.pack(size >> 8, size & 255, h2.DATA, 0, number), content]
        elif size:
            if not stream.pending:
                stream.waits = perf_counter()
            stream.pending.append(memoryview(content))
        if trailers is not None:
            if stream.pending:
                stream.trailers = trailers
            else:
                pieces.append(self._last_frames(stream, trailers))
        if pieces:
            self.transport.write(b"".join(pieces))
        if stream.pending:
            self.send_pending_of(stream)

    def forgive(self) -> None:
        """Take back some frames without use."""
        self.useless = max(0, self.useless - _FORGIVEN)

    def _last_frames(self, stream: Stream, trailers: bytes) -> bytes:
        """The end of a stream, which is closed with it."""
        last = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream.number, trailers)
        if not stream.remote_ended:
            last += h2.reset(stream.number, h2.NO_ERROR)
        stream.finished = True
        self.streams.pop(stream.number, None)
        self.forgive()
        self.close_if_left()
        return last

    def close_if_left(self) -> None:
        """Close a connection that takes no more requests and has none."""
        if self.leaving and not self.streams:
            asyncio.get_running_loop().call_soon(self.transport.close)

    def send_pending(self) -> None:
        """Send what waits for room, one stream after the other. Streams without a window of their own cost nothing."""
        while self._ready and self.window > 0 and not self.paused:
            self._send_some(self._ready.pop(next(iter(self._ready))))

    def send_pending_of(self, stream: Stream) -> None:
        """Send what waits for room on a stream, whose window may be larger now."""
        if stream.pending and stream.window > 0:
            self._ready[stream.number] = stream
            self.send_pending()

    def _send_some(self, stream: Stream) -> None:
        while stream.pending:
            content = stream.pending[0]
            size = min(len(content), stream.window, self.window, self.frame_size)
            if size <= 0 or self.paused:
                if stream.window > 0:
                    self._ready[stream.number] = stream
                return
            stream.window -= size
            self.window -= size
            self.transport.write(h2.frame(h2.DATA, 0, stream.number, content[:size]))
            if size == len(content):
                stream.pending.popleft()
            else:
                stream.pending[0] = content[size:]
        if stream.emptied is not None:
            stream.emptied.set()
        if stream.trailers is not None:
            self.transport.write(self._last_frames(stream, stream.trailers))
