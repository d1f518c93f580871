"""The body of an HTTP request: read within its limit, and unpacked."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from runtime.json_types import Json

from .refusals import Encoded, Malformed, TooLarge

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

_DRAIN_SECONDS = 0.5


class Disconnected(Exception):
    """The client closed the connection."""


@dataclass(slots=True)
class HttpRequest:
    """An HTTP request; ``read_body`` reads its body from ``receive``."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    receive: Receive
    identity: bytes
    """The client's x-request-id, or one of the server's."""
    start: float
    """``perf_counter()`` when it came."""


async def read_body(request: HttpRequest, limit: int) -> bytes:
    """A request's whole body, unpacked.

    Raises Disconnected; TooLarge: it has more than ``limit`` bytes; Encoded, Malformed.
    """
    announced = request.headers.get(b"content-length")
    if announced is not None and (size := parse_length(announced)) > limit:
        if b"expect" not in request.headers:  # a client that waits for 100 Continue sends nothing
            await _drain(request, limit)
        raise TooLarge(f"the body has {size:,} bytes, and this server takes {limit:,}")
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await _receive(request)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        more = message.get("more_body", False)
        if size > limit:
            if more:
                await _drain(request, limit)
            raise TooLarge(f"the body has more than {limit:,} bytes, the most that this server takes")
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    encoding = request.headers.get(b"content-encoding", b"identity")
    return body if encoding == b"identity" else decompress(body, encoding, limit)


async def _receive(request: HttpRequest) -> Mapping[str, Any]:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message


async def _drain(request: HttpRequest, limit: int) -> None:
    """Drain a rejected body: at most ``limit`` bytes, as long as it keeps coming.

    A client that still sends when its connection is closed would see a reset, and never the answer.
    """
    size, more = 0, True
    try:
        while more and size <= limit:
            async with asyncio.timeout(_DRAIN_SECONDS):
                message = await _receive(request)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
    except TimeoutError:
        return


def parse_length(text: bytes) -> int:
    """The number of bytes in a header. Raises Malformed."""
    if not text.isdigit() or len(text) > 15:
        raise Malformed(f"a header has the length {text[:40]!r}, which is not a number of bytes")
    return int(text)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a small body; of an empty body, an empty one. Raises Malformed."""
    record: Json
    try:
        record = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error.msg}") from None
    if not isinstance(record, dict):
        raise Malformed("the body is not a JSON object")
    return record


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The content of a gzip or deflate body. Raises Encoded, Malformed, TooLarge."""
    window_bits = {b"gzip": 31, b"deflate": 15}.get(encoding.lower())
    if window_bits is None:
        name = encoding[:40].decode("latin-1")
        raise Encoded(f"this server reads Content-Encoding gzip and deflate, and not {name}")
    decompressor = zlib.decompressobj(window_bits)
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise Malformed(f"the body is not {encoding.decode()}: {error}") from None
    if len(content) > limit:
        raise TooLarge(f"the body unpacks to more than {limit:,} bytes, the most that this server takes")
    if not decompressor.eof:
        raise Malformed(f"the {encoding.decode()} of the body ends too early")
    return content
