"""The body of an HTTP request: read within its limit, and unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .refusals import Encoded, Malformed, TooLarge

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]


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
            await _read(call, most, kept=False)
        raise TooLarge(f"the body has {size:,} bytes, and this server takes {most:,}")
    body = await _read(call, most)
    if body is None:
        await _read(call, most, kept=False)
        raise TooLarge(f"the body has more than {most:,} bytes, which is all that this server takes")
    encoding = call.headers.get(b"content-encoding", b"identity")
    return body if encoding == b"identity" else _decoded(body, encoding, most)


async def _read(call: Call, most: int, *, kept: bool = True) -> bytes | None:
    """The body that is still to come; None where it has more than ``most`` bytes, which are read and left there.

    With ``kept`` False it is only taken off the line: a client that still sends when the connection is closed would see
    a reset, and never the answer.
    """
    message = await call.receive()
    if message["type"] == "http.disconnect":
        raise Gone
    body = message.get("body", b"")
    if not message.get("more_body"):
        return body if len(body) <= most else None
    pieces, size = [body], len(body)
    while message.get("more_body"):
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if kept:
            pieces.append(message.get("body", b""))
        size += len(message.get("body", b""))
        if size > most and message.get("more_body"):
            return None
    return b"".join(pieces) if size <= most else None


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
