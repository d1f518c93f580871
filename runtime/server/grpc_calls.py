"""Calls of gRPC on streams of HTTP/2: messages in and out, deadlines and statuses.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import re
import struct
from abc import abstractmethod
from collections.abc import Sequence
from time import perf_counter
from urllib.parse import quote

from .bodies import decompress
from .http2 import Headers
from .http2_frames import header_block
from .http2_streams import Call, Stream
from .refusals import Malformed, NotAllowed, TooLarge, TooSlow

_NAMES = """OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED
RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS
UNAUTHENTICATED"""
CODES = {name: number for number, name in enumerate(_NAMES.split())}
"""The status codes of gRPC."""
_PREFIX = struct.Struct(">BL")
_HEAD_FIELDS = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
)
HEAD, OK = header_block(_HEAD_FIELDS), header_block([(b"grpc-status", b"0")])
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Oversized(TooLarge):
    """413 over REST; over gRPC, whose own libraries say it so, RESOURCE_EXHAUSTED."""

    code = "RESOURCE_EXHAUSTED"


class GrpcCall(Call):
    """A call; a subclass says what is done with its messages."""

    def __init__(self, stream: Stream, headers: Headers, max_body: int):
        self.stream, self.headers, self._max_body = stream, headers, max_body
        self.start: float = perf_counter()
        self._buffer = bytearray()
        self._answering = False
        self._since: float | None = None
        """``perf_counter()`` when a message began that is not all there."""

    def time_remaining(self) -> float | None:
        """The seconds until the client's deadline; None where it has none. Raises Malformed."""
        text = self.headers.get(b"grpc-timeout")
        if text is None:
            return None
        match = _TIMEOUT.fullmatch(text)
        if match is None:
            raise Malformed(f"the grpc-timeout {text[:20]!r} is not a time")
        return int(match[1]) * _UNITS[match[2]] - (perf_counter() - self.start)

    def data(self, content: bytes, ended: bool) -> None:
        """As ``Call.data``."""
        if self.stream.finished:
            return
        try:
            if self._buffer:
                self._buffer += content
                content = bytes(self._buffer) if ended or self._is_whole() else b""
            at, size = 0, len(content)
            while size - at >= 5:
                flag, length = _PREFIX.unpack_from(content, at)
                if length > self._max_body:
                    raise Oversized(f"the message has {length:,} bytes, and this server takes {self._max_body:,}")
                if size - at - 5 < length:
                    break
                message = content[at + 5 : at + 5 + length]
                at += 5 + length
                self.message(self._unpacked(message) if flag else message)
            if content:
                self._buffer = bytearray(content[at:])
                self._since = perf_counter() if self._buffer else None
            if ended and self._buffer:
                raise Malformed("the message ends too early")
            if ended:
                self.ended()
            elif self._buffer and not self.busy:  # what belongs to no whole message waits for nobody
                self.stream.connection.taken(self.stream)
        except Exception as error:  # a defect is an answer too, and in the log
            self.fail(error)

    def _is_whole(self) -> bool:
        """Whether the buffer has a message, so that it is not copied for every frame of a large one."""
        if len(self._buffer) < 5:
            return False
        length = _PREFIX.unpack_from(self._buffer)[1]
        return length > self._max_body or len(self._buffer) - 5 >= length

    def _unpacked(self, message: bytes) -> bytes:
        encoding = self.headers.get(b"grpc-encoding", b"identity")
        if encoding not in (b"gzip", b"deflate"):
            raise NotAllowed(f"this server reads the grpc-encoding gzip and deflate, and not {encoding[:40]!r}")
        try:
            return decompress(message, encoding, self._max_body)
        except TooLarge as error:
            raise Oversized(str(error)) from None

    def answer(self, message: bytes, *, last: bool = True) -> None:
        """Send a message, and with the ``last`` one the status OK."""
        head, self._answering = b"" if self._answering else HEAD, True
        self.stream.send(head, _PREFIX.pack(0, len(message)) + message, OK if last else None)

    def status(self, code: str, details: str = "", metadata: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """End the call with a status."""
        fields = [(b"grpc-status", b"%d" % CODES[code]), *metadata]
        if details:
            fields.append((b"grpc-message", quote(details, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()))
        if not self._answering:
            fields = [*_HEAD_FIELDS, *fields]
        self.stream.send(b"", b"", header_block(fields))

    @property
    def busy(self) -> bool:
        """Whether messages wait that are not worked at yet, so that the client need not send more."""
        return False

    def cancelled(self) -> None:
        """As ``Call.cancelled``."""

    def end_overdue(self, seconds: float) -> None:
        """As ``Call.end_overdue``."""
        since = self.arriving_since
        if since is not None and perf_counter() - since > seconds:
            self.fail(TooSlow("the request did not arrive in time"))

    @property
    def arriving_since(self) -> float | None:
        """Since when the client sends something that is not all there."""
        return None if self.busy else self._since

    @abstractmethod
    def message(self, content: bytes) -> None:
        """A message of the client. What it raises ends the call."""

    @abstractmethod
    def ended(self) -> None:
        """The client sends no more messages. What it raises ends the call."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """End the call with an error."""


class UnaryCall(GrpcCall):
    """One message, and one for an answer."""

    _message: bytes | None = None

    @property
    def arriving_since(self) -> float | None:
        """As ``GrpcCall.arriving_since``: until the client ends."""
        return None if self.stream.remote_ended else self.start

    def message(self, content: bytes) -> None:
        """Keep it until the client ends."""
        if self._message is not None:
            raise Malformed("a second message, in a call that takes one")
        self._message = content

    def ended(self) -> None:
        """Run the call."""
        if self._message is None:
            raise Malformed("no message, in a call that takes one")
        self.run(self._message)

    @abstractmethod
    def run(self, content: bytes) -> None:
        """Answer the message. What it raises ends the call."""
