"""A connection of HTTP/2 as a server of gRPC needs it: streams of messages, flow control both ways, and limits.

What a stream says is given to its ``Call``. A peer that breaks the protocol, or makes work without use (resets, pings,
empty frames), loses its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from runtime.extras import imported

from . import http2_frames as h2
from .http2_frames import ConnectionFault
from .http2_streams import Call, Sending, Stream

PURPOSE = "serving over gRPC"
_STREAMS = 1000
"""Streams of a connection at once."""
_USELESS = 2000
"""Frames without use that a connection may be ahead by; every answer takes some of them back."""
_BLOCK_FACTOR = 4
"""Of the limit of a head: header blocks, and heads unpacked of them, that are read to be refused politely."""
_KNOWN_BLOCKS, _KNOWN_BYTES = 100, 1024
"""Header blocks of a connection that are remembered, and the bytes of one."""
Headers = Mapping[bytes, bytes]


class Connection(Sending):
    """``accept`` makes the call of a new stream; ``max_head`` is the largest head, in bytes."""

    def __init__(
        self, accept: Callable[[Stream, Headers | None], Call], max_head: int, connections: set[Connection], most: int
    ):
        """``accept`` gets None for a head that is too large. ``connections``: all that are open, ``most`` at once."""
        super().__init__()
        self._accept, self._max_head, self._all, self._most = accept, max_head, connections, most
        hpack = imported("hpack", PURPOSE)
        self._decoder: Any = hpack.Decoder(max_header_list_size=_BLOCK_FACTOR * max_head)
        self._hpack_error: type[Exception] = hpack.HPACKError
        self._known: dict[bytes, Headers] = {}
        """Heads by their blocks, as long as the decoder's table does not change."""
        self._buffer = b""
        self._preface = False
        self._block: tuple[int, int, bytearray] | None = None
        """Stream, flags and bytes of a head whose CONTINUATION frames are still to come."""
        self._last = self._given = 0
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self.heard: float = loop.time()
        """When the client was last heard of."""
        self.stalled: float | None = None
        """Since when it does not take what is sent."""
        self.asked = False
        """A PING waits for its answer."""

    # asyncio's own subclasses narrow the parameter in the same way.
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Greet the client."""
        self.transport = transport
        self._all.add(self)
        values = (
            (h2.MAX_STREAMS_SETTING, _STREAMS),
            (h2.WINDOW_SETTING, h2.WINDOW),
            (h2.HEADERS_SETTING, self._max_head),
        )
        transport.write(h2.settings(values) + h2.window_update(0, h2.WINDOW - h2.INITIAL_WINDOW))
        if len(self._all) > self._most:
            self._end(h2.ENHANCE_YOUR_CALM, "this server has all the connections that it takes")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Give up what the client waited for."""
        self._all.discard(self)
        for stream in list(self.streams.values()):
            self._drop(stream)

    def pause_writing(self) -> None:
        """Let what is sent wait in its streams, and read no more requests: their answers would wait too."""
        self.paused, self.stalled = True, self._now()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Send what waits."""
        self.paused, self.stalled = False, None
        if not self.transport.is_closing():
            self.transport.resume_reading()
        self.send_pending()

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        if self.transport.is_closing():
            return
        self.heard, self.asked = self._now(), False
        if self._buffer:
            data = self._buffer + data
        try:
            self._buffer = data[self._read(data) :]
        except ConnectionFault as fault:
            self._end(fault.code, str(fault))

    def _read(self, data: bytes) -> int:
        """Handle every whole frame; how many bytes they were."""
        at, end = 0, len(data)
        if not self._preface:
            if not h2.PREFACE.startswith(data[: len(h2.PREFACE)]):
                raise ConnectionFault(h2.PROTOCOL_ERROR, "this port speaks HTTP/2, for gRPC")
            if end < len(h2.PREFACE):
                return 0
            self._preface, at = True, len(h2.PREFACE)
        unpack = h2.HEAD.unpack_from
        while end - at >= 9:
            upper, lower, kind, flags, number = unpack(data, at)
            size = (upper << 8) + lower
            if size > h2.FRAME_SIZE:
                raise ConnectionFault(h2.FRAME_SIZE_ERROR, f"a frame of {size:,} bytes")
            if end - at - 9 < size:
                break
            payload = data[at + 9 : at + 9 + size]
            at += 9 + size
            self._handle(kind, flags, number & h2.LARGEST_WINDOW, payload)
            if self.transport.is_closing():
                return end
        return at

    def _handle(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != h2.CONTINUATION:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a head that is interrupted by another frame")
        if kind == h2.DATA:
            self._data(flags, number, payload)
        elif kind == h2.HEADERS:
            self._head(number, flags, h2.unpadded(payload, flags))
        elif kind == h2.WINDOW_UPDATE:
            self._enlarge(number, payload)
        elif kind == h2.CONTINUATION:
            self._continue(number, flags, payload)
        elif kind == h2.RST_STREAM:
            if not 0 < number <= self._last or len(payload) != 4:
                raise ConnectionFault(h2.PROTOCOL_ERROR, "a reset of a stream that was never opened")
            self._waste()
            if (stream := self.streams.get(number)) is not None:
                self._drop(stream)
        elif kind == h2.SETTINGS:
            self._settings(flags, number, payload)
        elif kind == h2.PING:
            if number or len(payload) != 8:
                raise ConnectionFault(h2.FRAME_SIZE_ERROR, "a PING of another size")
            if not flags & h2.ACK:
                self._waste()
                self.transport.write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.PUSH_PROMISE:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a client pushes nothing")
        else:  # PRIORITY, GOAWAY, and what is not known
            self._waste()

    def _waste(self) -> None:
        self.useless += 1
        if self.useless > _USELESS:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many frames without use")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._given += size
        if self._given >= h2.WINDOW // 2:
            self.transport.write(h2.window_update(0, self._given))
            self._given = 0
        stream = self.streams.get(number)
        ended = bool(flags & h2.END_STREAM)
        if flags & h2.PADDED:
            payload = h2.unpadded(payload, h2.PADDED)
        if not payload and not ended:
            self._waste()
        if stream is None or stream.remote_ended:
            if not 0 < number <= self._last or stream is not None:
                raise ConnectionFault(h2.STREAM_CLOSED, "data on a stream that is not open")
            return  # it was reset, or answered already
        stream.given += size
        if stream.given > h2.WINDOW:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "more data than the window has room for")
        stream.remote_ended = ended
        assert stream.call is not None
        stream.call.data(payload, ended)

    def _head(self, number: int, flags: int, block: bytes) -> None:
        if flags & h2.END_HEADERS:
            self._open(number, flags, block)
        else:
            self._block = number, flags, bytearray(block)

    def _continue(self, number: int, flags: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a CONTINUATION of nothing")
        block = self._block[2]
        block += payload
        self._waste()
        if len(block) > _BLOCK_FACTOR * self._max_head:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "a head that is far larger than this server takes")
        if flags & h2.END_HEADERS:
            (_, first, _), self._block = self._block, None
            self._open(number, first, bytes(block))

    def _open(self, number: int, flags: int, block: bytes) -> None:
        known = self._known.get(block)
        fields, keep = ((), False) if known is not None else self._decode(block)
        ended = bool(flags & h2.END_STREAM)
        if (stream := self.streams.get(number)) is not None:  # trailers, which gRPC's clients do not send
            if stream.remote_ended or not ended:
                raise ConnectionFault(h2.PROTOCOL_ERROR, "a second head on a stream")
            stream.remote_ended = True
            assert stream.call is not None
            stream.call.data(b"", ended=True)
            return
        if not number & 1 or number <= self._last:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a stream with a number that is even or was used before")
        if self.leaving or len(self.streams) >= _STREAMS:
            self._last = number if not self.leaving else self._last
            self.transport.write(h2.reset(number, h2.REFUSED_STREAM))
            return
        self._last = number
        headers = known
        if headers is None:
            if not h2.is_request(fields):
                self._waste()
                self.transport.write(h2.reset(number, h2.PROTOCOL_ERROR))
                return
            if sum(len(name) + len(value) for name, value in fields) <= self._max_head:
                headers = dict(fields)
                if keep:
                    self._known[block] = headers
        stream = self.streams[number] = Stream(self, number, self.stream_window)
        stream.remote_ended = ended
        stream.call = self._accept(stream, headers)
        if ended and not stream.finished:
            stream.call.data(b"", ended=True)

    def _decode(self, block: bytes) -> tuple[Sequence[tuple[bytes, bytes]], bool]:
        """The header fields of a block, and whether they may be remembered by it: it changes nothing in the decoder."""
        table = self._decoder.header_table.dynamic_entries
        before = len(table), table[0] if table else None
        try:
            fields = self._decoder.decode(block, raw=True)
        except self._hpack_error as error:
            raise ConnectionFault(h2.COMPRESSION_ERROR, str(error)) from None
        after = len(table), table[0] if table else None
        if before[0] != after[0] or before[1] is not after[1]:
            self._known.clear()
            return fields, False
        small = len(block) <= _KNOWN_BYTES and len(self._known) < _KNOWN_BLOCKS
        return fields, small and not h2.changes_table_size(block)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) % 6 or (flags & h2.ACK and payload):
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "SETTINGS of another size")
        if flags & h2.ACK:
            return
        self._waste()
        window = self.stream_window
        for name, value in h2.SETTING.iter_unpack(payload):
            if name == h2.WINDOW_SETTING:
                if value > h2.LARGEST_WINDOW:
                    raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "a window beyond 2^31 - 1")
                window = value
            elif name == h2.FRAME_SIZE_SETTING:
                if not h2.FRAME_SIZE <= value < 2**24:
                    raise ConnectionFault(h2.PROTOCOL_ERROR, "a frame size that no frame can have")
                self.frame_size = value
        self.transport.write(h2.frame(h2.SETTINGS, h2.ACK, 0))
        if window != self.stream_window:  # once, however often the frame names it
            change, self.stream_window = window - self.stream_window, window
            for stream in list(self.streams.values()):
                self._grow(stream, change)

    def _enlarge(self, number: int, payload: bytes) -> None:
        size = h2.UINT32.unpack(payload)[0] & h2.LARGEST_WINDOW if len(payload) == 4 else 0
        if not size or (number and not number <= self._last):
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a window that is enlarged by nothing")
        if not number:
            self.window += size
            if self.window > h2.LARGEST_WINDOW:
                raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "a window beyond 2^31 - 1")
            self.send_pending()
        elif (stream := self.streams.get(number)) is not None:
            self._grow(stream, size)

    def _grow(self, stream: Stream, size: int) -> None:
        stream.window += size
        if stream.window > h2.LARGEST_WINDOW:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "a window beyond 2^31 - 1")
        self.send_pending_of(stream)

    def end_overdue(self, seconds: float) -> None:
        """End the calls whose message takes longer than that to arrive, or whose answer to be taken."""
        if self.transport.is_closing():
            return
        now = perf_counter()
        for stream in list(self.streams.values()):
            if stream.pending and now - stream.waits > seconds:
                self.transport.write(h2.reset(stream.number, h2.CANCEL))
                self._drop(stream)
            elif stream.call is not None:
                stream.call.end_overdue(seconds)

    def _drop(self, stream: Stream) -> None:
        self.streams.pop(stream.number, None)
        self._ready.pop(stream.number, None)
        stream.finished = True
        if stream.call is not None:
            stream.call.cancelled()
        self.close_if_left()

    def leave(self) -> None:
        """Take no more requests, and close the connection when those that came are answered."""
        if self.leaving or self.transport.is_closing():
            return
        self.leaving = True
        self.transport.write(h2.goaway(self._last, h2.NO_ERROR))
        if not self.streams:
            self.transport.close()

    def ping(self) -> None:
        """Ask whether the client is there."""
        self.asked = True
        self.transport.write(h2.frame(h2.PING, 0, 0, b"mlpx-ask"))

    def _end(self, code: int, words: str) -> None:
        self.transport.write(h2.goaway(self._last, code, words))
        self.transport.close()
