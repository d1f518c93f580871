"""The packages for KServe's own server, MLServer and Ray Serve, run by these servers and asked with NVIDIA's client."""

from __future__ import annotations

import json
import tempfile
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.commands import Run
from tests.support.servers.asking import (
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
from tests.support.servers.environments import environment, variables
from tests.support.servers.running import free_ports, running, session
from tests.support.servers.wrong import WRONG, assert_neighbours_are_answered, wrong


@contextmanager
def kserve(folder: Path) -> Iterator[Live]:
    """The server of backend "custom", started as the package's image starts it."""
    server = environment("kserve")
    made = policy_package(folder, "kserve", backend="custom", max_batch=64)
    http, grpc = free_ports(2)
    live = Live(made, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    image = (made.folder / "Dockerfile").read_text()
    python, script, *options = json.loads(image.partition("CMD ")[2])
    start = [server / "bin" / python, made.folder / script.lstrip("/"), *options]
    ports = [f"--http_port={http}", f"--grpc_port={grpc}"]
    ready = f"http://{live.http}/v2/health/ready"
    with running([*start, *ports], ready=ready, log=folder / "log", env=variables(server), cwd=folder):
        yield live


@contextmanager
def mlserver(folder: Path) -> Iterator[Live]:
    server = environment("mlserver")
    made = policy_package(folder, "mlserver", max_batch=64)
    http, grpc, metrics = free_ports(3)
    settings = made.folder / "settings.json"
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | ports))
    live = Live(made, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    start, ready = [server / "bin" / "mlserver", "start", "."], f"{live.url}/ready"
    with running(start, ready=ready, log=folder / "log", env=variables(server), cwd=made.folder):
        yield live


@contextmanager
def ray_serve(folder: Path) -> Iterator[Live]:
    server = environment("ray-serve")
    made = policy_package(folder, "ray-serve", max_batch=64)
    (http,) = free_ports(1)
    config = made.folder / "serve.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["http_options"]["port"] = http
    config.write_text(yaml.safe_dump(settings))
    live = Live(made, f"127.0.0.1:{http}")
    start, ready = [server / "bin" / "serve", "run", "serve.yaml", "--app-dir", "."], f"{live.url}/ready"
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        env = variables(server) | {"RAY_TMPDIR": sockets, "RAY_USAGE_STATS_ENABLED": "0"}
        with running(start, ready=ready, log=folder / "log", env=env, cwd=made.folder, patience=150) as process:
            yield live
        assert session(process.pid) == []


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Live]]] = {
    "kserve": kserve,
    "mlserver": mlserver,
    "ray-serve": ray_serve,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Live]]:
    """Starts a server at its first use, and ends all of them with the module."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(SERVERS[name](tmp_path_factory.mktemp(name))))


@pytest.fixture(params=SERVERS)
def live(request: pytest.FixtureRequest, start: Callable[[str], Live]) -> Live:
    """A package's model at its server: at each in turn, unless a test names some of them."""
    return start(request.param)


