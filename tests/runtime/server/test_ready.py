"""Readiness of ``mlpx serve`` itself, over REST and gRPC, while faults come and go in its workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton

from tests.support import ROOT
from tests.support.servers.planted import FAULTS
from tests.support.servers.planting import prepare, turn, turned
from tests.support.serving import Server, ask, serving, until
from tests.support.stress.models import Proved, proved

PROGRAM = (str(ROOT / "tests" / "support" / "servers" / "planted_serve.py"),)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def plan(arm: Proved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("plan") / "plan", arm.file, arm.answers)


@pytest.fixture(scope="module")
def server(arm: Proved, plan: Path) -> Iterator[Server]:
    """Two workers that obey the folder of faults, and check every 0.1 s."""
    options = ("--workers", 2, "--verify-every", 0.1)
    with serving(arm.file.parent, *options, environment={"PLANTED": str(plan)}, program=PROGRAM) as running:
        until(lambda: len(running.events("listening")) == 2)
        yield running


def readiness(server: Server) -> set[bool]:
    """What the server says of itself and of its model, over both protocols, asked on several connections."""
    paths = ("/v2/health/ready", "/v2/models/arm/ready", "/v2/models/arm/versions/1/ready")
    said = {ask(server.url, "GET", path).status == 200 for path in paths for _ in range(4)}
    own: Any = [("grpc.use_local_subchannel_pool", 1)]
    for number in range(4):
        client: Any
        with triton.InferenceServerClient(server.grpc, channel_args=[*own, ("mlpx.connection", number)]) as client:
            said |= {client.is_server_ready(), client.is_model_ready("arm"), client.is_model_ready("arm", "1")}
    return said


def everywhere(server: Server, ready: bool) -> bool:
    """Whether all workers say so: asked so often that each of them is."""
    return all(readiness(server) == {ready} for _ in range(10))


def metrics(server: Server) -> list[str]:
    return ask(server.url, "GET", "/metrics").body.decode().splitlines()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_turns_readiness_off_and_its_end_turns_it_on(
    server: Server, plan: Path, arm: Proved, fault: str
) -> None:
    assert readiness(server) == {True}
    with turned(plan, fault):
        until(lambda: readiness(server) == {False}, "readiness ends")
        assert 'mlpx_model_right{model="arm",version="1"} 0' in metrics(server)
        assert "mlpx_ready 0" in metrics(server)
        error = ask(server.url, "GET", "/v2/health/ready").error
        assert error.startswith("not what was proved: arm 1: 'output': ")
    until(lambda: readiness(server) == {True}, "readiness returns")
    assert 'mlpx_model_right{model="arm",version="1"} 1' in metrics(server)
    assert "mlpx_ready 1" in metrics(server)
    x = arm.answers.inputs["input"][:2]
    body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}]}
    (output,) = ask(server.url, "POST", "/v2/models/arm/infer", body).json["outputs"]
    difference = np.abs(np.reshape(output["data"], output["shape"]) - arm.answers.exact["output"][:2])
    assert np.all(difference <= arm.answers.bound["output"][:2])


def test_what_one_worker_finds_holds_for_all(server: Server, plan: Path) -> None:
    """Whichever worker a probe reaches, one that computes something else takes the server out."""
    victim = server.workers()[0]
    with turned(plan, f"TF32@{victim}"):
        until(lambda: everywhere(server, False), "readiness ends")
        wrong = {event["pid"] for event in server.events("model_wrong")[-1:]}
        assert wrong == {victim}
        started = len(server.events("listening"))
        (other,) = {*server.workers()} - {victim}
        os.kill(other, signal.SIGKILL)
        until(lambda: len(server.events("listening")) > started, "another worker")
        until(lambda: everywhere(server, False), "the new worker knows")
    until(lambda: everywhere(server, True), "readiness returns")


def test_a_worker_that_was_wrong_and_died_is_forgotten(server: Server, plan: Path) -> None:
    victim = server.workers()[0]
    with turned(plan, f"another version@{victim}"):
        until(lambda: everywhere(server, False), "readiness ends")
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in server.workers() and len(server.workers()) == 2, "another worker")
        until(lambda: everywhere(server, True), "readiness returns")


def test_a_server_that_is_wrong_at_its_start_waits_to_be_right(arm: Proved, plan: Path) -> None:
    turn(plan, "a stale file")
    options = ("--verify-every", 0.1)
    with serving(arm.file.parent, *options, environment={"PLANTED": str(plan)}, program=PROGRAM) as server:
        (entry,) = server.models
        assert entry["state"] == "NOT_READY"
        assert "values beyond the bound" in entry["reason"]
        assert readiness(server) == {False}
        turn(plan, "")
        until(lambda: readiness(server) == {True}, "readiness returns")
