"""The package for Triton's Python backend, served by Triton itself and asked with NVIDIA's client."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from export import Package, package, publish
from runtime import Answers
from tests.cases import network, randomised
from tests.servers.environments import environment
from tests.servers.rest_client import rest
from tests.servers.triton import Addresses, triton
from tests.test_several import SHAPES, Policy


@dataclass(frozen=True)
class Live:
    folder: Path
    at: Addresses
    packages: dict[str, Package]

    def answers(self, name: str) -> Answers:
        found = self.packages[name].deployment.certificate.answers
        assert found is not None
        return found


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Models in one Triton: of one input and output, of two each with external data, and one that lets any width by."""
    folder = tmp_path_factory.mktemp("live")
    spec, module = network([{"linear": 32}, "relu", {"linear": 3}])
    publish(randomised(module, 1), folder / "plain.onnx", spec=spec, page=False)
    torch.manual_seed(0)
    publish(Policy(), folder / "policy.onnx", input_shape=SHAPES, external_data=True, page=False)
    packages = {
        name: package(
            folder / f"{name}.onnx", "triton", folder / name, backend="python", max_batch=64, delay_us=100_000
        )
        for name in ("plain", "policy")
    }
    loose = package(folder / "plain.onnx", "triton", folder / "loose", name="loose", backend="python", delay_us=100_000)
    config = loose.folder / "models" / "loose" / "config.pbtxt"
    any_width = "dims: [ -1 ]\n  allow_ragged_batch: true"
    config.write_text(config.read_text().replace("dims: [ 7 ]", any_width, 1))
    packages["loose"] = loose
    repository = folder / "repository"
    repository.mkdir()
    for name, made in packages.items():
        (repository / name).symlink_to(made.folder / "models" / name)
    with triton(repository, folder / "triton.log") as at:
        yield Live(folder, at, packages)


Ask = Callable[[Live, str, list[slice]], list[dict[str, np.ndarray]]]


def over_grpc(live: Live, name: str, parts: list[slice]) -> list[dict[str, np.ndarray]]:
    """The outputs for parts of the rows, each asked for by a client of its own, all at once."""
    answers = live.answers(name)

    def ask(rows: slice) -> dict[str, np.ndarray]:
        tensors = []
        for key, values in answers.inputs.items():
            tensors.append(InferInput(key, list(values[rows].shape), "FP32"))
            tensors[-1].set_data_from_numpy(np.ascontiguousarray(values[rows]))
        with InferenceServerClient(live.at.grpc) as client:
            result = client.infer(name, tensors)
        return {key: result.as_numpy(key) for key in answers.exact}

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(ask, parts))


def over_rest(live: Live, name: str, parts: list[slice], binary: bool = True) -> list[dict[str, np.ndarray]]:
    python = environment("triton") / "bin" / "python"
    return rest(python, live.at.http, name, live.answers(name).inputs, parts, live.folder, binary=binary)


ASKING: dict[str, Ask] = {
    "grpc": over_grpc,
    "rest, binary": over_rest,
    "rest, JSON": lambda live, name, parts: over_rest(live, name, parts, binary=False),
}


def get(live: Live, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{live.at.http}/v2/models/{path}", timeout=10) as response:
        return json.load(response)


def assert_proved(live: Live, name: str, rows: slice, found: dict[str, np.ndarray]) -> None:
    answers = live.answers(name)
    for key, values in found.items():
        assert values.shape == answers.exact[key][rows].shape
        assert np.all(np.abs(values - answers.exact[key][rows]) <= answers.bound[key][rows])


@pytest.mark.parametrize("name", ["plain", "policy"])
@pytest.mark.parametrize("way", ASKING)
def test_every_row_is_answered_within_its_bound(live: Live, way: str, name: str) -> None:
    parts = [slice(0, 1), slice(0, live.answers(name).rows)]
    for rows, found in zip(parts, ASKING[way](live, name, parts), strict=True):
        assert_proved(live, name, rows, found)


@pytest.mark.parametrize("name", ["plain", "policy"])
@pytest.mark.parametrize("way", ASKING)
def test_sixteen_requests_at_once_have_their_own_answers_from_fewer_runs(live: Live, way: str, name: str) -> None:
    count = live.answers(name).rows
    parts = [slice(start, min(count, start + 1 + start % 3)) for start in (index % count for index in range(16))]
    before = get(live, f"{name}/stats")["model_stats"][0]["execution_count"]
    found = ASKING[way](live, name, parts)
    assert get(live, f"{name}/stats")["model_stats"][0]["execution_count"] - before < len(parts)
    for rows, outputs in zip(parts, found, strict=True):
        assert_proved(live, name, rows, outputs)


def test_the_metadata_is_the_file_s(live: Live) -> None:
    for name in ("plain", "policy"):
        told, summary = get(live, name), live.packages[name].deployment.summary
        for kind in ("inputs", "outputs"):
            expected = [(port.name, "FP32", [-1, *port.shape[1:]]) for port in getattr(summary, kind)]
            assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in told[kind]] == expected


@pytest.mark.parametrize("rows", [65, 1000])
def test_more_rows_than_a_batch_may_have_are_refused(live: Live, rows: int) -> None:
    tensor = InferInput("input", [rows, 7], "FP32")
    tensor.set_data_from_numpy(np.zeros((rows, 7), np.float32))
    with InferenceServerClient(live.at.grpc) as client, pytest.raises(InferenceServerException, match="must be <= 64"):
        client.infer("plain", [tensor])


def test_a_request_that_spoils_a_batch_has_its_own_error_and_the_others_their_answers(live: Live) -> None:
    rows = live.answers("loose").inputs["input"]

    def ask(index: int) -> np.ndarray:
        given = rows[index : index + 2] if index != 3 else np.zeros((2, 8), np.float32)
        tensor = InferInput("input", list(given.shape), "FP32")
        tensor.set_data_from_numpy(np.ascontiguousarray(given))
        with InferenceServerClient(live.at.grpc) as client:
            return client.infer("loose", [tensor]).as_numpy("output")

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, index) for index in range(8)]
    with pytest.raises(InferenceServerException, match="ONNX Runtime cannot run it"):
        asked[3].result()
    for index in {*range(8)} - {3}:
        assert_proved(live, "loose", slice(index, index + 2), {"output": asked[index].result()})


@pytest.mark.parametrize("name", ["plain", "policy"])
def test_the_smoke_test_passes_and_tells_another_model(live: Live, name: str) -> None:
    script = live.packages[name].folder / "smoke" / "check.py"

    def check(url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(script), url], capture_output=True, text=True)

    done = check(f"http://{live.at.http}/v2/models/{name}")
    assert done.returncode == 0 and "4 rows within their bounds" in done.stdout, done.stderr
    assert check(f"http://{live.at.http}/v2/models/nobody").returncode == 3
    answers = script.with_name("expected.json")
    whole = answers.read_text()
    stale = json.loads(whole)
    (output, *_) = stale["outputs"].values()
    output["exact"][-1] += 1e-3
    answers.write_text(json.dumps(stale))
    done = check(f"http://{live.at.http}/v2/models/{name}")
    answers.write_text(whole)
    assert done.returncode == 1 and "not what was proved" in done.stderr