def only(*servers: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("live", servers, indirect=True)


WAYS: dict[str, Way] = {"gRPC": over_grpc, "REST, JSON": over_rest, "REST, binary": over_rest_binary}
SPOKEN = [
    *(("kserve", way) for way in WAYS),
    *(("mlserver", way) for way in ("gRPC", "REST, JSON")),
    *(("ray-serve", way) for way in ("REST, JSON", "REST, binary")),
]


@pytest.mark.parametrize(("live", "way"), SPOKEN, indirect=["live"])
def test_every_row_and_sixteen_requests_at_once_are_answered_within_their_bounds(live: Live, way: str) -> None:
    parts = [slice(0, live.answers.rows), *sixteen(live.answers)]
    for rows, outputs in zip(parts, WAYS[way](live, parts), strict=True):
        assert_proved(live, rows, outputs)


def test_the_metadata_is_the_file_s(live: Live) -> None:
    metadata, summary = get(live), live.package.deployment.summary
    for kind in ("inputs", "outputs"):
        expected = [{"name": p.name, "datatype": "FP32", "shape": [-1, *p.shape[1:]]} for p in getattr(summary, kind)]
        assert metadata[kind] == expected


@only("mlserver")
def test_the_metadata_has_name_and_version(live: Live) -> None:
    metadata = get(live)
    assert metadata["name"] == "policy" and metadata["versions"] == ["1"]


@only("ray-serve")
def test_the_metadata_is_that_of_the_only_version(live: Live) -> None:
    metadata = get(live)
    assert metadata == get(live, "/versions/1") and metadata["versions"] == ["1"]


@only("ray-serve")
@pytest.mark.parametrize("path", ["/versions/2", "/stats", "/../other"])
def test_what_is_not_there_is_404(live: Live, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(live, path)
    with raised.value as answer:
        assert answer.code == 404 and "the model is /v2/models/policy" in json.load(answer)["error"]


def test_verify_url_and_the_smoke_test_pass(live: Live, run: Run) -> None:
    for url in (live.url, *([f"grpc://{live.grpc}/v2/models/policy"] if live.grpc else [])):
        done = run("verify", "--url", url, "--certificate", live.certificate)
        assert done.code == 0, done.out + done.err
    checked = smoke_test(live)
    assert checked.returncode == 0 and "within their bounds" in checked.stdout, checked.stderr


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_400_and_says_why(live: Live, name: str) -> None:
    status, answer = post(live, wrong(live, name))
    assert status == 400 and WRONG[name][1] in answer["error"]


BODIES: list[tuple[str, bytes, int, str]] = [
    *(("kserve", body, 422, "") for body in (b"{", b"{}", b'{"inputs": 3}')),
    ("kserve", b"\xff", 400, ""),
    *(("mlserver", body, 422, "") for body in (b"", b"{", b"\xff", b"[" * 5000, b"{}")),
    *(("mlserver", body, 422, "") for body in (b'{"inputs": 3}', b'{"inputs": [NaN]}')),
    *(("ray-serve", body, 400, "the body is not JSON") for body in (b"", b"\xff", b"[" * 100_000)),
    ("ray-serve", b"[]", 400, "the body is not a JSON object"),
    ("ray-serve", b"{}", 400, "a request has 'inputs'"),
    ("ray-serve", b'{"inputs": [3]}', 400, "a tensor has a 'name', a JSON string"),
    ("ray-serve", b'{"inputs": [], "outputs": 3}', 400, "the input 'obs', 'goal' is missing"),
    (
        "ray-serve",
        b'{"inputs": [{"name": "obs", "datatype": "FP32", "shape": "1"}]}',
        400,
        "a tensor has a 'shape', a JSON array",
    ),
    (
        "ray-serve",
        b'{"inputs": [{"name": "obs", "datatype": "FP32", "shape": [1, 3]}]}',
        400,
        "has either data or a binary_data_size",
    ),
    ("ray-serve", b'{"inputs": [{"name": "obs", "parameters": [], "data": NaN}]}', 400, "JSON has no NaN"),
]
"""The server, a body that is not a request, the status of the answer and words of its error."""


@pytest.mark.parametrize(("live", "body", "status", "words"), BODIES, indirect=["live"])
def test_a_body_that_is_no_request_is_refused(live: Live, body: bytes, status: int, words: str) -> None:
    code, answer = post(live, body)
    assert code == status and (not words or words in answer["error"])


@only("ray-serve")
@pytest.mark.parametrize(
    ("size", "length", "words"),
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
def test_wrong_binary_sizes_are_refused(live: Live, size: int, length: str | None, words: str) -> None:
    record = request(live)
    data = np.array(record["inputs"][0].pop("data"), "<f4").tobytes()
    record["inputs"][0]["parameters"] = {"binary_data_size": size}
    header = json.dumps(record).encode()
    status, answer = post(live, header + data, {"Inference-Header-Content-Length": length or str(len(header))})
    assert (status == 200) if not words else (status == 400 and words in answer["error"])


def test_wrong_requests_do_not_spoil_the_answers_of_others(live: Live) -> None:
    assert_neighbours_are_answered(live)


@only("kserve", "mlserver")
def test_a_nan_is_the_answer_of_its_own_row_only(live: Live) -> None:
    inputs = {name: values[:3].copy() for name, values in live.answers.inputs.items()}
    inputs["obs"][1, 0] = np.nan
    for values in ask_grpc(live, inputs).values():
        assert np.isnan(values[1]).all() and np.isfinite(values[[0, 2]]).all()


@pytest.mark.parametrize(("live", "rows"), [("mlserver", 1), ("ray-serve", 2)], indirect=["live"])
def test_json_has_null_for_what_it_cannot_write(live: Live, rows: int) -> None:
    record = request(live, slice(0, rows))
    record["inputs"][0]["data"][:3] = [3e38, 3e38, 3e38]
    status, answer = post(live, record)
    (values,) = [output["data"] for output in answer["outputs"] if output["name"] == "value"]
    assert status == 200 and len(values) == rows and values[0] is None
    assert all(abs(values[row] - live.answers.exact["value"][row, 0]) < 1 for row in range(1, rows))


@only("kserve", "mlserver")
def test_the_outputs_that_are_asked_for_are_given(live: Live) -> None:
    status, answer = post(live, request(live) | {"id": "17", "outputs": [{"name": "value"}]})
    assert status == 200 and answer["id"] == "17"
    assert [output["name"] for output in answer["outputs"]] == ["value"]


def test_ray_serves_config_has_the_replicas_that_were_asked_for(tmp_path: Path) -> None:
    made = policy_package(tmp_path, "ray-serve", instances=2, threads=3, device="cuda", delay_us=500)
    (application,) = yaml.safe_load((made.folder / "serve.yaml").read_text())["applications"]
    (deployment,) = application["deployments"]
    assert deployment["autoscaling_config"]["min_replicas"] == 2
    assert deployment["autoscaling_config"]["max_replicas"] == 8
    assert deployment["ray_actor_options"] == {"num_cpus": 3, "num_gpus": 1}
    assert application["args"]["settings"] == {"threads": 3, "max_batch": 1024, "delay_us": 500, "device": "cuda"}
    assert "onnxruntime-gpu>=1.18" in (made.folder / "requirements.txt").read_text()
