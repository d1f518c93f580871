"""The gRPC port by frames of HTTP/2: what real clients may send, and what none should."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import hpack
import pytest

from runtime.server import http2_frames as h2
from tests.support.frames import HEAD, PREFIXED, VALUES, Client, data, head, with_field
from tests.support.serving import PATIENCE, Server, expected, model, serving

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("closed_clients")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http2")
    model(folder / "m.onnx")
    with serving(folder, "--max-body", 2**20, "--max-head", 2048) as server:
        yield server
        assert not server.unexpected()


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


@pytest.mark.parametrize(
    "fields",
    [
        (*HEAD, (b"Upper", b"1")),
        (HEAD[3], *HEAD[:3]),
        (HEAD[0], *HEAD),
        HEAD[1:],
        with_field(b":path", b""),
        ((b":other", b"1"), *HEAD),
        (*HEAD, (b"connection", b"close")),
        (*HEAD, (b"te", b"gzip")),
        (*HEAD, (b"x-request-id", b"a\r\nb: c")),
        (*HEAD, (b"x", b" 1")),
    ],
)
def test_a_malformed_head_ends_its_stream(fields: tuple[tuple[bytes, bytes], ...], server: Server) -> None:
    client = Client(server)
    client.send(head(fields=fields), data())
    resets = (payload for kind, _, number, payload in client.frames() if (kind, number) == (h2.RST_STREAM, 1))
    assert next(resets) == h2.UINT32.pack(h2.PROTOCOL_ERROR)
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
    "a head that unpacks to far more": (
        lambda: [h2.frame(h2.HEADERS, 4, 1, hpack.Encoder().encode([(b"x", b"y" * 900)]) + b"\xbe" * 9000)],
        h2.COMPRESSION_ERROR,
    ),
    "a window beyond its limit by a setting": (
        lambda: [head(), h2.window_update(1, 2**30), h2.settings([(h2.WINDOW_SETTING, 2**31 - 1)])],
        h2.FLOW_CONTROL_ERROR,
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
