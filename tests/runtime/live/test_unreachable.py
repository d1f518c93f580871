"""``check_live`` where no server of models answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime import UnreachableError, check_live
from runtime.live.connection import Connection, parse_url
from runtime.live.grpc_client import GrpcClient
from runtime.live.protocol import ServerError
from runtime.live.rest_client import RestClient
from tests.support.live import case


@pytest.mark.parametrize(
    ("scheme", "sent", "words"),
    [
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        ("http", b"", "without an answer"),
        ("http", None, "no complete answer within 0.3 s"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", r"no TLS \(.*\); perhaps it speaks plain http://"),
        ("https", None, "no connection within 0.3 s"),
        ("grpc", None, "no complete answer within 0.3 s"),
        ("grpc", b"", "it closed the connection without an answer"),
        ("grpcs", b"HTTP/1.1 400 Bad Request\r\n\r\n", "no TLS; perhaps it speaks plain grpc://"),
    ],
)
def test_what_is_no_server_of_models_cannot_be_reached(scheme: str, sent: bytes | None, words: str) -> None:
    with listening(sent, close=sent is not None) as port, pytest.raises(UnreachableError, match=words):
        check_live(f"{scheme}://127.0.0.1:{port}/v2/models/m", case(), timeout=0.3)


def test_an_answer_over_grpc_has_the_bytes_of_every_output() -> None:
    pb: Any = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed")
    client = GrpcClient(Connection(parse_url("grpc://127.0.0.1:1/v2/models/m"), 1.0, None, None, 2**20))
    response = pb.ModelInferResponse(raw_output_contents=[bytes(4), bytes(4)])
    response.outputs.add(name="y", datatype="FP32", shape=[1, 1])
    client._stub = SimpleNamespace(ModelInfer=lambda _request, **_: response)
    with closing(client), pytest.raises(ServerError, match="1 outputs with the bytes of 2"):
        client.infer({"x": np.zeros((1, 1), np.float32)}, "1", None, binary=True)


def test_an_answer_that_never_ends_is_given_up_on() -> None:
    """Without a length, the end of the connection would be the end of the answer."""
    with listening(b"HTTP/1.1 200 OK\r\n\r\n{}", close=False) as port:
        client = RestClient(Connection(parse_url(f"http://127.0.0.1:{port}/v2/models/m"), 0.1, None, None, 2**20))
        with closing(client), pytest.raises(ServerError, match=r"no complete answer within 0\.1 s"):
            client.server_info()


def test_a_name_that_no_host_can_have_cannot_be_reached() -> None:
    with pytest.raises(UnreachableError, match=r"cannot be reached: .*label.* too long"):
        check_live(f"http://{'a' * 64}.example/v2/models/m", case())


@contextmanager
def listening(sent: bytes | None, *, close: bool) -> Iterator[int]:
    """The port of something that takes a connection, and sends this when it is asked, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            connection, _ = server.accept()
            kept.append(connection)
            connection.recv(65536)
            if sent is not None:
                connection.sendall(sent)
            if close:
                connection.close()

        thread = Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        thread.join()
        for connection in kept:
            connection.close()
