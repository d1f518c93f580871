"""Several processes on the same ports: load reaches all, counters add up, one that dies is started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient import grpc as triton

from tests.support.serving import Server, ask, model, rows, serving, until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [0] * 8}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    model(tmp_path / "served" / "m.onnx")
    with serving(tmp_path / "served", "--workers", 2, "--log-requests") as running:
        until(lambda: len(running.events("listening")) == 2)
        yield running


def pids(server: Server) -> set[int]:
    return {event["pid"] for event in server.events("model_loaded") if alive(event["pid"])}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answered(server: Server) -> dict[int, int]:
    """How many requests each process answered with tensors, by the log."""
    found: dict[int, int] = {}
    for event in server.events("request"):
        if event["status"] in (200, "OK") and "nfer" in event["what"]:
            found[event["pid"]] = found.get(event["pid"], 0) + 1
    return found


def infer(server: Server) -> None:
    assert ask(server.url, "POST", "/v2/models/m/infer", BODY).status == 200


def infer_grpc(server: Server, connection: int) -> None:
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(rows(1))
    own: Any = [("grpc.use_local_subchannel_pool", 1), ("mlpx.connection", connection)]  # a connection of its own
    with triton.InferenceServerClient(server.grpc, channel_args=own) as client:
        client.infer("m", [x])


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_every_process_answers_and_counters_add_up(server: Server, protocol: str) -> None:
    sent = 0
    deadline = time.monotonic() + 60
    while len(answered(server)) < 2:
        assert time.monotonic() < deadline, answered(server)
        infer(server) if protocol == "rest" else infer_grpc(server, sent)
        sent += 1
    until(lambda: sum(answered(server).values()) == sent)
    for _ in range(4):  # whichever process is asked
        (told,) = ask(server.url, "GET", "/v2/models/m/stats").json["model_stats"]
        assert told["inference_stats"]["success"]["count"] == sent
        assert told["inference_count"] == sent * (2 if protocol == "rest" else 1)
        text = ask(server.url, "GET", "/metrics").body.decode()
        assert f'mlpx_requests_total{{model="m",version="1",code="OK"}} {sent}' in text.splitlines()


def test_load_and_unload_reach_every_process(server: Server) -> None:
    def statuses() -> set[int]:
        return {ask(server.url, "POST", "/v2/models/m/infer", BODY).status for _ in range(30)}

    assert ask(server.url, "POST", "/v2/repository/models/m/unload").status == 200
    assert statuses() == {503}
    both = pids(server)
    os.kill(min(both), signal.SIGKILL)  # one that is started later leaves it out too
    until(lambda: server.events("worker_died"))
    until(lambda: len({event["pid"] for event in server.events("listening")}) == 3)
    assert statuses() == {503}
    assert ask(server.url, "POST", "/v2/repository/models/m/load").status == 200
    assert statuses() == {200}
    (server.folder / "m.onnx").write_bytes(b"broken")
    refused = ask(server.url, "POST", "/v2/repository/models/m/load")
    assert refused.status == 400
    assert "m.onnx" in refused.error
    assert statuses() == {200}


def test_a_process_that_is_killed_is_started_again_and_the_other_answers(server: Server) -> None:
    victim, other = sorted(pids(server))
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(victim))
    for _ in range(20):
        infer(server)
    until(lambda: len(pids(server)) == 2)
    (died,) = server.events("worker_died")
    assert (died["worker"], died["exit"]) == (victim, -signal.SIGKILL)
    (new,) = pids(server) - {other}
    deadline = time.monotonic() + 60
    while new not in answered(server):
        assert time.monotonic() < deadline
        infer(server)


def test_no_process_is_left_behind(server: Server) -> None:
    both = pids(server)
    assert server.stop() == 0
    assert not any(alive(pid) for pid in both)
    assert {event["pid"] for event in server.events("stopped")} == both


def test_workers_end_with_their_supervisor(server: Server) -> None:
    both = pids(server)
    server.process.kill()
    server.process.wait(60)
    until(lambda: not any(alive(pid) for pid in both))
