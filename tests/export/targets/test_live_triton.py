"""The package for Triton's Python backend, served by Triton itself and asked with NVIDIA's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from export import package, publish
from tests.support.cases import network, randomised
from tests.support.commands import Run
from tests.support.onnx_drafts import fixed_batch
from tests.support.servers.asking import (
    Live,
    Way,
    ask_grpc,
    assert_proved,
    get,
    over_grpc,
    over_rest,
    over_rest_binary,
    policy,
    sixteen,
    smoke_test,
)
from tests.support.servers.triton import triton

WAYS = [over_grpc, over_rest, over_rest_binary]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Live]]:
    """Models in one Triton: plain, of several inputs with external data, of a fixed batch, and open to any width."""
    folder = tmp_path_factory.mktemp("live")
    spec, module = network([{"linear": 32}, "relu", {"linear": 3}])
    publish(randomised(module, 1), folder / "plain.onnx", spec=spec, page=False)
    options: dict[str, dict[str, Any]] = {
        "plain": {"path": folder / "plain.onnx", "max_batch": 64, "delay_us": 100_000},
        "policy": {"path": policy(folder), "max_batch": 64, "delay_us": 100_000},
        "fixed": {"path": fixed_batch(folder, 12)},
        "loose": {"path": folder / "plain.onnx", "delay_us": 100_000},
    }
    packages = {
        name: package(target="triton", folder=folder / name, name=name, backend="python", **settings)
        for name, settings in options.items()
    }
    let_any_width_by(packages["loose"].folder / "models" / "loose" / "config.pbtxt")
    repository = folder / "repository"
    repository.mkdir()
    for name, made in packages.items():
        (repository / name).symlink_to(made.folder / "models" / name)
    with triton(repository, folder / "triton.log") as at:
        yield {name: Live(made, at.http, at.grpc) for name, made in packages.items()}


def let_any_width_by(config: Path) -> None:
    """So that a request reaches the model, in a batch with others, whose width it cannot take."""
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("dims: [ 7 ]", "dims: [ -1 ]\n  allow_ragged_batch: true", 1), encoding="utf-8")


@pytest.mark.parametrize("name", ["plain", "policy"])
@pytest.mark.parametrize("way", WAYS)
def test_every_row_is_answered_within_its_bound(served: dict[str, Live], way: Way, name: str) -> None:
    live = served[name]
    parts = [slice(0, 1), slice(0, live.answers.rows)]
    for rows, outputs in zip(parts, way(live, parts), strict=True):
        assert_proved(live, rows, outputs)


@pytest.mark.parametrize("name", ["plain", "policy"])
@pytest.mark.parametrize("way", WAYS)
def test_sixteen_at_once_have_their_own_answers_from_fewer_runs(served: dict[str, Live], way: Way, name: str) -> None:
    live = served[name]
    parts, before = sixteen(live.answers), executions(live)
    answers = way(live, parts)
    assert executions(live) - before < len(parts)
    for rows, outputs in zip(parts, answers, strict=True):
        assert_proved(live, rows, outputs)


def executions(live: Live) -> int:
    return get(live, "/stats")["model_stats"][0]["execution_count"]


@pytest.mark.parametrize("way", WAYS)
def test_a_fixed_batch_is_asked_whole(served: dict[str, Live], way: Way) -> None:
    whole = slice(0, 12)
    for outputs in way(served["fixed"], [whole] * 3):
        assert_proved(served["fixed"], whole, outputs)


@pytest.mark.parametrize("name", ["plain", "policy"])
def test_the_metadata_is_the_file_s(served: dict[str, Live], name: str) -> None:
    metadata, summary = get(served[name]), served[name].package.deployment.summary
    for kind in ("inputs", "outputs"):
        expected = [(port.name, "FP32", [-1, *port.shape[1:]]) for port in getattr(summary, kind)]
        assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata[kind]] == expected


@pytest.mark.parametrize("rows", [65, 1000])
def test_more_rows_than_a_batch_may_have_are_refused(served: dict[str, Live], rows: int) -> None:
    with pytest.raises(InferenceServerException, match="must be <= 64"):
        ask_grpc(served["plain"], {"input": np.zeros((rows, 7), np.float32)})


def test_a_request_that_spoils_a_batch_has_its_own_error_and_the_others_their_answers(served: dict[str, Live]) -> None:
    live = served["loose"]
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


@pytest.mark.parametrize("name", ["plain", "policy", "fixed"])
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_live_server_is_verified(run: Run, served: dict[str, Live], scheme: str, name: str) -> None:
    live = served[name]
    url = live.url if scheme == "http" else f"grpc://{live.grpc}/v2/models/{name}"
    done = run("verify", "--url", url, "--certificate", live.certificate)
    assert done.code == 0, done.out + done.err
    other = "policy" if name == "plain" else "plain"
    assert run("verify", "--url", url.replace(name, other), "--certificate", live.certificate).code == 1


@pytest.mark.parametrize("name", ["plain", "policy", "fixed"])
def test_the_smoke_test_passes_and_tells_another_answer(served: dict[str, Live], name: str) -> None:
    live = served[name]
    done = smoke_test(live)
    assert done.returncode == 0 and "rows within their bounds" in done.stdout, done.stderr
    expected = live.package.folder / "smoke" / "expected.json"
    whole = expected.read_text(encoding="utf-8")
    stale = json.loads(whole)
    next(iter(stale["outputs"].values()))["exact"][-1] += 1e-3
    expected.write_text(json.dumps(stale), encoding="utf-8")
    done = smoke_test(live)
    expected.write_text(whole, encoding="utf-8")
    assert done.returncode == 1 and "not what was proved" in done.stderr
    nobody = replace(live, package=replace(live.package, deployment=replace(live.package.deployment, name="nobody")))
    assert smoke_test(nobody).returncode == 3
