"""Passes bytes between a client and the old server, both ways, as they come.

They are looked at in a later turn of the event loop: uvloop writes at the end of a turn what was to be written in it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .exchanges import Follower
from .options import Side

_CONNECT_SECONDS = 30.0
_READ_SECONDS = 1.0
"""That a refused client may still send, so that it reads the answer and sees no reset."""


@dataclass
class Relay:
    """What the connections of a proxy have in common."""

    old: Side
    tls: ssl.SSLContext | None
    follower: Callable[[], Follower]
    gone: Callable[[Follower], None]
    """Called with the follower of a connection that has ended."""
    open: set[Client] = field(default_factory=set[Any])
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def client(self) -> Client:
        """The protocol of a client's connection."""
        return Client(self)


class _End(asyncio.Protocol):
    """One end of a connection: what it receives is written to the other end."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.other: _End | None = None

    # asyncio's own subclasses narrow the parameter in the same way.
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.transport = transport

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        if self.other is not None and self.other.transport.can_write_eof():
            self.other.transport.write_eof()
            return True
        return False


class Client(_End):
    """A client's end. Its methods are those of ``asyncio.Protocol``."""

    def __init__(self, relay: Relay):
        super().__init__()
        self._relay = relay
        self.follower: Follower = relay.follower()
        self._connecting: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        """What came before the old server was there: uvloop reads once more after ``pause_reading``."""
        self._ended = self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Connect to the old server."""
        super().connection_made(transport)
        transport.pause_reading()  # until there is somebody to pass it on to
        self._relay.open.add(self)
        self._connecting = self._relay.loop.create_task(self._connect())

    async def _connect(self) -> None:
        address, tls = self._relay.old.address, self._relay.tls
        old = _Old(self)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._relay.loop.create_connection(lambda: old, address.host, address.port, ssl=tls)
        except (OSError, TimeoutError) as error:
            self._refuse(f"{self._relay.old} cannot be reached: {_reason(error)}")
            return
        if self.transport.is_closing():
            old.transport.abort()
            return
        self.other = old
        for data in self._early:
            self.data_received(data)
        self._early.clear()
        self.transport.resume_reading()
        if self._ended:
            self.eof_received()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is None:
            if not self._refused:
                self._early.append(data)
            return
        self.other.transport.write(data)
        self._relay.loop.call_soon(self.follower.request, data)

    def eof_received(self) -> bool:
        """Pass it on, once there is somebody to pass it on to."""
        self._ended = True
        return super().eof_received() if self.other is not None else True

    def _refuse(self, reason: str) -> None:
        """Answer that the old server is not there, and close the connection when the client has read it."""
        if self.transport.is_closing():
            return
        body = json.dumps({"error": f"mlpx shadow: {reason}"}).encode()
        head = f"HTTP/1.1 502 Bad Gateway\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.write_eof()
        self._refused = True
        self.transport.resume_reading()
        self._relay.loop.call_later(_READ_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other connection as this one ended."""
        self._relay.open.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        if self.other is not None:
            _close(self.other.transport, exc)
        self._relay.gone(self.follower)


class _Old(_End):
    """The old server's end."""

    def __init__(self, client: Client):
        super().__init__()
        self.other = client
        self._follower = client.follower
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)
            self._loop.call_soon(self._follower.answer, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            _close(self.other.transport, exc)


def _close(transport: asyncio.Transport, error: Exception | None) -> None:
    """End the other connection as this one ended: a reset stays a reset, so that no cut answer looks whole."""
    if error is None:
        transport.close()
    else:
        transport.abort()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection within {_CONNECT_SECONDS:g} s"
    return str(getattr(error, "strerror", None) or error)
