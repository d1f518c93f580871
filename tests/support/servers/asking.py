"""A model at a live server, and the ways to ask it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tritonclient.grpc import InferenceServerClient, InferInput

from export import Package, publish
from runtime import Answers
from tests.support.policy import SHAPES, Policy
from tests.support.servers.environments import environment
from tests.support.servers.rest_client import rest
from tests.support.words import delays


def words(folder: Path) -> Path:
    """A proved file of numbers, which may be missing, and of codes of words."""
    spec, module = delays()
    return publish(module, folder / "delays.onnx", spec=spec, page=False)[0].path


@dataclass(frozen=True)
class Live:
    """A package's model while its server runs; the addresses are as "127.0.0.1:8000"."""

    package: Package
    http: str
    grpc: str = ""
    metrics: str = ""
    """Where Prometheus' metrics are, with their path."""

    @property
    def name(self) -> str:
        return self.package.deployment.name

    @property
    def url(self) -> str:
        return f"http://{self.http}/v2/models/{self.name}"

    @property
    def urls(self) -> list[str]:
        """Of REST, and of gRPC where the server has it."""
        return [self.url, *([f"grpc://{self.grpc}/v2/models/{self.name}"] if self.grpc else [])]

    @property
    def certificate(self) -> Path:
        return self.package.folder / f"{self.name}.parity.json"

    @property
    def answers(self) -> Answers:
        answers = self.package.deployment.certificate.answers
        assert answers is not None
        return answers


Outputs = dict[str, np.ndarray]
Way = Callable[[Live, Sequence[slice]], list[Outputs]]


def policy(folder: Path) -> Path:
    """A proved file of two inputs and two outputs, with external data."""
    torch.manual_seed(0)
    publish(Policy(), folder / "policy.onnx", input_shape=SHAPES, external_data=True, page=False)
    return folder / "policy.onnx"


def datatype(values: np.ndarray) -> str:
    """Of an input whose rows are these: FP32, or INT64 of codes."""
    return {"float32": "FP32", "int64": "INT64"}[str(values.dtype)]


def ask_grpc(live: Live, inputs: Outputs) -> Outputs:
    """The outputs for arrays, sent as bytes by NVIDIA's client."""
    tensors = []
    for name, values in inputs.items():
        tensors.append(InferInput(name, list(values.shape), datatype(values)))
        tensors[-1].set_data_from_numpy(np.ascontiguousarray(values))
    with InferenceServerClient(live.grpc) as client:
        result: Any = client.infer(live.name, tensors)
    return {name: result.as_numpy(name) for name in live.answers.exact}


def over_grpc(live: Live, parts: Sequence[slice]) -> list[Outputs]:
    """The outputs for parts of the certificate's rows, each asked for by a client of its own, all at once."""
    batches = [{name: values[rows] for name, values in live.answers.inputs.items()} for rows in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(lambda inputs: ask_grpc(live, inputs), batches))


def over_rest(live: Live, parts: Sequence[slice], *, binary: bool = False) -> list[Outputs]:
    """The same over REST, by NVIDIA's client in Triton's environment."""
    python = environment("triton") / "bin" / "python"
    folder = live.certificate.parent.parent
    return rest(python, live.http, live.name, live.answers.inputs, parts, folder, binary=binary)


def over_rest_binary(live: Live, parts: Sequence[slice]) -> list[Outputs]:
    return over_rest(live, parts, binary=True)


def sixteen(answers: Answers) -> list[slice]:
    """Sixteen different parts of one to three rows."""
    starts = [index % (answers.rows - 3) for index in range(16)]
    return [slice(start, start + 1 + index % 3) for index, start in enumerate(starts)]


def assert_proved(live: Live, rows: slice, outputs: Outputs) -> None:
    """Every output is there, and within the certificate's bound."""
    assert sorted(outputs) == sorted(live.answers.exact)
    for name, values in outputs.items():
        assert values.shape == live.answers.exact[name][rows].shape
        assert np.all(np.abs(values - live.answers.exact[name][rows]) <= live.answers.bound[name][rows])


def request(live: Live, rows: slice = slice(0, 1)) -> dict[str, Any]:
    """A request for rows of the certificate, for JSON."""
    return {
        "inputs": [
            {"name": name, "shape": list(part.shape), "datatype": datatype(part), "data": part.ravel().tolist()}
            for name, part in ((name, values[rows]) for name, values in live.answers.inputs.items())
        ]
    }


def post(live: Live, body: object, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """The status and the JSON of an answer to a body: bytes, or what is written as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | (headers or {})
    http_request = urllib.request.Request(f"{live.url}/infer", sent, headers)
    try:
        with urllib.request.urlopen(http_request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def get(live: Live, path: str = "") -> Any:
    """The JSON of what the server tells of the model."""
    with urllib.request.urlopen(f"{live.url}{path}", timeout=30) as response:
        return json.load(response)


def smoke_test(live: Live) -> subprocess.CompletedProcess[str]:
    """The package's own check of the live server."""
    script = live.package.folder / "smoke" / "check.py"
    return subprocess.run([sys.executable, str(script), live.url], capture_output=True, text=True, timeout=60)
