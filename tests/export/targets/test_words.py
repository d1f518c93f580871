"""Packages of a file that takes whole numbers for words: what they say of these, send and accept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import TargetError, package, publish
from export.targets.runners.onnx_model import OnnxModel, RequestTensor, WrongRequestError
from runtime import Session
from tests.support.words import delays, eager


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, module = delays()
    return publish(module, tmp_path_factory.mktemp("m") / "delays.onnx", spec=spec, device="cpu", page=False)[0].path


@pytest.mark.parametrize("target", ["triton", "openvino", "mlserver", "kserve", "ray-serve"])
def test_every_package_says_the_words(target: str, model: Path, tmp_path: Path) -> None:
    folder = package(model, target, tmp_path / "p").folder
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| `words` | carrier | 0: AA, 1: B6, 2: UA, 3: Ü 2 | 2 |" in text
    assert "| `words` | origin | 0: EWR, 1: JFK, 2: LGA | refuse it |" in text
    assert "Values of `numbers` may be missing: send NaN for them." in text
    request = json.loads((folder / "smoke" / "request.json").read_text())
    numbers, words = request["inputs"]
    assert (numbers["datatype"], words["datatype"]) == ("FP32", "INT64")
    assert all(type(code) is int for code in words["data"])


def test_an_older_server_gets_the_network_of_the_spec(tmp_path: Path) -> None:
    spec, module = delays()
    path = publish(module, tmp_path / "delays.onnx", spec=spec, opset=23, device="cpu", page=False)[0].path
    made = package(path, "triton", tmp_path / "p", release="21.12")
    assert made.deployment.certificate.proved
    summary = made.deployment.summary
    assert summary.opset < 23
    with Session(path, "cpu") as old:
        assert old.summary is not None
        assert (summary.inputs, summary.outputs) == (old.summary.inputs, old.summary.outputs)


def test_tritons_configuration_has_the_types(model: Path, tmp_path: Path) -> None:
    folder = package(model, "triton", tmp_path / "p").folder
    (config,) = folder.rglob("config.pbtxt")
    text = config.read_text()
    assert text.count("TYPE_INT64") == 2  # the input, and what warms it up
    assert "TYPE_FP32" in text


def test_c_is_for_float32(model: Path, tmp_path: Path) -> None:
    message = r"the input 'words' is int64, and C computes float32 alone\. What to do: package it for a server"
    with pytest.raises(TargetError, match=message):
        package(model, "c", tmp_path / "p")
    assert not (tmp_path / "p").exists()


NUMBERS = [[500.0, 3.0], [250.0, 1.0]]
CODES = [[3, 1], [2, 0]]


def asked(data: Any, datatype: str = "INT64") -> list[RequestTensor]:
    return [RequestTensor("numbers", "FP32", [2, 2], NUMBERS), RequestTensor("words", datatype, [2, 2], data)]


@pytest.mark.parametrize("data", [CODES, [3, 1, 2, 0], [3.0, 1.0, 2.0, 0.0], np.array(CODES, "<i8").tobytes()])
def test_the_runner_takes_codes(data: Any, model: Path) -> None:
    runner = OnnxModel(model)
    assert runner.inputs["words"].metadata == {"name": "words", "datatype": "INT64", "shape": [-1, 2]}

    async def ask() -> dict[str, np.ndarray]:
        return await runner.run(runner.feed(asked(data)))

    found = asyncio.run(ask())["delay"]
    np.testing.assert_allclose(found, eager(delays()[1], NUMBERS, CODES), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "datatype", "expected"),
    [
        ([[0.5, 1], [2, 0]], "INT64", "a number that is not whole, and is INT64"),
        ([[2**64, 1], [2, 0]], "INT64", "data that is not all numbers|too large for INT64"),
        ([[1e30, 1], [2, 0]], "INT64", "too large for INT64"),
        (CODES, "FP32", "has the datatype INT64, and FP32 was given"),
        (b"1234", "INT64", "has 4 bytes, which do not fit the shape"),
        ([["AA", "EWR"], ["AA", "EWR"]], "INT64", "data that is not all numbers"),
    ],
)
def test_the_runner_refuses_what_is_no_code(data: Any, datatype: str, expected: str, model: Path) -> None:
    with pytest.raises(WrongRequestError, match=expected):
        OnnxModel(model).feed(asked(data, datatype))
