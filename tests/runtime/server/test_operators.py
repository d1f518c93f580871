"""What those who run a server see: signals, what is proved, why a request was refused, and large bodies."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlpx.terminal import environment, plain
from tests.support.serving import Server, expected, model, rows, serving, until

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("operators")
    model(folder / "m.onnx")
    with serving(folder, "--max-body", 2**26, "--max-rows", 10**6) as server:
        yield server


def request(values: object, shape: list[int]) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": values}]}).encode()


def test_what_is_not_proved_is_said_in_the_index_and_at_the_start(server: Server) -> None:
    assert server.models[0]["proved"] is False
    assert server.ask("POST", "/v2/repository/index", b"").json[0]["proved"] is False
    assert server.ask("GET", "/v2/models/m").json["parameters"]["proved"] is False


def test_a_refusal_is_logged_with_its_reason(server: Server) -> None:
    error = server.ask("POST", "/v2/models/m/infer", request([1, 2], [1, 4]), {"x-request-id": "short"}).error
    entry = until(lambda: [e for e in server.events("request") if e["request"] == "short"])[0]
    assert (entry["status"], entry["error"]) == (400, error)


def test_large_json_is_parsed_in_another_process(server: Server) -> None:
    values = rows(60_000)
    body = request(values.tolist(), [60_000, 4])
    assert len(body) > 2**20
    answer = server.ask("POST", "/v2/models/m/infer", body).json["outputs"][0]
    wanted = expected(server.folder / "m.onnx", x=values)["y"].ravel()
    assert answer["data"] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    assert "24,000" not in server.ask("POST", "/v2/models/m/infer", body[:-3] + b"]]]").error
    assert (
        "has 240,000 values" in server.ask("POST", "/v2/models/m/infer", body.replace(b"60000, 4", b"60001, 4")).error
    )
    (worker,) = server.workers()
    children = Path(f"/proc/{worker}/task").glob("*/children")
    parsers = [pid for child in children for pid in child.read_text().split()]
    parser = next(int(pid) for pid in parsers if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(parser, signal.SIGKILL)
    for _ in range(2):  # once here, once in a new process
        assert server.ask("POST", "/v2/models/m/infer", body).status == 200


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP as a terminal's programs get it, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_a_closed_terminal_ends_it_unless_nohup_says_otherwise(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path) as server:
        assert server.stop(signal.SIGHUP) == 0
        assert server.events("stopped")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as from nohup
    with serving(tmp_path) as server:
        server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGUSR1)
        assert server.ask("GET", "/v2/health/ready").status == 200
        assert server.stop() == 0


@pytest.mark.usefixtures("hangup")
def test_a_terminal_gets_lines_for_people(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mlpx", "serve", tmp_path, "--port", 0, "--no-grpc", "--device", "cpu"]
    process = subprocess.Popen(
        [*map(str, command)], env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    printed = b""
    while b"listening" not in printed or b"model     " not in printed:
        printed += os.read(ours, 65536)
    os.close(ours)  # the terminal is closed
    process.send_signal(signal.SIGHUP)
    process.wait(60)
    text = plain(printed.decode())
    assert "m 1: ready, not proved" in text
    assert "model loaded: model m, version 1" in text
    assert "proved no" in text
    assert "{" not in text
