"""Frames of HTTP/2 to a server's gRPC port, and what comes back."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

import hpack
import numpy as np
from tritonclient.grpc import service_pb2

from runtime.server import http2_frames as h2
from tests.support.serving import PATIENCE, Server, rows

Message: Any = service_pb2
VALUES = rows(3)
REQUEST: bytes = Message.ModelInferRequest(
    model_name="m",
    inputs=[{"name": "x", "datatype": "FP32", "shape": [3, 4]}],
    raw_input_contents=[VALUES.tobytes()],
).SerializeToString()
PREFIXED = struct.pack(">BL", 0, len(REQUEST)) + REQUEST
HEAD = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
    (b"content-type", b"application/grpc"),
)


class Client:
    """A connection that sends frames and reads them; ``closed`` after each test."""

    all: ClassVar[list[Client]] = []

    def __init__(self, server: Server, *, window: int = h2.INITIAL_WINDOW):
        host, port = server.grpc.rsplit(":", 1)
        self.all.append(self)
        self.end = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.send(h2.PREFACE + h2.settings([(h2.WINDOW_SETTING, window)]))
        self.decoder, self._held = hpack.Decoder(), b""

    def send(self, *frames: bytes) -> None:
        self.end.sendall(b"".join(frames))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of what comes, until the connection ends."""
        while True:
            while len(self._held) >= 9:
                upper, lower, kind, flags, number = h2.HEAD.unpack_from(self._held)
                size = 9 + (upper << 8) + lower
                if len(self._held) < size:
                    break
                payload, self._held = self._held[9:size], self._held[size:]
                yield kind, flags, number, payload
            try:
                piece = self.end.recv(1 << 16)
            except ConnectionResetError:
                return
            if not piece:
                return
            self._held += piece

    def answer(self, stream: int = 1) -> tuple[np.ndarray | None, dict[bytes, bytes]]:
        """The output and the trailers of a stream."""
        body, fields = b"", {}
        for kind, flags, number, payload in self.frames():
            if number == stream and kind == h2.DATA:
                body += payload
                self.send(h2.window_update(0, len(payload)), h2.window_update(stream, len(payload)))
            elif kind == h2.HEADERS:
                fields = dict(self.decoder.decode(payload, raw=True))
                if number == stream and flags & h2.END_STREAM:
                    break
        if not body:
            return None, fields
        raw = Message.ModelInferResponse.FromString(body[5:]).raw_output_contents[0]
        return np.frombuffer(raw, "<f4").reshape(-1, 3), fields

    def status(self, stream: int) -> bytes | None:
        """The grpc-status of a stream; None: the connection ended before it."""
        for kind, flags, number, payload in self.frames():
            fields = dict(self.decoder.decode(payload, raw=True)) if kind == h2.HEADERS else {}
            if number == stream and flags & h2.END_STREAM:
                return fields.get(b"grpc-status")
        return None

    def fault(self) -> int | None:
        """The error code that the connection ends with; None: without one."""
        return next((h2.UINT32.unpack(p[4:8])[0] for kind, _, _, p in self.frames() if kind == h2.GOAWAY), None)


def head(stream: int = 1, flags: int = h2.END_HEADERS, fields: tuple[tuple[bytes, bytes], ...] = HEAD) -> bytes:
    return h2.frame(h2.HEADERS, flags, stream, hpack.Encoder().encode(fields))


def data(content: bytes = PREFIXED, stream: int = 1, flags: int = h2.END_STREAM) -> bytes:
    return h2.frame(h2.DATA, flags, stream, content)


def with_field(name: bytes, value: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """``HEAD`` with another value of a field, or one more."""
    changed = tuple((key, value if key == name else old) for key, old in HEAD)
    return changed if changed != HEAD else (*HEAD, (name, value))
