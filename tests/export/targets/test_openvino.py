"""The folder for OpenVINO Model Server, read and run with OpenVINO as config.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from export import Package, package, publish
from runtime import Answers
from tests.support.cases import BLOCKS, network, randomised
from tests.support.onnx_drafts import fixed_batch
from tests.support.policy import SHAPES, Policy
from tests.support.words import delays, eager


def config(made: Package) -> dict[str, Any]:
    (model,) = json.loads((made.folder / "models" / "config.json").read_text(encoding="utf-8"))["model_config_list"]
    return model["config"]


def compiled(made: Package) -> openvino.CompiledModel:
    """The model as the Model Server loads it: shapes, device and plugin options of config.json."""
    asked = config(made)
    assert asked["base_path"].startswith("/models/")
    core = openvino.Core()
    model = core.read_model(made.folder / asked["base_path"].lstrip("/") / "1" / "model.onnx")
    shapes = {name: shape.strip("()").replace(":", "..") for name, shape in asked.get("shape", {}).items()}
    model.reshape({name: openvino.PartialShape(f"[{shape}]") for name, shape in shapes.items()})
    return core.compile_model(model, asked["target_device"], asked["plugin_config"])


def answers_of(made: Package) -> Answers:
    answers = made.deployment.certificate.answers
    assert answers is not None
    return answers


def assert_within_bounds(made: Package) -> None:
    answers, model = answers_of(made), compiled(made)
    for rows in (answers.rows, 1):
        found = model({name: values[:rows] for name, values in answers.inputs.items()})
        for name, exact in answers.exact.items():
            assert np.all(np.abs(found[name] - exact[:rows]) <= answers.bound[name][:rows])


@pytest.mark.parametrize("block", BLOCKS)
def test_openvino_computes_what_was_proved(block: str, tmp_path: Path) -> None:
    spec, module = network([{"linear": 7}, BLOCKS[block], {"linear": 3}])
    publish(randomised(module, 1), tmp_path / "m.onnx", spec=spec, page=False)
    assert_within_bounds(package(tmp_path / "m.onnx", "openvino", tmp_path / "p"))


def test_several_inputs_and_outputs_with_external_data(tmp_path: Path) -> None:
    torch.manual_seed(0)
    publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, external_data=True, page=False)
    made = package(tmp_path / "m.onnx", "openvino", tmp_path / "p", max_batch=24)
    assert config(made)["shape"] == {"obs": "(1:24,3)", "goal": "(1:24,2)"}
    assert_within_bounds(made)


def test_codes_of_words_and_gaps(tmp_path: Path) -> None:
    spec, module = delays()
    publish(module, tmp_path / "m.onnx", spec=spec, page=False)
    made = package(tmp_path / "m.onnx", "openvino", tmp_path / "p")
    assert_within_bounds(made)
    numbers, codes = np.array([[500, np.nan], [np.nan, 3]], np.float32), np.array([[3, 1], [2, 0]])
    found = compiled(made)({"numbers": numbers, "words": codes})["delay"]
    np.testing.assert_allclose(found, eager(module, numbers, codes), rtol=0, atol=1e-5)


def test_a_batch_of_more_rows_is_refused(tmp_path: Path) -> None:
    spec, module = network([{"linear": 3}])
    publish(module, tmp_path / "m.onnx", spec=spec, page=False)
    model = compiled(package(tmp_path / "m.onnx", "openvino", tmp_path / "p", max_batch=8))
    assert model(np.zeros((8, 7), np.float32))[0].shape == (8, 3)
    with pytest.raises(RuntimeError, match="shape"):
        model(np.zeros((9, 7), np.float32))


def test_copies_and_threads(tmp_path: Path) -> None:
    spec, module = network([{"linear": 3}])
    publish(module, tmp_path / "m.onnx", spec=spec, page=False)
    made = package(tmp_path / "m.onnx", "openvino", tmp_path / "p", instances=2, threads=3)
    plugin = config(made)["plugin_config"]
    assert (plugin["NUM_STREAMS"], plugin["INFERENCE_NUM_THREADS"]) == ("2", "6")
    assert compiled(made).get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert config(made)["nireq"] == 2
    assert f"openvino/model_server:{made.deployment.release}" in made.start


def test_a_batch_that_the_file_fixes_is_not_asked_for(tmp_path: Path) -> None:
    made = package(fixed_batch(tmp_path, 4), "openvino", tmp_path / "p")
    assert "shape" not in config(made)
    assert compiled(made)(np.zeros((4, 5), np.float32))[0].shape == (4, 2)
