"""The package for MLServer, served by MLServer itself and asked with NVIDIA's client."""

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
    folder, server = tmp_path_factory.mktemp("mlserver"), environment("mlserver")
    made = policy_package(folder, "mlserver", max_batch=64)
    http, grpc, metrics = free_ports(3)
    settings = made.folder / "settings.json"
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | ports))
    found = Live(made, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    start, ready = [server / "bin" / "mlserver", "start", "."], f"{found.url}/ready"
    with running(start, ready=ready, log=folder / "log", env=variables(server), cwd=made.folder):
        yield found


WAYS: dict[str, Way] = {"gRPC": over_grpc, "REST, JSON": over_rest}


@pytest.mark.parametrize("way", WAYS)
def test_every_row_and_sixteen_requests_at_once_are_answered_within_their_bounds(live: Live, way: str) -> None:
    parts = [slice(0, live.answers.rows), *sixteen(live.answers)]
    for rows, found in zip(parts, WAYS[way](live, parts), strict=True):
        assert_proved(live, rows, found)


def test_the_metadata_is_the_file_s(live: Live) -> None:
    told, summary = get(live), live.package.deployment.summary
    assert told["name"] == "policy" and told["versions"] == ["1"]
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


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b"{}", b'{"inputs": 3}', b'{"inputs": [NaN]}'])
def test_a_body_that_is_no_request_gets_422_from_mlserver(live: Live, body: bytes) -> None:
    assert post(live, body)[0] == 422


def test_wrong_requests_do_not_spoil_the_answers_of_others(live: Live) -> None:
    assert_neighbours_are_answered(live)


def test_a_nan_is_the_answer_of_its_own_row_only(live: Live) -> None:
    inputs = {name: values[:3].copy() for name, values in live.answers.inputs.items()}
    inputs["obs"][1, 0] = np.nan
    found = ask_grpc(live, inputs)
    for values in found.values():
        assert np.isnan(values[1]).all() and np.isfinite(values[[0, 2]]).all()


def test_json_has_null_for_what_it_cannot_write(live: Live) -> None:
    asked = request(live)
    asked["inputs"][0]["data"] = [3e38, 3e38, 3e38]
    status, answer = post(live, asked)
    assert status == 200 and [o["data"] for o in answer["outputs"] if o["name"] == "value"] == [[None]]


def test_the_outputs_that_are_asked_for_are_given(live: Live) -> None:
    status, answer = post(live, request(live) | {"id": "17", "outputs": [{"name": "value"}]})
    assert status == 200 and answer["id"] == "17"
    assert [output["name"] for output in answer["outputs"]] == ["value"]
