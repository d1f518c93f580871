"""The V2 protocol over REST, asked with a plain HTTP client and with tritonclient."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.support.serving import Server, ask, expected, models, rows, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = models(tmp_path_factory.mktemp("served"))
    with serving(folder, "--max-rows", 64, "--max-body", 100_000, "--no-grpc") as running:
        yield running


def tensor(name: str, values: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist(), **more}


def values(output: dict[str, Any]) -> np.ndarray:
    return np.array(output["data"], np.float32).reshape(output["shape"])


def near(found: Any, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_health_and_metadata(server: Server) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/one/ready", "/v2/models/many/versions/2/ready"):
        assert ask(server.url, "GET", path).status == 200
    assert ask(server.url, "GET", "/v2").json["name"] == "mlpx"
    metadata = ask(server.url, "GET", "/v2/models/several").json
    shapes = [(port["name"], port["datatype"], port["shape"]) for port in metadata["inputs"] + metadata["outputs"]]
    assert [shape for shape in shapes if shape[0] in ("obs", "goal")] == [
        ("obs", "FP32", [-1, 3]),
        ("goal", "FP32", [-1, 2]),
    ]
    assert metadata["versions"] == ["1"]
    assert metadata["parameters"]["proved"] is False
    assert ask(server.url, "GET", "/v2/models/many").json["versions"] == ["2", "10"]
    config = ask(server.url, "GET", "/v2/models/several/config").json
    assert [(part["name"], part["dims"]) for part in config["output"]] == [("action", [2]), ("value", [1])]
    assert config["max_batch_size"] == 64


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
def test_json(server: Server, count: int, nested: bool) -> None:
    given = rows(count)
    data = given.tolist() if nested else given.ravel().tolist()
    body = {"id": "käse", "inputs": [tensor("x", given) | {"data": data}]}
    answer = ask(server.url, "POST", "/v2/models/one/infer", body).json
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("one", "1", "käse")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [count, 3])
    near(values(output), expected(server.folder / "one.onnx", x=given)["y"])


def test_the_version_that_is_asked_for_answers_and_else_the_highest(server: Server) -> None:
    given = rows(3)
    for path, version in (("many", "10"), ("many/versions/2", "2"), ("many/versions/10", "10")):
        answer = ask(server.url, "POST", f"/v2/models/{path}/infer", {"inputs": [tensor("x", given)]}).json
        assert answer["model_version"] == version
        near(values(answer["outputs"][0]), expected(server.folder / "many" / version / "model.onnx", x=given)["y"])


def test_several_inputs_and_outputs_as_bytes_and_as_json(server: Server) -> None:
    obs, goal = rows(5, 3), rows(5, 2, seed=1)
    wanted = expected(server.folder / "several.onnx", obs=obs, goal=goal)
    binary = {"name": "goal", "datatype": "FP32", "shape": [5, 2], "parameters": {"binary_data_size": goal.nbytes}}
    asked = [{"name": "value", "parameters": {"binary_data": True}}, {"name": "action"}]
    head = json.dumps({"inputs": [tensor("obs", obs), binary], "outputs": asked}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    answer = ask(server.url, "POST", "/v2/models/several/infer", head + goal.tobytes(), **length)
    end = int(answer.headers["inference-header-content-length"])
    value, action = json.loads(answer.body[:end])["outputs"]
    assert value["parameters"] == {"binary_data_size": 20}
    assert "data" not in value
    near(np.frombuffer(answer.body[end:], "<f4").reshape(5, 1), wanted["value"])
    near(values(action), wanted["action"])
    one = {"inputs": [tensor("goal", goal), tensor("obs", obs)], "outputs": [{"name": "action"}]}
    only = ask(server.url, "POST", "/v2/models/several/infer", one).json["outputs"]
    assert [output["name"] for output in only] == ["action"]


X = tensor("x", rows(1))
REFUSED: list[tuple[str, Any, int, str]] = [
    ("POST /v2/models/none/infer", {"inputs": [X]}, 404, "this server has many, one, several"),
    ("POST /v2/models/one/versions/9/infer", {"inputs": [X]}, 404, "no version '9'"),
    ("GET /v2/models/none", None, 404, "no model is called 'none'"),
    ("GET /v2/models/one/versions/9/ready", None, 404, "no version '9'"),
    ("GET /v2/nothing", None, 404, "/openapi.json"),
    ("GET /v2/models/one/infer", None, 405, "takes POST, not GET"),
    ("DELETE /v2/models/one", None, 405, "takes GET, not DELETE"),
    ("POST /v2/models/one/infer", "[]", 400, "not a JSON object"),
    ("POST /v2/models/one/infer", '{"inputs": [', 400, "the body is not JSON"),
    ("POST /v2/models/one/infer", {}, 400, 'no list of "inputs"'),
    ("POST /v2/models/one/infer", {"inputs": []}, 400, "lacks the input 'x'"),
    ("POST /v2/models/one/infer", {"inputs": [X, X]}, 400, "given twice"),
    ("POST /v2/models/one/infer", {"inputs": [X | {"name": "z"}]}, 400, "no input is called 'z'"),
    ("POST /v2/models/one/infer", {"inputs": [X | {"datatype": "FP64"}]}, 400, "takes FP32"),
    ("POST /v2/models/one/infer", {"inputs": [X | {"shape": [2, 4]}]}, 400, "4 values, and its shape takes 8"),
    ("POST /v2/models/one/infer", {"inputs": [X | {"shape": [4]}]}, 400, "takes [-1, 4]"),
    ("POST /v2/models/one/infer", {"inputs": [X | {"shape": [-1, 4]}]}, 400, "takes [-1, 4]"),
    ("POST /v2/models/one/infer", {"inputs": [X | {"data": [1, 2, 3, "4"]}]}, 400, "not numbers: str"),
    ("POST /v2/models/one/infer", {"inputs": [X | {"data": [1, 2, 3, 1e39]}]}, 400, "FP32 cannot hold"),
    ("POST /v2/models/one/infer", {"inputs": [tensor("x", rows(65))]}, 413, "takes 64 in a request"),
    ("POST /v2/models/one/infer", {"inputs": [X], "outputs": [{"name": "z"}]}, 400, "no output is called 'z'"),
    ("POST /v2/models/one/infer", {"inputs": [X], "parameters": {"timeout": -1}}, 400, "microseconds"),
    ("POST /v2/models/one/infer", {"inputs": [X], "parameters": {"timeout": 1}}, 504, "deadline passed"),
    ("POST /v2/models/one/infer", " " * 100_001, 413, "100,001 bytes, and this server takes 100,000"),
    ("POST /v2/repository/models/none/load", None, 404, "no model is called 'none'"),
    ("POST /v2/repository/models/one/load", {"parameters": {"config": "{}"}}, 400, "no parameter config"),
    ("POST /v2/repository/models/one/load", {"parameters": 7}, 400, "not an object"),
    ("POST /v2/repository/index", "7", 400, "not a JSON object"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), REFUSED, ids=[f"{r[2]} {r[3]}" for r in REFUSED])
def test_errors_say_what_was_expected(server: Server, path: str, body: Any, status: int, words: str) -> None:
    method, _, at = path.partition(" ")
    answer = ask(server.url, method, at, body)
    assert (answer.status, words in answer.error) == (status, True), answer.error


def test_compressed_bodies(server: Server) -> None:
    body = json.dumps({"inputs": [X]}).encode()
    path = "/v2/models/one/infer"
    plain = ask(server.url, "POST", path, body).json["outputs"]
    for name, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        assert ask(server.url, "POST", path, packed, Content_Encoding=name).json["outputs"] == plain
    assert ask(server.url, "POST", path, body, Content_Encoding="br").status == 415
    assert "not gzip" in ask(server.url, "POST", path, body, Content_Encoding="gzip").error
    assert "ends too early" in ask(server.url, "POST", path, gzip.compress(body)[:-12], Content_Encoding="gzip").error
    bomb = gzip.compress(bytes(10_000_000))
    assert ask(server.url, "POST", path, bomb, Content_Encoding="gzip").status == 413


def test_one_connection_carries_good_and_bad_requests_in_turn(server: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    for body, status in ((b"{", 400), (json.dumps({"inputs": [X]}).encode(), 200)) * 3:
        connection.request("POST", "/v2/models/one/infer", body)
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (status, True)
    connection.close()


def test_head_is_get_without_the_body(server: Server) -> None:
    for path in ("/v2", "/v2/models/one", "/openapi.json", "/v2/health/ready"):
        get, head = ask(server.url, "GET", path), ask(server.url, "HEAD", path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_request_ids_lead_to_the_log_and_no_payload_does(server: Server) -> None:
    body = {"inputs": [X | {"data": ["secret", 0, 0, 0]}]}
    named = ask(server.url, "POST", "/v2/models/one/infer", body, X_Request_Id="mine-7")
    unnamed = ask(server.url, "POST", "/v2/models/one/infer", body)
    assert named.headers["x-request-id"] == "mine-7"
    told = {event["request"]: event for event in server.events("request")}
    for identity in ("mine-7", unnamed.headers["x-request-id"]):
        assert (told[identity]["status"], told[identity]["what"]) == (400, "POST /v2/models/one/infer")
    assert "secret" not in server.log_file.read_text()


def test_statistics_and_metrics_count_requests(server: Server) -> None:
    def counted() -> tuple[int, int, int]:
        (told,) = ask(server.url, "GET", "/v2/models/many/versions/2/stats").json["model_stats"]
        part = told["inference_stats"]
        return part["success"]["count"], part["fail"]["count"], told["inference_count"]

    before = counted()
    path = "/v2/models/many/versions/2/infer"
    for _ in range(3):
        assert ask(server.url, "POST", path, {"inputs": [tensor("x", rows(5))]}).status == 200
    assert ask(server.url, "POST", path, {"inputs": []}).status == 400
    after = counted()
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 1, 15]
    lines = ask(server.url, "GET", "/metrics").body.decode().splitlines()
    assert f'mlpx_requests_total{{model="many",version="2",code="OK"}} {after[0]}' in lines
    assert f'mlpx_requests_total{{model="many",version="2",code="INVALID_ARGUMENT"}} {after[1]}' in lines
    everything = ask(server.url, "GET", "/v2/models/stats").json["model_stats"]
    assert [(one["name"], one["version"]) for one in everything] == [
        ("many", "2"),
        ("many", "10"),
        ("one", "1"),
        ("several", "1"),
    ]


def test_a_model_that_is_taken_out_answers_503_until_it_is_loaded_again(server: Server) -> None:
    def index() -> dict[str, str]:
        told = ask(server.url, "POST", "/v2/repository/index").json
        return {f"{one['name']} {one['version']}": one["state"] for one in told}

    assert index()["several 1"] == "READY"
    assert ask(server.url, "POST", "/v2/repository/models/several/unload").status == 200
    try:
        assert index()["several 1"] == "UNAVAILABLE"
        ready = ask(server.url, "POST", "/v2/repository/index", {"ready": True}).json
        assert {one["name"] for one in ready} == {"one", "many"}
        refused = ask(server.url, "POST", "/v2/models/several/infer", {"inputs": []})
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert ask(server.url, "GET", "/v2/models/several/ready").status == 503
        assert ask(server.url, "GET", "/v2/health/ready").status == 200  # it was asked for
    finally:
        assert ask(server.url, "POST", "/v2/repository/models/several/load").status == 200
    assert ask(server.url, "GET", "/v2/models/several/ready").status == 200


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_tritonclient(server: Server, binary: bool) -> None:
    pytest.importorskip("geventhttpclient", reason="tritonclient[http] is not installed")
    from tritonclient import http as triton

    client = triton.InferenceServerClient(urlsplit(server.url).netloc)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("many", "2")
    obs, goal = rows(4, 3), rows(4, 2)
    inputs = [triton.InferInput("obs", [4, 3], "FP32"), triton.InferInput("goal", [4, 2], "FP32")]
    inputs[0].set_data_from_numpy(obs, binary_data=binary)
    inputs[1].set_data_from_numpy(goal, binary_data=not binary)
    outputs = [triton.InferRequestedOutput("action", binary_data=not binary), triton.InferRequestedOutput("value")]
    answer = client.infer("several", inputs, outputs=outputs, request_id="7", request_compression_algorithm="gzip")
    for name, wanted in expected(server.folder / "several.onnx", obs=obs, goal=goal).items():
        near(answer.as_numpy(name), wanted)
    assert client.get_model_metadata("one")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.get_model_config("one")["input"][0]["dims"] == [4]
    assert client.get_inference_statistics("several")["model_stats"][0]["name"] == "several"
    client.unload_model("many")
    assert not client.is_model_ready("many")
    client.load_model("many")
    assert {one["name"] for one in client.get_model_repository_index()} == {"one", "many", "several"}
    client.close()
