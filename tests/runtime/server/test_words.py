"""Words over REST and gRPC as BYTES, beside codes as INT64; and the page, where they are chosen from a list."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient import http as triton_http
from tritonclient.grpc import service_pb2_grpc

from export import export
from runtime.model.port import Port, Vocabulary
from runtime.server.messages import parse_request
from runtime.server.refusals import Malformed
from runtime.server.signature import signature_of
from tests.support.browser import CHROMIUM
from tests.support.devtools import Page
from tests.support.serving import Reply, Server, ask, serving
from tests.support.words import delays, eager

pb: Any = import_module("tritonclient.grpc.service_pb2")

NUMBERS = np.array([[500, 3], [250, np.nan]], np.float32)
WORDS = [["Ü 2", "JFK"], ["never seen", "EWR"]]
CODES = [[3, 1], [2, 0]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    spec, module = delays()
    export(module, folder / "delays.onnx", spec=spec)
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    return eager(delays()[1], NUMBERS, CODES)


def infer(
    server: Server, data: Any, datatype: str = "BYTES", shape: tuple[int, int] = (2, 2), gap: Any = float("nan")
) -> Reply:
    numbers = {"name": "numbers", "datatype": "FP32", "shape": [2, 2], "data": [500, 3, 250, gap]}
    words = {"name": "words", "datatype": datatype, "shape": list(shape), "data": data}
    return ask(server.url, "POST", "/v2/models/delays/infer", {"inputs": [numbers, words]})


def near(found: Any, exact: np.ndarray) -> None:
    np.testing.assert_allclose(np.reshape(found, exact.shape), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "datatype"),
    [(WORDS, "BYTES"), ([*WORDS[0], *WORDS[1]], "BYTES"), (CODES, "INT64"), ([*CODES[0], *CODES[1]], "UINT8")],
)
def test_json_takes_words_and_codes(server: Server, exact: np.ndarray, data: Any, datatype: str) -> None:
    reply = infer(server, data, datatype)
    assert reply.status == 200, reply.body
    near(reply.json["outputs"][0]["data"], exact)


def test_a_gap_is_null_or_nan_in_json(server: Server, exact: np.ndarray) -> None:
    for gap in (None, float("nan")):
        reply = infer(server, WORDS, gap=gap)
        assert reply.status == 200, reply.body
        near(reply.json["outputs"][0]["data"], exact)
    for codes in ([[3, None], [2, 0]], [3, 1, None, 0]):
        reply = infer(server, codes, "INT64")
        assert reply.status == 400
        assert "input 'words' has values that are not numbers: NoneType" in reply.json["error"]


def test_the_clients_send_words(server: Server, exact: np.ndarray) -> None:
    for client, module in (
        (triton_http.InferenceServerClient(server.url.removeprefix("http://")), triton_http),
        (triton.InferenceServerClient(server.grpc), triton),
    ):
        with client:
            numbers: Any = module.InferInput("numbers", [2, 2], "FP32")
            words: Any = module.InferInput("words", [2, 2], "BYTES")
            numbers.set_data_from_numpy(NUMBERS)
            words.set_data_from_numpy(np.array(WORDS, object))
            near(client.infer("delays", [numbers, words]).as_numpy("delay"), exact)  # type: ignore[union-attr]


def test_grpc_takes_words_as_contents(server: Server, exact: np.ndarray) -> None:
    message = pb.ModelInferRequest(model_name="delays")
    numbers = message.inputs.add(name="numbers", datatype="FP32", shape=[2, 2])
    numbers.contents.fp32_contents.extend(NUMBERS.ravel())
    words = message.inputs.add(name="words", datatype="BYTES", shape=[2, 2])
    words.contents.bytes_contents.extend(word.encode() for row in WORDS for word in row)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        near(np.frombuffer(stub.ModelInfer(message).raw_output_contents[0], np.float32), exact)
        del words.contents.bytes_contents[:]
        words.contents.int64_contents.extend([0, 1, 2, 0])
        with pytest.raises(grpc.RpcError, match="int64_contents, and BYTES values belong in bytes_contents"):
            stub.ModelInfer(message)


def test_the_metadata_have_the_words_and_the_type_of_codes(server: Server) -> None:
    told = ask(server.url, "GET", "/v2/models/delays").json
    assert [each["datatype"] for each in told["inputs"]] == ["FP32", "INT64"]
    numbers, words = told["parameters"]["inputs"]
    assert numbers["missing"] is True
    assert words["categories"][1] == {"words": ["EWR", "JFK", "LGA"], "unknown": None}


@pytest.mark.parametrize(
    ("data", "datatype", "expected"),
    [
        ([["AA", "JKF"], ["AA", "EWR"]], "BYTES", "'words', row 1, feature 'origin': 'JKF' is none of its 3 cat"),
        ([["AA", ""], ["AA", "EWR"]], "BYTES", "'words', row 1, feature 'origin' is empty"),
        ([["AA", 1], ["AA", "EWR"]], "BYTES", "input 'words' is BYTES, and has values that are not texts: int"),
        (["AA"], "BYTES", "input 'words' has 1 values, and its shape takes 4"),
        ("AA", "BYTES", 'input \'words\' has no list of texts as "data"'),
        ([["AA", "JFK"], ["AA", "EWR"]], "INT64", "input 'words' has values that are not numbers: str"),
        ([[0, 3], [0, 0]], "INT64", "3 is not a whole number from 0 to 2"),
        (CODES, "FP32", "datatype 'FP32', and the model takes INT64 or a smaller type of integers, or words as BYTES"),
    ],
)  # fmt: skip
def test_what_is_no_word_is_refused(server: Server, data: Any, datatype: str, expected: str) -> None:
    reply = infer(server, data, datatype)
    assert reply.status == 400
    assert expected in reply.json["error"]


CITY = Port("x", ("batch", 1), ("city",), dtype="int64", categories=(Vocabulary(("Oslo", "Rome")),))
PLAIN = Port("x", ("batch", 1), ("city",), dtype="int64")


@pytest.mark.parametrize("cut", [b"\xff\xff\xff\xff", b"\x04\x00\x00\x00Os", b"\x01", b"\x01\x00\x00\x00\xff", b""])
def test_damaged_bytes_are_refused(cut: bytes) -> None:
    signature = signature_of((CITY,), (Port("y", ("batch", 1)),), 20)

    def request(content: bytes) -> Any:
        head = (
            '{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": %d}}]}'
        )
        text = (head % len(content)).encode()
        return parse_request(text + content, len(text), signature)

    assert request(b"\x04\x00\x00\x00Rome").feed["x"].tolist() == [[1]]
    with pytest.raises(Malformed):
        request(cut)


def test_an_input_without_words_takes_none() -> None:
    signature = signature_of((PLAIN,), (Port("y", ("batch", 1)),), 20)
    body = b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": ["Oslo"]}]}'
    with pytest.raises(Malformed, match=r"datatype 'BYTES', and the model takes INT64 or a smaller type of integers$"):
        parse_request(body, None, signature)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_offers_the_words(server: Server, width: int, dark: bool, tmp_path: Path) -> None:
    with Page(width, dark=dark) as page:
        page.open(server.url + "/")
        page.wait("document.querySelector('.value')?.innerText")
        lists = page.evaluate("[...document.querySelectorAll('select')].map(s => [...s.options].map(o => o.text))")
        assert lists == [["AA", "B6", "UA", "Ü 2"], ["EWR", "JFK", "LGA"]]
        before = page.evaluate("document.querySelector('.value').value")
        page.evaluate(
            "(() => { const list = document.querySelectorAll('select')[1]; list.value = '1';"
            "list.dispatchEvent(new Event('change')); })()"
        )
        page.wait(f"document.querySelector('.value').value !== {before!r}")
        assert '"datatype":"BYTES","data":["AA","JFK"]' in page.evaluate("document.getElementById('curl').innerText")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.errors == []
        page.screenshot(tmp_path / f"words_{width}.png")
        seen = page.look()
    assert seen["cut"] == seen["faint"] == []


DISTANCE, SLIDER = "[aria-label='distance, mi'][type=number]", "[aria-label='distance'][type=range]"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_a_field_that_is_left_empty_is_a_gap(server: Server) -> None:
    module = delays()[1]

    def shows(distance: float) -> str:
        (answer,) = eager(module, np.array([[distance, 0]], np.float32), [[0, 0]])[0]
        return f"Math.abs(document.querySelector('.value')?.value - {answer}) < 1e-5"

    with Page() as page:
        page.open(server.url + "/")
        page.wait(shows(0))  # the middle of the range
        assert "A value may be missing: leave its field empty, or write null" in page.text("[data-input=numbers]")
        assert "missing" not in page.text("[data-input=words]")
        page.type(DISTANCE, "")
        page.wait(shows(float("nan")))
        assert '"data":[null,0]' in page.text("#curl")
        assert page.evaluate(f'document.querySelector("{DISTANCE}").getAttribute("aria-invalid")') == "false"
        page.evaluate("document.querySelector('[data-input=numbers] details').open = true")
        page.wait("document.querySelector('[data-input=numbers] textarea').value === '[null, 0]'")
        page.type(SLIDER, 500)
        page.wait(shows(500))
        assert page.evaluate(f'document.querySelector("{DISTANCE}").value') == "500"
        page.type("[data-input=numbers] textarea", "null, 0")
        page.click("[data-input=numbers] .tools button")
        page.wait(shows(float("nan")))
        assert page.evaluate(f'document.querySelector("{DISTANCE}").value') == ""
        assert page.errors == []


def test_no_rows_of_words(server: Server) -> None:
    numbers = {"name": "numbers", "datatype": "FP32", "shape": [0, 2], "data": []}
    words = {"name": "words", "datatype": "BYTES", "shape": [0, 2], "data": []}
    reply = ask(server.url, "POST", "/v2/models/delays/infer", {"inputs": [numbers, words]})
    assert (reply.status, reply.json["outputs"][0]["shape"]) == (200, [0, 1]), reply.body
