"""Whole numbers over REST and gRPC: INT64 and the smaller types, what is refused, and ``mlpx verify --url``."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient import grpc as triton
from tritonclient import http as triton_http
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype

from runtime import check_live, read_certificate, sha256
from runtime.model.port import Port
from runtime.server.messages import parse_request
from runtime.server.refusals import Malformed
from runtime.server.signature import signature_of
from tests.support.browser import CHROMIUM
from tests.support.devtools import Page
from tests.support.embeddings import SHIFTED, beside_floats, cast_column, of_both, of_indices, only_indices
from tests.support.live import planted
from tests.support.serving import Reply, Server, ask, serving

pb: Any = import_module("tritonclient.grpc.service_pb2")

IDS = np.array([[0, 1], [9, 5], [3, 2]])
KINDS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
SIGNATURE = signature_of((Port("ids", ("batch", 2), dtype="int64"),), (Port("y", ("batch", 1)),), 20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    only_indices(folder / "indices.onnx")
    only_indices(folder / "foreign.onnx", said=False)
    only_indices(folder / "depend.onnx", rows_depend=True)
    only_indices(folder / "shifted.onnx", SHIFTED)
    beside_floats(folder / "both.onnx")
    cast_column(folder / "cast.onnx")
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def near(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.reshape(found, expected.shape), expected, rtol=0, atol=1e-4)


def tensor(data: Any, shape: list[int], datatype: str = "INT64", name: str = "ids") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def infer(server: Server, model: str, *inputs: dict[str, Any]) -> Reply:
    return ask(server.url, "POST", f"/v2/models/{model}/infer", {"inputs": list(inputs)})


def values(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    return reply.json["outputs"][0]["data"]


def test_metadata_name_the_type_and_the_limits(server: Server, stub: Any) -> None:
    told = ask(server.url, "GET", "/v2/models/both").json
    assert [(one["name"], one["datatype"]) for one in told["inputs"]] == [("obs", "FP32"), ("ids", "INT64")]
    assert told["outputs"][0]["datatype"] == "FP32"
    assert told["parameters"]["coalesced"] is True
    (port,) = [port for port in told["parameters"]["inputs"] if port["name"] == "ids"]
    assert (port["dtype"], port["indices"]) == ("int64", [[0, 9]])
    assert stub.ModelMetadata(pb.ModelMetadataRequest(name="indices")).inputs[0].datatype == "INT64"
    config = stub.ModelConfig(pb.ModelConfigRequest(name="indices")).config
    assert config.input[0].data_type == import_module("tritonclient.grpc.model_config_pb2").TYPE_INT64
    schema = ask(server.url, "GET", "/openapi.json").json["paths"]["/v2/models/indices/infer"]["post"]
    body = schema["requestBody"]["content"]["application/json"]["schema"]
    found = body["properties"]["inputs"]["items"]["anyOf"][0]["properties"]
    assert found["datatype"]["enum"][0] == "INT64"
    assert "whole numbers" in found["data"]["description"]


@pytest.mark.parametrize("model", ["indices", "foreign"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_integers_is_taken(server: Server, stub: Any, model: str, kind: str) -> None:
    ids = IDS.astype(kind)
    datatype = np_to_triton_dtype(ids.dtype)
    assert datatype is not None
    for data in (ids.tolist(), ids.ravel().tolist(), ids.astype(float).tolist()):
        near(values(infer(server, model, tensor(data, [3, 2], datatype))), of_indices(IDS))
    for client, module in (
        (triton_http.InferenceServerClient(server.url.removeprefix("http://")), triton_http),
        (triton.InferenceServerClient(server.grpc), triton),
    ):
        with client:
            sent: Any = module.InferInput("ids", [3, 2], datatype)
            sent.set_data_from_numpy(ids)
            near(client.infer(model, [sent]).as_numpy("y"), of_indices(IDS))  # type: ignore[union-attr]
    message = pb.ModelInferRequest(model_name=model)
    entry = message.inputs.add(name="ids", datatype=datatype, shape=[3, 2])
    place = {"int64": "int64_contents", "uint64": "uint64_contents"}.get(
        kind, f"{kind.partition('int')[0]}int_contents"
    )
    getattr(entry.contents, place).extend(ids.ravel().tolist())
    near(np.frombuffer(stub.ModelInfer(message).raw_output_contents[0], "<f4"), of_indices(IDS))


def test_indices_beside_floats(server: Server) -> None:
    obs = np.array([[0.5, -1.0], [2.0, 0.25]])
    floats, ids = tensor(obs.tolist(), [2, 2], "FP32", "obs"), tensor([3, 9], [2, 1])
    near(values(infer(server, "both", ids, floats)), of_both(obs, np.array([3, 9])))
    whole = np.hstack([obs, [[3.0], [9.0]]])
    near(values(infer(server, "shifted", tensor([103, 109], [1, 2]))), of_indices(np.array([[3, 9]])))
    near(values(infer(server, "cast", tensor(whole.tolist(), [2, 3], "FP32", "x"))), of_both(obs, np.array([3, 9])))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "above": (
        "indices",
        tensor([0, 1, 10, 1], [2, 2]),
        "'ids', row 2, feature 'genre': 10 is not a whole number from 0",
    ),
    "below": (
        "indices",
        tensor([0, 0], [1, 2], "INT8"),
        "'ids', row 1, feature 'mood': 0 is not a whole number from 1",
    ),
    "foreign": ("foreign", tensor([0, 77], [1, 2]), "an index that a table of the model does not have"),
    "column": ("cast", tensor([0.5, 1, 2.5], [1, 3], "FP32", "x"), "'x', row 1, feature 'genre': 2.5 is not a whole"),
    "half": ("indices", tensor([0, 1.5], [1, 2]), "input 'ids' has 1.5, value 2, which is not a whole number"),
    "bool": ("indices", tensor([True, False], [1, 2]), "values that are not numbers: bool"),
    "text": ("indices", tensor(["a", 1], [1, 2]), "values that are not numbers: str"),
    "int8": (
        "indices",
        tensor([0, 300], [1, 2], "INT8"),
        "has 300, value 2, which is not a whole number that both INT8",
    ),
    "uint8": (
        "indices",
        tensor([0, -1], [1, 2], "UINT8"),
        "has -1, value 2, which is not a whole number that both UINT8",
    ),
    "too large": ("indices", tensor([0, 2**63], [1, 2]), "input 'ids' has 9223372036854775808, value 2"),
    "far too large": ("indices", tensor([0, 2**80], [1, 2]), "input 'ids' has "),
    "floats": (
        "indices",
        tensor([0, 1], [1, 2], "FP32"),
        "datatype 'FP32', and the model takes INT64 or a smaller type",
    ),
    "integers": ("cast", tensor([0, 1, 2], [1, 3], "INT64", "x"), "datatype 'INT64', and the model takes FP32"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_index_is_the_clients_fault(server: Server, kind: str) -> None:
    model, given, words = REFUSED[kind]
    reply = infer(server, model, given)
    assert reply.status == 400
    assert words in reply.error


@pytest.mark.parametrize(
    ("datatype", "place", "values", "words"),
    [
        ("INT64", "int64_contents", [0, 6], "'ids', row 1, feature 'mood': 6 is not a whole number from 1 to 5"),
        ("INT8", "int_contents", [0, 300], "has 300, value 2"),
        ("UINT64", "uint64_contents", [0, 2**63], "has 9223372036854775808, value 2"),
        ("INT64", "int_contents", [0, 1], "has int_contents, and INT64 values belong in int64_contents"),
        ("INT64", "int64_contents", [0], "has 1 values, and its shape takes 2"),
        ("FP32", "fp32_contents", [0, 1], "takes INT64"),
    ],
)
def test_refused_over_grpc(stub: Any, datatype: str, place: str, values: list[int], words: str) -> None:
    message = pb.ModelInferRequest(model_name="indices")
    entry = message.inputs.add(name="ids", datatype=datatype, shape=[1, 2])
    getattr(entry.contents, place).extend(values)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in str(caught.value.details())


def test_bytes_of_another_length(server: Server, stub: Any) -> None:
    message = pb.ModelInferRequest(model_name="indices")
    message.inputs.add(name="ids", datatype="INT64", shape=[1, 2])
    message.raw_input_contents.append(bytes(8))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    assert "8 bytes of raw_input_contents, and its shape [1, 2] takes 16" in str(caught.value.details())
    given = {"name": "ids", "datatype": "INT32", "shape": [1, 2], "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [given]}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    reply = ask(server.url, "POST", "/v2/models/indices/infer", head + bytes(16), **length)
    assert reply.status == 400
    assert "takes 8" in reply.error


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.integers(-(2**65), 2**65) | st.integers(-300, 300), max_size=6))
def test_a_number_arrives_as_it_was_sent_or_is_refused(kind: str, numbers: list[int]) -> None:
    numbers = numbers[: len(numbers) // 2 * 2]
    limits = np.iinfo(kind)
    shape = [len(numbers) // 2, 2]
    body = json.dumps({"inputs": [tensor(numbers, shape, kind.upper())]}).encode()
    if all(max(limits.min, -(2**63)) <= number <= min(limits.max, 2**63 - 1) for number in numbers):
        found = parse_request(body, None, SIGNATURE).feed["ids"]
        assert found.dtype == np.int64
        assert found.ravel().tolist() == numbers
    else:
        with pytest.raises(Malformed, match=f"{kind.upper()}"):
            parse_request(body, None, SIGNATURE)


def test_requests_at_once_get_their_own_answers_and_errors(server: Server) -> None:
    def one(place: int) -> bool:
        bad, ids = place % 3 == 0, np.array([[place % 10, 1 + place % 5]])
        if bad:
            ids[0, 1] = 0
        reply = infer(server, "indices", tensor(ids.tolist(), [1, 2]))
        if bad:
            return reply.status == 400 and "row 1, feature 'mood': 0" in reply.error
        near(values(reply), of_indices(ids))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(120)))


def test_requests_of_rows_that_depend_never_share_a_call(server: Server) -> None:
    assert ask(server.url, "GET", "/v2/models/depend").json["parameters"]["coalesced"] is False

    def one(place: int) -> None:
        near(values(infer(server, "depend", tensor([place % 10, 1], [1, 2]))), np.zeros((1, 3)))  # less its own mean

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(80)))


# mlpx verify --url


@pytest.fixture(scope="module")
def certificate(server: Server) -> Path:
    """Of ``both``, with the rows of each input in its dtype."""
    rng, rows = np.random.default_rng(5), 12
    obs, ids = rng.standard_normal((rows, 2), dtype=np.float32), rng.integers(0, 10, (rows, 1))
    exact = of_both(obs, ids[:, 0])

    def held(array: np.ndarray) -> dict[str, Any]:
        return {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "base64": base64.b64encode(array.tobytes()).decode(),
        }

    answers = {"rows": rows, "inputs": {"obs": held(obs), "ids": held(ids)}, "exact": {"y": held(exact)}}
    answers |= {"bound": {"y": held(np.full_like(exact, 1e-4))}, "reduced": {}}
    file = {"name": "both.onnx", "sha256": sha256(server.folder / "both.onnx")}
    record = {"verdict": "proved", "why": "", "file": file, "device": "cpu", "answers": answers}
    path = server.folder.parent / "both.parity.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


@pytest.mark.parametrize("way", ["json", "binary", "grpc"])
def test_a_server_is_asked_in_whole_numbers(server: Server, certificate: Path, way: str) -> None:
    url = f"grpc://{server.grpc}/v2/models/both" if way == "grpc" else f"{server.url}/v2/models/both"
    report = check_live(url, certificate, **({} if way == "grpc" else {"tensors": way}))  # type: ignore[arg-type]
    assert report.proved
    assert report.findings == ()
    assert len(report.asked) == 4


def test_a_server_of_another_type_is_found_out(certificate: Path) -> None:
    answers = read_certificate(certificate).answers
    assert answers is not None
    assert answers.inputs["ids"].dtype == np.int64
    with planted(answers, lambda _: {}).url() as url:  # it says FP32 of every input
        report = check_live(url, certificate)
    assert [finding.words for finding in report.findings] == ["input 'ids' is INT64 in the file and FP32 at the server"]


# The page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_the_page_has_fields_of_whole_numbers(server: Server) -> None:
    with Page() as page:
        page.open(server.url + "/")
        page.wait("document.querySelector('[aria-label=\"Try indices, version 1\"]') !== null")
        page.click("[aria-label='Try indices, version 1']")
        page.wait("document.querySelector('#title').innerText === 'Try indices, version 1'")
        field = "document.querySelector('input[type=number][aria-label=mood]')"
        assert page.evaluate(f"[{field}.min, {field}.max, {field}.step, {field}.value]") == ["1", "5", "1", "3"]
        page.type("input[type=number][aria-label=mood]", 4)
        page.wait("document.querySelector('#curl').innerText.includes('[4,4]')")
        assert '"datatype":"INT64"' in page.text("#curl")
        page.type("input[type=number][aria-label=mood]", 7)
        assert page.evaluate(f"{field}.value") == "4"  # 7 is beyond the table, and was not taken
        assert "[4,4]" in page.text("#curl")
        assert page.errors == []
