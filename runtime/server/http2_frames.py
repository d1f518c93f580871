"""Frames of HTTP/2 and the few header blocks that a server of gRPC sends. Source: RFC 9113, and RFC 7541 for HPACK."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
INITIAL_WINDOW, FRAME_SIZE, LARGEST_WINDOW = 65_535, 16_384, 2**31 - 1
WINDOW = 2**20
"""Bytes that a client may send ahead, on a stream and on its connection."""
MAX_STREAMS_SETTING, WINDOW_SETTING, FRAME_SIZE_SETTING, HEADERS_SETTING = 3, 4, 5, 6
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11
HEAD = struct.Struct(">HBBBL")
"""The length's upper 16 bits, its lower 8, type, flags, stream: 9 bytes."""
UINT32, SETTING = struct.Struct(">L"), struct.Struct(">HL")
_LITERAL = 0x00  # a literal header field, not indexed, with a new name
_SIZE_UPDATE = 0x20  # upper three bits of a header block that changes the size of the table first
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_WRONG_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_CONNECTIONS = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))


class ConnectionFault(Exception):
    """The peer broke the protocol: the connection ends with this error code."""

    def __init__(self, code: int, words: str):
        super().__init__(words)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """A frame of at most 2^24 - 1 bytes."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 255, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*value) for value in values))


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, UINT32.pack(size))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, UINT32.pack(code))


def goaway(last: int, code: int, words: str = "") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, UINT32.pack(last) + UINT32.pack(code) + words.encode())


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of a DATA or HEADERS frame without padding and priority. Raises ConnectionFault."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ConnectionFault(PROTOCOL_ERROR, "padding that is longer than its frame")
        start, end = 1, end - payload[0]
    if flags & HAS_PRIORITY:
        start += 5
        if start > end:
            raise ConnectionFault(FRAME_SIZE_ERROR, "a HEADERS frame without room for its priority")
    return payload[start:end]


def changes_table_size(block: bytes) -> bool:
    """Whether a header block begins with a change of the size of the decoder's table."""
    return bool(block) and block[0] & 0xE0 == _SIZE_UPDATE


def is_request(fields: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether header fields are a request's head, by RFC 9113, sections 8.2 and 8.3."""
    pseudo = [name for name, _ in fields if name[:1] == b":"]
    if pseudo != [name for name, _ in fields[: len(pseudo)]] or len({*pseudo}) != len(pseudo):
        return False
    if not _PSEUDO >= {*pseudo} >= _PSEUDO - {b":authority"} or (b":path", b"") in fields:
        return False
    return all(
        (name in _PSEUDO or (_NAME.fullmatch(name) and name not in _OF_CONNECTIONS))
        and (name != b"te" or value == b"trailers")
        and not _WRONG_VALUE.search(value)
        for name, value in fields
    )


def header_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header fields in HPACK, as literals that need no table."""
    return b"".join(b"%c%b%b" % (_LITERAL, _string(name), _string(value)) for name, value in fields)


def _string(content: bytes) -> bytes:
    size = len(content)
    if size < 127:
        return b"%c%b" % (size, content)
    head, size = bytearray([127]), size - 127
    while size >= 128:
        head.append(size % 128 + 128)
        size //= 128
    head.append(size)
    return bytes(head) + content
