"""A head that a client sends again is not parsed again: whatever comes behind it gets its own answer."""

from __future__ import annotations

import json
import socket
from http.client import HTTPResponse
from pathlib import Path

import numpy as np
import pytest

from tests.support.serving import PATIENCE, Server, expected, model, serving

pytestmark = pytest.mark.server


def request(value: float, *, close: bool = False) -> bytes:
    """One row of the same number; every request has a head of the same bytes."""
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value] * 4}]}).encode()
    more = b"Connection: close\r\n" if close else b""
    return b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n" % (more, len(body)) + body


def answered(end: socket.socket, server: Server, value: float) -> HTTPResponse:
    response = HTTPResponse(end)
    response.begin()
    found = json.loads(response.read())["outputs"][0]["data"]
    wanted = expected(server.folder / "m.onnx", x=np.full((1, 4), value, np.float32))["y"][0]
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    return response


def test_each_request_of_a_known_head_has_its_own_answer(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path) as server, socket.create_connection(server.address, timeout=PATIENCE) as end:
        for value in (1.5, 2.5, 3.5):
            end.sendall(request(value))
            answered(end, server, value)
        whole = request(4.5)
        for piece in (whole[:30], whole[30:-20], whole[-20:]):  # in pieces, which may be parsed on their own
            end.sendall(piece)
        answered(end, server, 4.5)
        for close in (False, True):
            end.sendall(request(5.5, close=close))
            assert (answered(end, server, 5.5).getheader("connection") == "close") == close
        assert end.recv(1) == b""


def test_a_known_head_of_a_model_that_is_gone_is_refused(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path) as server, socket.create_connection(server.address, timeout=PATIENCE) as end:
        for _ in range(3):
            end.sendall(request(1.5))
            answered(end, server, 1.5)
        assert server.ask("POST", "/v2/repository/models/m/unload", b"").status == 200
        end.sendall(request(1.5))
        response = HTTPResponse(end)
        response.begin()
        assert (response.status, b"is not loaded" in response.read()) == (503, True)
