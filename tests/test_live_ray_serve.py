"""The package for Ray Serve, run by Ray Serve itself and asked with NVIDIA's client."""

from __future__ import annotations

import json
import tempfile
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.commands import Run
from tests.servers.asking import (
    Live,
    Way,
    assert_proved,
    get,
    over_rest,
    over_rest_binary,
    policy_package,
    post,
    request,
    sixteen,
    smoke_test,
)
from tests.servers.environments import environment, variables
from tests.servers.running import free_ports, running, session
from tests.servers.wrong import WRONG, assert_neighbours_are_answered, wrong


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder, server = tmp_path_factory.mktemp("ray"), environment("ray-serve")
    made = policy_package(folder, "ray-serve", max_batch=64)
    (http,) = free_ports(1)
    config = made.folder / "serve.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["http_options"]["port"] = http
    config.write_text(yaml.safe_dump(settings))
    found = Live(made, f"127.0.0.1:{http}")
    start = [server / "bin" / "serve", "run", "serve.yaml", "--app-dir", "."]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        env = variables(server) | {"RAY_TMPDIR": sockets, "RAY_USAGE_STATS_ENABLED": "0"}
        with running(
            start, ready=f"{found.url}/ready", log=folder / "log", env=env, cwd=made.folder, patience=150
        ) as process:
            yield found
        assert session(process.pid) == []


WAYS: dict[str, Way] = {"REST, JSON": over_rest, "REST, binary": over_rest_binary}


@pytest.mark.parametrize("way", WAYS)
def test_every_row_and_sixteen_requests_at_once_are_answered_within_their_bounds(live: Live, way: str) -> None:
    parts = [slice(0, live.answers.rows), *sixteen(live.answers)]
    for rows, found in zip(parts, WAYS[way](live, parts), strict=True):
        assert_proved(live, rows, found)


def test_the_metadata_is_the_file_s(live: Live) -> None:
    told, summary = get(live), live.package.deployment.summary
    assert told == get(live, "/versions/1") and told["versions"] == ["1"]
    for kind in ("inputs", "outputs"):
        expected = [{"name": p.name, "datatype": "FP32", "shape": [-1, *p.shape[1:]]} for p in getattr(summary, kind)]
        assert told[kind] == expected


@pytest.mark.parametrize("path", ["/versions/2", "/stats", "/../other"])
def test_what_is_not_there_is_404(live: Live, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(live, path)
    with raised.value as answer:
        assert answer.code == 404 and "the model is /v2/models/policy" in json.load(answer)["error"]


def test_verify_url_and_the_smoke_test_pass(live: Live, run: Run) -> None:
    done = run("verify", "--url", live.url, "--certificate", live.certificate)
    assert done.code == 0, done.out + done.err
    checked = smoke_test(live)
    assert checked.returncode == 0 and "within their bounds" in checked.stdout, checked.stderr


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_400_and_says_why(live: Live, name: str) -> None:
    status, answer = post(live, wrong(live, name))
    assert status == 400 and WRONG[name][1] in answer["error"]


BODIES: list[tuple[bytes, str]] = [
    (b"", "the body is not JSON"),
    (b"\xff", "the body is not JSON"),
    (b"[" * 100_000, "the body is not JSON"),
    (b"[]", "the body is not a JSON object"),
    (b"{}", "a request has 'inputs'"),
    (b'{"inputs": [3]}', "a tensor has a 'name', a JSON string"),
    (b'{"inputs": [], "outputs": 3}', "the input 'obs', 'goal' is missing"),
    (b'{"inputs": [{"name": "obs", "datatype": "FP32", "shape": "1"}]}', "a tensor has a 'shape', a JSON array"),
    (b'{"inputs": [{"name": "obs", "datatype": "FP32", "shape": [1, 3]}]}', "has either data or a binary_data_size"),
    (b'{"inputs": [{"name": "obs", "parameters": [], "data": NaN}]}', "JSON has no NaN"),
]


@pytest.mark.parametrize(("body", "words"), BODIES)
def test_a_body_that_is_no_request_gets_400(live: Live, body: bytes, words: str) -> None:
    status, answer = post(live, body)
    assert status == 400 and words in answer["error"]


@pytest.mark.parametrize(
    ("size", "told", "words"),
    [
        (12, None, ""),
        (11, None, "has 11 bytes, which do not fit the shape [1, 3]"),
        (13, None, "binary_data_size is 13, and 12 bytes are left"),
        (-1, None, "binary_data_size is -1"),
        (12, "99999", "Inference-Header-Content-Length is '99999'"),
        (12, "-1", "Inference-Header-Content-Length is '-1'"),
        (12, "0", "the body is not JSON"),
    ],
)
def test_binary_sizes_that_lie_are_told(live: Live, size: int, told: str | None, words: str) -> None:
    asked = request(live)
    data = np.array(asked["inputs"][0].pop("data"), "<f4").tobytes()
    asked["inputs"][0]["parameters"] = {"binary_data_size": size}
    head = json.dumps(asked).encode()
    status, answer = post(live, head + data, {"Inference-Header-Content-Length": told or str(len(head))})
    assert (status == 200) if not words else (status == 400 and words in answer["error"])


def test_wrong_requests_do_not_spoil_the_answers_of_others(live: Live) -> None:
    assert_neighbours_are_answered(live)


def test_json_has_null_for_what_it_cannot_write(live: Live) -> None:
    asked = request(live, slice(0, 2))
    asked["inputs"][0]["data"][:3] = [3e38, 3e38, 3e38]
    status, answer = post(live, asked)
    (values,) = [output["data"] for output in answer["outputs"] if output["name"] == "value"]
    assert status == 200 and values[0] is None and abs(values[1] - live.answers.exact["value"][1, 0]) < 1


def test_the_config_has_the_replicas_that_were_asked_for(tmp_path: Path) -> None:
    made = policy_package(tmp_path, "ray-serve", instances=2, threads=3, device="cuda", delay_us=500)
    (application,) = yaml.safe_load((made.folder / "serve.yaml").read_text())["applications"]
    (deployment,) = application["deployments"]
    assert deployment["autoscaling_config"]["min_replicas"] == 2
    assert deployment["autoscaling_config"]["max_replicas"] == 8
    assert deployment["ray_actor_options"] == {"num_cpus": 3, "num_gpus": 1}
    assert application["args"]["settings"] == {"threads": 3, "max_batch": 1024, "delay_us": 500, "device": "cuda"}
    assert "onnxruntime-gpu>=1.18" in (made.folder / "requirements.txt").read_text()
