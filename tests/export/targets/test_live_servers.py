"""The packages for KServe's own server, MLServer, Ray Serve and Triton, run by these and asked with NVIDIA's client."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

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
    post,
    request,
    sixteen,
    smoke_test,
)
from tests.support.servers.starting import SERVERS
from tests.support.servers.wrong import WRONG, assert_neighbours_are_answered, wrong
from tests.support.words import delays, eager

WORDS = ["kserve-words", "mlserver-words", "triton words"]
"""A model of numbers and of codes for words, whose numbers may be missing."""
LIVE = [*SERVERS, "triton plain", "triton fixed", "triton words"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Live]]]:
    """Starts a server at its first use, and ends all of them with the module."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(SERVERS[name](tmp_path_factory.mktemp(name))))


@pytest.fixture(params=LIVE)
def live(request: pytest.FixtureRequest, start: Callable[[str], dict[str, Live]]) -> Live:
    """A package's model at its server, the first unless another is said: at each in turn, unless a test names some."""
    server, _, model = request.param.partition(" ")
    models = start(server)
    return models[model or next(iter(models))]


def only(*servers: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("live", servers, indirect=True)


TYPES = {"float32": "FP32", "int64": "INT64"}
WAYS: dict[str, Way] = {"gRPC": over_grpc, "REST, JSON": over_rest, "REST, binary": over_rest_binary}
SPOKEN = [
    *((server, way) for server in ("kserve", "triton", "triton plain") for way in WAYS),
    *((server, way) for server in ("mlserver", *WORDS) for way in ("gRPC", "REST, JSON")),
    *(("ray-serve", way) for way in ("REST, JSON", "REST, binary")),
]


@pytest.mark.parametrize(("live", "way"), SPOKEN, indirect=["live"])
def test_every_row_and_sixteen_requests_at_once_are_answered_within_their_bounds(live: Live, way: str) -> None:
    parts = [slice(0, live.answers.rows), *sixteen(live.answers)]
    for rows, outputs in zip(parts, WAYS[way](live, parts), strict=True):
        assert_proved(live, rows, outputs)


def test_the_metadata_is_the_file_s(live: Live) -> None:
    metadata, summary = get(live), live.package.deployment.summary
    rows = live.package.deployment.fixed_batch or -1
    for kind in ("inputs", "outputs"):
        expected = [
            {"name": p.name, "datatype": TYPES[p.dtype], "shape": [rows, *p.shape[1:]]} for p in getattr(summary, kind)
        ]
        assert metadata[kind] == expected


@only("mlserver")
def test_the_metadata_has_name_and_version(live: Live) -> None:
    metadata = get(live)
    assert metadata["name"] == "policy"
    assert metadata["versions"] == ["1"]


@only("ray-serve")
def test_the_metadata_is_that_of_the_only_version(live: Live) -> None:
    metadata = get(live)
    assert metadata == get(live, "/versions/1")
    assert metadata["versions"] == ["1"]


@only("ray-serve")
@pytest.mark.parametrize("path", ["/versions/2", "/stats", "/../other"])
def test_what_is_not_there_is_404(live: Live, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(live, path)
    with raised.value as answer:
        assert answer.code == 404
        assert "the model is /v2/models/policy" in json.load(answer)["error"]


def test_verify_url_passes(live: Live, run: Run) -> None:
    for url in live.urls:
        done = run("verify", "--url", url, "--certificate", live.certificate)
        assert done.code == 0, done.out + done.err


def test_the_smoke_test_passes_and_tells_another_answer(live: Live) -> None:
    done = smoke_test(live)
    assert done.returncode == 0, done.stderr
    assert "rows within their bounds" in done.stdout, done.stderr
    expected = live.package.folder / "smoke" / "expected.json"
    whole = expected.read_text(encoding="utf-8")
    stale = json.loads(whole)
    next(iter(stale["outputs"].values()))["exact"][-1] += 1e-3
    expected.write_text(json.dumps(stale), encoding="utf-8")
    done = smoke_test(live)
    expected.write_text(whole, encoding="utf-8")
    assert done.returncode == 1
    assert "not what was proved" in done.stderr
    nobody = replace(live, package=replace(live.package, deployment=replace(live.package.deployment, name="nobody")))
    assert smoke_test(nobody).returncode == 3


@only(*WORDS)
def test_gaps_are_nan_and_a_code_beyond_the_words_is_refused(live: Live) -> None:
    inputs = {name: values[:3].copy() for name, values in live.answers.inputs.items()}
    inputs["numbers"][1, 0] = np.nan
    gap = eager(delays()[1], inputs["numbers"], inputs["words"])
    (found,) = ask_grpc(live, inputs).values()
    np.testing.assert_allclose(found, gap, rtol=0, atol=1e-5)
    inputs["words"][1, 1] = 3
    with pytest.raises(InferenceServerException):
        ask_grpc(live, inputs)
    (found,) = ask_grpc(live, {name: values[[0, 2]] for name, values in inputs.items()}).values()
    np.testing.assert_allclose(found, gap[[0, 2]], rtol=0, atol=1e-5)


@only("kserve", "mlserver", "ray-serve")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_400_and_says_why(live: Live, name: str) -> None:
    status, answer = post(live, wrong(live, name))
    assert status == 400
    assert WRONG[name][1] in answer["error"]


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
    assert code == status
    assert not words or words in answer["error"]


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


@only("kserve", "mlserver", "ray-serve")
def test_wrong_requests_do_not_spoil_the_answers_of_others(live: Live) -> None:
    assert_neighbours_are_answered(live)


@only("kserve", "mlserver", "triton")
def test_a_nan_is_the_answer_of_its_own_row_only(live: Live) -> None:
    inputs = {name: values[:3].copy() for name, values in live.answers.inputs.items()}
    inputs["obs"][1, 0] = np.nan
    for values in ask_grpc(live, inputs).values():
        assert np.isnan(values[1]).all()
        assert np.isfinite(values[[0, 2]]).all()


@pytest.mark.parametrize(("live", "rows"), [("mlserver", 1), ("ray-serve", 2)], indirect=["live"])
def test_json_has_null_for_what_it_cannot_write(live: Live, rows: int) -> None:
    record = request(live, slice(0, rows))
    record["inputs"][0]["data"][:3] = [3e38, 3e38, 3e38]
    status, answer = post(live, record)
    (values,) = [output["data"] for output in answer["outputs"] if output["name"] == "value"]
    assert status == 200
    assert len(values) == rows
    assert values[0] is None
    assert all(abs(values[row] - live.answers.exact["value"][row, 0]) < 1 for row in range(1, rows))


@only("kserve", "mlserver", "triton")
def test_the_outputs_that_are_asked_for_are_given(live: Live) -> None:
    status, answer = post(live, request(live) | {"id": "17", "outputs": [{"name": "value"}]})
    assert status == 200
    assert answer["id"] == "17"
    assert [output["name"] for output in answer["outputs"]] == ["value"]


def executions(live: Live) -> int:
    """How often Triton ran the model."""
    return get(live, "/stats")["model_stats"][0]["execution_count"]


@pytest.mark.parametrize("way", WAYS)
@only("triton plain", "triton")
def test_triton_answers_sixteen_at_once_from_fewer_runs(live: Live, way: str) -> None:
    parts, before = sixteen(live.answers), executions(live)
    answers = WAYS[way](live, parts)
    assert executions(live) - before < len(parts)
    for rows, outputs in zip(parts, answers, strict=True):
        assert_proved(live, rows, outputs)


@pytest.mark.parametrize("way", WAYS)
@only("triton fixed")
def test_a_fixed_batch_is_asked_whole(live: Live, way: str) -> None:
    whole = slice(0, 12)
    for outputs in WAYS[way](live, [whole] * 3):
        assert_proved(live, whole, outputs)


@pytest.mark.parametrize("rows", [65, 1000])
@only("triton plain")
def test_triton_refuses_more_rows_than_a_batch_may_have(live: Live, rows: int) -> None:
    with pytest.raises(InferenceServerException, match="must be <= 64"):
        ask_grpc(live, {"input": np.zeros((rows, 7), np.float32)})


@only("triton loose")
def test_a_request_that_spoils_a_batch_has_its_own_error_and_the_others_their_answers(live: Live) -> None:
    requests = [{"input": live.answers.inputs["input"][index : index + 2]} for index in range(8)]
    requests[3] = {"input": np.zeros((2, 8), np.float32)}
    before = executions(live)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask_grpc, live, inputs) for inputs in requests]
    with pytest.raises(InferenceServerException, match="ONNX Runtime cannot run the request"):
        futures[3].result()
    for index in {*range(8)} - {3}:
        assert_proved(live, slice(index, index + 2), futures[index].result())
    assert executions(live) - before < 8


@only("triton plain", "triton", "triton fixed")
def test_another_model_is_not_what_the_certificate_proves(live: Live, run: Run) -> None:
    other = "policy" if live.name == "plain" else "plain"
    for url in live.urls:
        done = run("verify", "--url", url.replace(live.name, other), "--certificate", live.certificate)
        assert done.code == 1, done.out + done.err
