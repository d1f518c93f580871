"""A package's smoke test, sent to a stub server whose answers are the planted faults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from builder import MLPSpec, assemble
from export import Package, package, publish
from runtime import Session
from tests.support.cases import BLOCKS, network, randomised, specs
from tests.support.repeats import examples

Arrays = dict[str, np.ndarray]


class StubServer:
    """A server of the Open Inference Protocol: ``answer`` makes outputs of inputs, or the bytes that it sends."""

    answer: Callable[[Arrays], Arrays | bytes]
    token: str | None = None
    """The Authorization of the last request."""

    def __init__(self, server: ThreadingHTTPServer):
        self.url = f"http://127.0.0.1:{server.server_port}/v2/models/m"

    def body(self, request: Any) -> bytes:
        inputs = {t["name"]: np.array(t["data"], np.float32).reshape(t["shape"]) for t in request["inputs"]}
        result = self.answer(inputs)
        if isinstance(result, bytes):
            return result
        outputs = [
            {"name": name, "datatype": "FP32", "shape": values.shape, "data": values.ravel().tolist()}
            for name, values in result.items()
        ]
        return json.dumps({"model_name": "m", "outputs": outputs}).encode()


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            served.token = self.headers["Authorization"]
            body = served.body(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.path == "/v2/models/m/infer" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = StubServer(server)
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def packaged(folder: Path, spec: MLPSpec, seed: int = 1) -> Package:
    publish(randomised(assemble(spec, seed=seed), seed), folder / "m.onnx", spec=spec, page=False)
    return package(folder / "m.onnx", "triton", folder / "p")


def check(made: Package, stub: StubServer) -> subprocess.CompletedProcess[str]:
    script = made.folder / "smoke" / "check.py"
    return subprocess.run([sys.executable, str(script), stub.url], capture_output=True, text=True)


def by_onnx_runtime(made: Package, inputs: Arrays) -> Arrays:
    with Session(made.deployment.file, "cpu") as session:
        return session.run(inputs)


@pytest.mark.parametrize("block", BLOCKS)
def test_what_onnx_runtime_answers_passes(block: str, stub: StubServer, tmp_path: Path) -> None:
    spec, _ = network([BLOCKS[block]])
    made = packaged(tmp_path, spec) if block not in ("dropout", "flatten", "identity") else None
    if made is None:  # nothing acts in such a network
        made = packaged(tmp_path, network([BLOCKS[block], {"linear": 2}])[0])
    stub.answer = partial(by_onnx_runtime, made)
    done = check(made, stub)
    assert done.returncode == 0, done.stderr
    assert "4 rows within their bounds" in done.stdout, done.stderr


@given(spec=specs(deepest=5, widest=64), seed=st.integers(0, 9))
@settings(max_examples=examples(8, of=20), deadline=None)
def test_what_onnx_runtime_answers_passes_for_any_network(
    stub: StubServer, tmp_path_factory: pytest.TempPathFactory, spec: MLPSpec, seed: int
) -> None:
    made = packaged(tmp_path_factory.mktemp("any"), spec, seed)
    stub.answer = partial(by_onnx_runtime, made)
    done = check(made, stub)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Package:
    spec, _ = network([{"linear": 64}, "relu", {"linear": 64}, "relu", {"linear": 4}], features=32)
    return packaged(tmp_path_factory.mktemp("made"), spec)


@pytest.mark.parametrize("kind", ["TF32", "TF32, truncated", "bfloat16", "float16"])
def test_a_reduced_precision_is_named(kind: str, made: Package, stub: StubServer) -> None:
    answers = made.deployment.certificate.answers
    assert answers is not None
    (name,), (values,), (reduced,) = answers.inputs, answers.inputs.values(), answers.reduced[kind].values()

    def answer(inputs: Arrays) -> Arrays:
        rows = [int(np.flatnonzero((values == row).all(axis=1))[0]) for row in inputs[name]]
        return {next(iter(answers.exact)): reduced[rows]}

    stub.answer = answer
    done = check(made, stub)
    assert done.returncode == 1
    assert f"the answers are those of {kind}: turn it off" in done.stderr


def changed(outputs: Arrays, change: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return {name: change(values) for name, values in outputs.items()}


FAULTS: dict[str, tuple[Callable[[Arrays], Arrays | bytes], int, str]] = {
    "one number": (lambda y: changed(y, lambda v: v + 0.1 * (np.arange(v.size).reshape(v.shape) == 5)), 1, "[1, 1] is"),
    "rows reversed": (lambda y: changed(y, lambda v: v[::-1]), 1, "proved is"),
    "not a number": (lambda y: changed(y, lambda v: v * np.nan), 1, "nan"),
    "too few rows": (lambda y: changed(y, lambda v: v[1:]), 1, "has shape [3, 4], not [4, 4]"),
    "no output": (lambda _: {}, 1, "the output 'output' is missing"),
    "another name": (lambda y: {"y": next(iter(y.values()))}, 1, "the output 'output' is missing"),
    "no JSON": (lambda _: b"<html>", 3, "no answer"),
    "null": (lambda _: b'{"outputs": [{"name": "output", "shape": [4, 4], "data": ' + b"[null]" + b"}]}", 1, "shape"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str, made: Package, stub: StubServer) -> None:
    plant, code, words = FAULTS[fault]
    stub.answer = lambda inputs: plant(by_onnx_runtime(made, inputs))
    done = check(made, stub)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_numbers_in_few_digits_and_nested_rows_are_the_same_answer(made: Package, stub: StubServer) -> None:
    def answer(inputs: Arrays) -> bytes:
        ((name, values),) = by_onnx_runtime(made, inputs).items()
        rows = ",".join(f"[{','.join(np.format_float_scientific(v, unique=True) for v in row)}]" for row in values)
        return f'{{"outputs": [{{"name": "{name}", "shape": [4, 4], "data": [{rows}]}}]}}'.encode()

    stub.answer = answer
    assert check(made, stub).returncode == 0


def test_a_token_is_taken_from_the_environment(
    made: Package, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answer = lambda inputs: by_onnx_runtime(made, inputs)
    for token, sent in (("s3cret", "Bearer s3cret"), ("", None)):
        monkeypatch.setenv("MLPX_TOKEN", token)
        assert check(made, stub).returncode == 0
        assert stub.token == sent


def test_answers_that_overflow_in_a_precision_are_plain_json(stub: StubServer, tmp_path: Path) -> None:
    last = nn.Linear(8, 2)
    with torch.no_grad():
        last.weight *= 1e30
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), last)
    publish(module, tmp_path / "m.onnx", page=False)
    made = package(tmp_path / "m.onnx", "triton", tmp_path / "p")

    def refused(word: str) -> None:
        raise ValueError(word)

    expected = json.loads((made.folder / "smoke" / "expected.json").read_text(), parse_constant=refused)
    assert "float16" not in next(iter(expected["outputs"].values()))["reduced"]
    stub.answer = lambda inputs: by_onnx_runtime(made, inputs)
    assert check(made, stub).returncode == 0


def test_a_refusal_is_shown(made: Package, stub: StubServer) -> None:
    stub.answer = lambda _: b'{"error": "no such model"}'
    script = made.folder / "smoke" / "check.py"
    done = subprocess.run([sys.executable, script, f"{stub.url}x"], capture_output=True, text=True)
    assert done.returncode == 3
    assert '404 {"error": "no such model"}' in done.stderr
