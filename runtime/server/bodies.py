"""The body of an HTTP request: read within its limit, and unpacked."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .refusals import Encoded, Malformed, TooLarge

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]


_PAUSE = 0.5
"""Seconds."""


class Gone(Exception):
    """The client hung up."""


@dataclass(slots=True)
class Call:
    """One HTTP request on its way."""

    scope: Scope
    headers: dict[bytes, bytes]
    receive: Receive
    start: float


async def body_of(call: Call, most: int) -> bytes:
    """A request's whole body, unpacked. Raises Gone; TooLarge: more than ``most`` bytes; Encoded, Malformed."""
    given = call.headers.get(b"content-length")
    if given is not None and (size := length_of(given)) > most:
        if b"expect" not in call.headers:  # a client that waits to be told sends nothing
            await _taken_off(call, most)
        raise TooLarge(f"the body has {size:,} bytes, and this server takes {most:,}")
    pieces, size, more = [], 0, True
    while more:
        message = await _next(call)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        more = message.get("more_body", False)
        if size > most:
            if more:
                await _taken_off(call, most)
            raise TooLarge(f"the body has more than {most:,} bytes, which is all that this server takes")
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    encoding = call.headers.get(b"content-encoding", b"identity")
    return body if encoding == b"identity" else _decoded(body, encoding, most)


async def _next(call: Call) -> Mapping[str, Any]:
    message = await call.receive()
    if message["type"] == "http.disconnect":
        raise Gone
    return message


async def _taken_off(call: Call, most: int) -> None:
    """Take a body off the line that nobody wants, at most ``most`` bytes and as long as it keeps coming.

    A client that still sends when its connection is closed would see a reset, and never the answer.
    """
    size, more = 0, True
    try:
        while more and size <= most:
            async with asyncio.timeout(_PAUSE):
                message = await _next(call)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
    except TimeoutError:
        return


def length_of(text: bytes) -> int:
    """The number of bytes in a header. Raises Malformed."""
    if not text.isdigit() or len(text) > 15:
        raise Malformed(f"a header has the length {text[:40]!r}, which is no number of bytes")
    return int(text)


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object of a small body; an empty body is an empty one. Raises Malformed."""
    try:
        found = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise Malformed("the body is no JSON object")
    return found


def _decoded(body: bytes, encoding: bytes, most: int) -> bytes:
    """A compressed body. Raises Encoded, Malformed, TooLarge."""
    bits = {b"gzip": 31, b"deflate": 15}.get(encoding.lower())
    if bits is None:
        raise Encoded(f"Content-Encoding {encoding[:40].decode('latin-1')} is not read: gzip and deflate are")
    reader = zlib.decompressobj(bits)
    try:
        found = reader.decompress(body, most + 1)
    except zlib.error as error:
        raise Malformed(f"the body is not {encoding.decode()}: {error}") from None
    if len(found) > most:
        raise TooLarge(f"the body unpacks to more than {most:,} bytes, which is all that this server takes")
    if not reader.eof:
        raise Malformed(f"the {encoding.decode()} of the body ends too early")
    return found
