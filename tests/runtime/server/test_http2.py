"""The gRPC port by frames of HTTP/2: what real clients may send, and what none should."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import hpack
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from runtime.server import http2_frames as h2
from tests.support.serving import PATIENCE, Server, expected, model, rows, serving

pytestmark = pytest.mark.server
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http2")
    model(folder / "m.onnx")
    with serving(folder, "--max-body", 2**20, "--max-head", 2048) as server:
        yield server
        assert not server.unexpected()


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

    def fault(self) -> int | None:
        """The error code that the connection ends with; None: without one."""
        return next((h2.UINT32.unpack(p[4:8])[0] for kind, _, _, p in self.frames() if kind == h2.GOAWAY), None)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while Client.all:
        Client.all.pop().end.close()


def head(stream: int = 1, flags: int = h2.END_HEADERS, fields: tuple[tuple[bytes, bytes], ...] = HEAD) -> bytes:
    return h2.frame(h2.HEADERS, flags, stream, hpack.Encoder().encode(fields))


def data(content: bytes = PREFIXED, stream: int = 1, flags: int = h2.END_STREAM) -> bytes:
    return h2.frame(h2.DATA, flags, stream, content)


def test_a_message_may_come_in_any_pieces(server: Server) -> None:
    wanted = expected(server.folder / "m.onnx", x=VALUES)["y"]
    block = hpack.Encoder().encode(HEAD)
    padded = b"\x05" + PREFIXED + bytes(5)
    ways = {
        "at once": [head() + data()],
        "byte by byte": [bytes([byte]) for byte in head() + data()],
        "a frame for each byte": [head(), *(data(bytes([b]), flags=0) for b in PREFIXED), data(b"")],
        "a head in pieces": [
            h2.frame(h2.HEADERS, 0, 1, block[:7]),
            h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[7:]),
            data(),
        ],
        "padding": [head(), data(padded, flags=h2.PADDED | h2.END_STREAM)],
        "priority": [h2.frame(h2.HEADERS, h2.END_HEADERS | h2.HAS_PRIORITY, 1, bytes(5) + block), data()],
    }
    for frames in ways.values():
        client = Client(server)
        for piece in frames:
            client.send(piece)
        values, fields = client.answer()
        assert values == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        assert fields[b"grpc-status"] == b"0"
        client.end.close()


def test_streams_are_answered_side_by_side_and_a_reset_one_is_not(server: Server) -> None:
    client = Client(server)
    client.send(head(1), head(3), data(stream=3), h2.reset(1, h2.CANCEL))
    assert client.answer(3)[1][b"grpc-status"] == b"0"
    client.send(data(stream=1), head(5), data(stream=5))
    assert client.answer(5)[1][b"grpc-status"] == b"0"


def test_a_client_with_little_room_gets_all_of_its_answer(server: Server) -> None:
    client = Client(server, window=7)
    client.send(head(), data())
    values, fields = client.answer()
    assert values == pytest.approx(expected(server.folder / "m.onnx", x=VALUES)["y"], rel=1e-5, abs=1e-6)
    assert fields[b"grpc-status"] == b"0"


def with_field(name: bytes, value: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return (*(field for field in HEAD if field[0] != name), (name, value))


@pytest.mark.parametrize(
    ("fields", "content", "code"),
    [
        (with_field(b":path", b"/inference.GRPCInferenceService/Nothing"), PREFIXED, 12),
        (with_field(b":method", b"GET"), PREFIXED, 3),
        (with_field(b"content-type", b"text/plain"), PREFIXED, 3),
        (with_field(b"grpc-timeout", b"soon"), PREFIXED, 3),
        (with_field(b"grpc-timeout", b"1n"), PREFIXED, 4),
        (with_field(b"x", b"y" * 3000), PREFIXED, 8),
        (with_field(b"grpc-encoding", b"snappy"), b"\x01" + PREFIXED[1:], 12),
        (with_field(b"grpc-encoding", b"gzip"), b"\x01" + PREFIXED[1:], 3),
        (HEAD, PREFIXED[:-1], 3),
        (HEAD, PREFIXED + PREFIXED, 3),
        (HEAD, b"", 3),
        (HEAD, b"\x00\x00\x00\x00\x02\xff\xff", 3),
        (HEAD, struct.pack(">BL", 0, 2**21), 8),
    ],
)
def test_a_wrong_call_has_its_status_and_the_connection_goes_on(
    fields: tuple[tuple[bytes, bytes], ...], content: bytes, code: int, server: Server
) -> None:
    client = Client(server)
    client.send(head(fields=fields), data(content))
    assert client.answer()[1][b"grpc-status"] == b"%d" % code
    client.send(head(3), data(stream=3))
    assert client.answer(3)[1][b"grpc-status"] == b"0"


WRONG: dict[str, tuple[Callable[[], list[bytes]], int]] = {
    "a frame that is too large": (lambda: [h2.HEAD.pack(65, 0, h2.DATA, 0, 1)], h2.FRAME_SIZE_ERROR),
    "data of no stream": (lambda: [data(stream=7)], h2.STREAM_CLOSED),
    "an even stream": (lambda: [head(2)], h2.PROTOCOL_ERROR),
    "a stream once more": (lambda: [head(3), head(1)], h2.PROTOCOL_ERROR),
    "a head that cannot be decoded": (
        lambda: [h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff")],
        h2.COMPRESSION_ERROR,
    ),
    "a head interrupted": (lambda: [head(flags=0), data()], h2.PROTOCOL_ERROR),
    "a head without end": (
        lambda: [h2.frame(h2.HEADERS, 0, 1), *[h2.frame(h2.CONTINUATION, 0, 1, bytes(1000))] * 20],
        h2.ENHANCE_YOUR_CALM,
    ),
    "padding longer than its frame": (lambda: [head(), data(b"\x09abc", flags=h2.PADDED)], h2.PROTOCOL_ERROR),
    "a window enlarged by nothing": (lambda: [h2.window_update(0, 0)], h2.PROTOCOL_ERROR),
    "a window beyond its limit": (lambda: [h2.window_update(0, h2.LARGEST_WINDOW)], h2.FLOW_CONTROL_ERROR),
    "settings of another size": (lambda: [h2.frame(h2.SETTINGS, 0, 0, b"12345")], h2.FRAME_SIZE_ERROR),
    "a push": (lambda: [h2.frame(h2.PUSH_PROMISE, 0, 1, bytes(4))], h2.PROTOCOL_ERROR),
    "resets without end": (
        lambda: [piece for n in range(1, 6001, 2) for piece in (head(n), h2.reset(n, h2.CANCEL))],
        h2.ENHANCE_YOUR_CALM,
    ),
    "pings without end": (lambda: [h2.frame(h2.PING, 0, 0, bytes(8))] * 3000, h2.ENHANCE_YOUR_CALM),
    "empty data without end": (lambda: [head(), *[data(b"", flags=0)] * 3000], h2.ENHANCE_YOUR_CALM),
    "HTTP/1.1": (list, h2.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_client_that_breaks_the_protocol_loses_its_connection_and_no_other(name: str, server: Server) -> None:
    frames, code = WRONG[name]
    client = Client(server)
    if name == "HTTP/1.1":
        host, port = server.grpc.rsplit(":", 1)
        client.end.close()
        client.end = socket.create_connection((host, int(port)), timeout=PATIENCE)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with suppress(BrokenPipeError, ConnectionResetError):
        client.send(*frames())
    assert client.fault() in (code, None)
    other = Client(server)
    other.send(head(), data())
    assert other.answer()[1][b"grpc-status"] == b"0"


def test_a_server_that_stops_says_so_and_answers_what_came(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path) as server:
        client = Client(server)
        client.send(head(), PREFIXED and data(PREFIXED[:10], flags=0))
        server.process.terminate()
        kinds = (kind for kind, *_ in client.frames())
        assert h2.GOAWAY in kinds
        client.send(data(PREFIXED[10:]))
        assert b"grpc-status" in client.answer()[1]
        assert server.stop() == 0
