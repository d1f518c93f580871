"""The gRPC port and clients that send slowly, take nothing, or send any frames: others are answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import hpack
import numpy as np
import pytest
import tritonclient.grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.server import http2_frames as h2
from tests.support.frames import HEAD, PREFIXED, Client, data, head, with_field
from tests.support.repeats import examples
from tests.support.serving import Server, expected, model, rows, serving, until

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("closed_clients")]
STREAM = with_field(b":path", b"/inference.GRPCInferenceService/ModelStreamInfer")
UNTIL_PONG = h2.frame(h2.PING, 0, 0, b"are you?")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http2")
    model(folder / "m.onnx")
    large = "--max-body", 2**26, "--max-rows", 2**22, "--queue-rows", 2**22
    with serving(folder, *large, "--uds", folder / "s") as server:
        yield server
        assert not server.unexpected()


def until_pong(client: Client) -> list[tuple[int, int]]:
    """Kinds and streams of what the server had sent by now."""
    client.send(UNTIL_PONG)
    found: list[tuple[int, int]] = []
    for kind, flags, number, payload in client.frames():
        if kind == h2.PING and flags & h2.ACK and payload == UNTIL_PONG[9:]:
            return found
        found.append((kind, number))
    raise AssertionError("the connection has ended")


def answered(server: Server) -> int:
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith("mlpx_requests_total") and '"OK"' in line)


def test_large_messages_both_ways(server: Server) -> None:
    values = rows(2**21)
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        x = tritonclient.grpc.InferInput("x", list(values.shape), "FP32")
        x.set_data_from_numpy(values)
        found: Any = client.infer("m", [x])
    wanted = expected(server.folder / "m.onnx", x=values)["y"]
    np.testing.assert_allclose(found.as_numpy("y"), wanted, rtol=1e-5, atol=1e-5)


def test_a_client_that_takes_no_answers_of_a_stream_gets_one_until_it_does(server: Server) -> None:
    client, other = Client(server, window=0), Client(server)
    before = answered(server)
    many = h2.WINDOW // 2 // len(PREFIXED) + 10
    sent = PREFIXED * many + PREFIXED[:50]
    client.send(head(fields=STREAM), *(data(sent[i : i + 2**14], flags=0) for i in range(0, len(sent), 2**14)))
    for number in range(1, 61, 2):
        other.send(head(number), data(stream=number))
        assert other.answer(number)[1][b"grpc-status"] == b"0"
    assert (h2.WINDOW_UPDATE, 1) not in until_pong(client)
    assert answered(server) - before == 31
    client.send(h2.window_update(0, 2**30), h2.window_update(1, 2**30), data(PREFIXED[50:]))
    body = b""
    for kind, flags, number, payload in client.frames():
        body += payload if (kind, number) == (h2.DATA, 1) else b""
        if kind == h2.HEADERS and flags & h2.END_STREAM:
            break
    assert answered(server) - before == 31 + many
    assert body.count(b"FP32") == many + 1


def test_a_stream_may_be_long_and_its_client_may_ask_whether_the_server_is_there(server: Server) -> None:
    client = Client(server, window=2**30)
    client.send(head(fields=STREAM), h2.window_update(0, 2**30))
    for _ in range(30):
        client.send(*[data(flags=0) + h2.frame(h2.PING, 0, 0, bytes(8))] * 100)
        taken = 0
        for kind, _, number, payload in client.frames():
            taken += payload.count(b"FP32") if (kind, number) == (h2.DATA, 1) else 0
            if taken == 100:
                break
        assert taken == 100


def test_a_client_that_reads_nothing_is_not_read_without_end(server: Server) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(f"{server.folder / 's'}.grpc")
        end.sendall(h2.PREFACE + h2.settings([]))
        block = hpack.Encoder().encode(with_field(b":method", b"GET"))
        flags = h2.END_HEADERS | h2.END_STREAM
        requests = b"".join(h2.frame(h2.HEADERS, flags, number, block) for number in range(1, 200_001, 2))
        end.setblocking(False)
        other, number, sent, waited = Client(server), 1, 0, 0
        while sent < len(requests) and waited < 50:
            try:
                sent, waited = sent + end.send(requests[sent : sent + 2**16]), 0
            except BlockingIOError:  # others are answered, so the server could have read more
                other.send(head(number), data(stream=number))
                assert other.answer(number)[1][b"grpc-status"] == b"0"
                number, waited = number + 2, waited + 1
        assert sent < len(requests)


def test_what_takes_too_long_is_ended_and_what_waits_is_not(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path, "--read-timeout", 1) as server:
        idle = Client(server)
        idle.send(head(fields=STREAM))
        slow = Client(server)
        slow.send(head(1), data(PREFIXED[:20], flags=0), head(3), head(5, fields=STREAM), data(PREFIXED[:3], 5, 0))
        for number in (1, 3, 5):
            assert slow.status(number) == b"4"
        closed = Client(server, window=0)
        closed.send(head(), data())
        resets = (payload for kind, _, number, payload in closed.frames() if (kind, number) == (h2.RST_STREAM, 1))
        assert next(resets) == h2.UINT32.pack(h2.CANCEL)
        closed.send(h2.settings([(h2.WINDOW_SETTING, 2**20)]), head(3), data(stream=3))
        assert closed.answer(3)[1][b"grpc-status"] == b"0"
        idle.send(data())
        assert idle.status(1) == b"0"


def test_a_server_that_stops_does_not_wait_for_a_call_that_was_cancelled(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path, "--grace", 600) as server:
        client = Client(server)
        client.send(head(), data(PREFIXED[:10], flags=0))
        until_pong(client)
        server.process.terminate()
        assert any(kind == h2.GOAWAY for kind, *_ in client.frames())
        client.send(h2.reset(1, h2.CANCEL))
        assert server.stop() == 0


KINDS = st.sampled_from([*range(10), 11, 255])
NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1])
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", bytes(4), bytes(8), b"\x00\x00\x00\x01", b"\x7f\xff\xff\xff", PREFIXED, PREFIXED[:20]]),
    st.sampled_from([hpack.Encoder().encode(HEAD), hpack.Encoder().encode(STREAM), b"\x20", b"\x3f\xe1\x1f"]),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2**14, 2**31 - 1, 2**32 - 1])), max_size=4).map(
        lambda pairs: b"".join(h2.SETTING.pack(*pair) for pair in pairs)
    ),
)
FRAMES = st.one_of(
    st.tuples(KINDS, st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x25, 255]), NUMBERS, PAYLOADS).map(
        lambda parts: h2.frame(*parts)
    ),
    st.sampled_from([head(n, flags) for n in (1, 3, 5) for flags in (4, 5)]),
    st.sampled_from([data(stream=n, flags=flags) for n in (1, 3, 5) for flags in (0, 1)]),
    st.binary(max_size=30),
)


def test_any_frames_end_at_most_their_connection(server: Server) -> None:
    good, numbers = Client(server), count(1, 2)
    until_pong(good)
    (worker,) = server.workers()
    files = Path(f"/proc/{worker}/fd")
    before = len([*files.iterdir()])

    @given(st.lists(FRAMES, max_size=30), st.sampled_from([0, 1, h2.INITIAL_WINDOW]))
    @settings(max_examples=examples(200, of=3000), deadline=None)
    def holds(frames: list[bytes], window: int) -> None:
        bad, number = Client(server, window=window), next(numbers)
        with suppress(BrokenPipeError, ConnectionResetError):
            bad.send(*frames)
        good.send(head(number), data(stream=number))
        assert good.answer(number)[1][b"grpc-status"] == b"0"
        Client.all.remove(bad)
        bad.end.close()

    holds()
    until(lambda: len([*files.iterdir()]) <= before, "connections that are closed")
