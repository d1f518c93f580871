"""The package for KServe's own server, served by the KServe SDK and asked with NVIDIA's client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.commands import Run
from tests.servers.asking import (
    Live,
    Way,
    ask_grpc,
    assert_proved,
    get,
    over_grpc,
    over_rest,
    over_rest_binary,
    policy_package,
    post,
    request,
    sixteen,
    smoke_test,
)
from tests.servers.environments import environment, variables
from tests.servers.running import free_ports, running
from tests.servers.wrong import WRONG, assert_neighbours_are_answered, wrong


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The server of backend "custom", started as the package's image starts it."""
    folder, server = tmp_path_factory.mktemp("kserve"), environment("kserve")
    made = policy_package(folder, "kserve", backend="custom", max_batch=64)
    http, grpc = free_ports(2)
    found = Live(made, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    image = (made.folder / "Dockerfile").read_text()
    python, script, *options = json.loads(image.partition("CMD ")[2])
    start = [server / "bin" / python, made.folder / script.lstrip("/"), *options]
    ports = [f"--http_port={http}", f"--grpc_port={grpc}"]
    ready = f"http://{found.http}/v2/health/ready"
    with running([*start, *ports], ready=ready, log=folder / "log", env=variables(server), cwd=folder):
        yield found


WAYS: dict[str, Way] = {"gRPC": over_grpc, "REST, JSON": over_rest, "REST, binary": over_rest_binary}


@pytest.mark.parametrize("way", WAYS)
def test_every_row_and_sixteen_requests_at_once_are_answered_within_their_bounds(live: Live, way: str) -> None:
    parts = [slice(0, live.answers.rows), *sixteen(live.answers)]
    for rows, found in zip(parts, WAYS[way](live, parts), strict=True):
        assert_proved(live, rows, found)


def test_the_metadata_is_the_file_s(live: Live) -> None:
    told, summary = get(live), live.package.deployment.summary
    for kind in ("inputs", "outputs"):
        expected = [{"name": p.name, "datatype": "FP32", "shape": [-1, *p.shape[1:]]} for p in getattr(summary, kind)]
        assert told[kind] == expected


def test_verify_url_and_the_smoke_test_pass(live: Live, run: Run) -> None:
    for url in (live.url, f"grpc://{live.grpc}/v2/models/policy"):
        done = run("verify", "--url", url, "--certificate", live.certificate)
        assert done.code == 0, done.out + done.err
    checked = smoke_test(live)
    assert checked.returncode == 0 and "within their bounds" in checked.stdout, checked.stderr


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_400_and_says_why(live: Live, name: str) -> None:
    status, answer = post(live, wrong(live, name))
    assert status == 400 and WRONG[name][1] in answer["error"]


@pytest.mark.parametrize(("body", "status"), [(b"{", 422), (b"{}", 422), (b'{"inputs": 3}', 422), (b"\xff", 400)])
def test_a_body_that_is_no_request_gets_what_kserve_says(live: Live, body: bytes, status: int) -> None:
    assert post(live, body)[0] == status


def test_wrong_requests_do_not_spoil_the_answers_of_others(live: Live) -> None:
    assert_neighbours_are_answered(live)


def test_a_nan_is_the_answer_of_its_own_row_only(live: Live) -> None:
    inputs = {name: values[:3].copy() for name, values in live.answers.inputs.items()}
    inputs["obs"][1, 0] = np.nan
    for values in ask_grpc(live, inputs).values():
        assert np.isnan(values[1]).all() and np.isfinite(values[[0, 2]]).all()


def test_the_outputs_that_are_asked_for_are_given(live: Live) -> None:
    status, answer = post(live, request(live) | {"id": "17", "outputs": [{"name": "value"}]})
    assert status == 200 and answer["id"] == "17"
    assert [output["name"] for output in answer["outputs"]] == ["value"]
