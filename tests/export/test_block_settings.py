"""The numbers that ``inspect`` shows of blocks: slopes, limits, factors, and the p of Dropouts that left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from builder import MLPSpec, assemble
from export import export, inspect
from tests.support.commands import Run

BLOCKS = [
    {"standardize": {"mean": [1, 2, 3], "std": 0.5}},
    {"linear": 4},
    "leaky_relu",
    {"clip": [-5, 5]},
    {"dropout": 0.3},
    {"residual": [{"leaky_relu": -0.2}, {"dropout": 0.4}, "gelu", {"elu": 1.5}]},
    {"scale": {"factor": [1, 0.25, 3, 4], "offset": 0.5}},
]


@pytest.mark.parametrize("opset", [9, 17])  # limits as attributes, and as constants
def test_the_settings_of_an_own_file(opset: int, tmp_path: Path, run: Run) -> None:
    spec = MLPSpec(name="m", input={"features": 3}, blocks=BLOCKS)
    path = export(assemble(spec, seed=0), tmp_path / "m.onnx", spec=spec, opset=opset).path
    found = inspect(path)
    assert found.settings == {
        "0": {"mean": (1.0, 2.0, 3.0), "std": 0.5},
        "2": {"negative_slope": 0.01},
        "3": {"min": -5.0, "max": 5.0},
        "5.0": {"negative_slope": -0.2},
        "5.3": {"alpha": 1.5},
        "6": {"factor": (1.0, 0.25, 3.0, 4.0), "offset": 0.5},
    }
    assert found.dropped == {"4": 0.3, "5.1": 0.4}
    text = run("inspect", path).out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "2 leaky_relu 4 0 0 negative_slope 0.01" in lines
    assert "3 clip 4 0 0 min -5, max 5" in lines
    assert "6 scale 4 8 4 factor 0.25 to 4 (4 values), offset 0.5" in lines
    assert "  dropped  dropout '4' with p 0.3, '5.1' with p 0.4, for training alone\n" in text
    record = json.loads(run("inspect", path, "--json").out)
    assert record["settings"]["6"]["factor"] == [1, 0.25, 3, 4]
    assert record["dropped"] == {"4": 0.3, "5.1": 0.4}


class Written(nn.Module):
    """A network without a spec."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(3, 3), nn.Dropout(0.1)
        self.register_buffer("factor", torch.tensor([0.25, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.clamp(nn.functional.leaky_relu(self.drop(self.linear(x)), 0.3), -1, 2)
        return 0.5 + self.get_buffer("factor") * y


def test_the_settings_of_a_hand_written_module(tmp_path: Path) -> None:
    found = inspect(export(Written(), tmp_path / "m.onnx").path)
    assert found.settings == {
        "leaky_relu": {"negative_slope": 0.3},
        "clamp": {"min": -1.0, "max": 2.0},
        "mul": {"factor": (0.25, 1.0, 2.0)},
        "add": {"offset": 0.5},
    }
    assert found.dropped == {}
    (remark,) = (each for each in found.summary.remarks if "dropout" in each)
    assert remark == "dropout 'drop' (p 0.1) is not in the file: in evaluation mode it does nothing"


def test_settings_are_those_of_the_operators_not_of_the_record(tmp_path: Path) -> None:
    spec = MLPSpec(name="m", input={"features": 3}, blocks=[{"linear": 4}, {"leaky_relu": 0.1}])
    path = export(assemble(spec, seed=0), tmp_path / "m.onnx", spec=spec).path
    model = onnx.load(str(path))
    (node,) = (node for node in model.graph.node if node.op_type == "LeakyRelu")
    node.attribute[0].f = 0.11
    onnx.save(model, path)
    assert inspect(path).settings == {"1": {"negative_slope": 0.11}}


def test_the_settings_of_a_foreign_file(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["a"]),  # its slope is the operator's default
        helper.make_node("Clip", ["a", "", "top"], ["b"], name="above"),
        helper.make_node("Mul", ["factor", "b"], ["c"], name="scaled"),
        helper.make_node("Add", ["c", "x"], ["d"], name="sum"),
        helper.make_node("Add", ["d", "wide"], ["y"], name="wide"),
    ]
    constants = {"top": np.float32(6), "factor": np.full(2, 0.1, np.float32), "wide": np.ones((1025, 1), np.float32)}
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "old", ports[:1], ports[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), tmp_path / "old.onnx")
    found = inspect(tmp_path / "old.onnx")
    assert found.settings == {"node 0": {"negative_slope": 0.01}, "above": {"max": 6.0}, "scaled": {"factor": 0.1}}
    assert found.dropped == {}


def test_no_column_where_there_are_no_settings(tmp_path: Path, run: Run) -> None:
    spec = MLPSpec(name="m", input={"features": 3}, blocks=[{"linear": 4}, "relu"])
    text = run("inspect", export(assemble(spec, seed=0), tmp_path / "m.onnx", spec=spec).path).out
    assert "multiply-adds\n" in text
    assert "dropped" not in text


def test_weights_in_another_file_need_not_be_there(tmp_path: Path) -> None:
    spec = MLPSpec(name="m", input={"features": 3}, blocks=["leaky_relu", {"scale": {"factor": [1, 2, 3]}}])
    path = export(assemble(spec, seed=0), tmp_path / "m.onnx", spec=spec, external_data=True).path
    path.with_name("m.onnx.data").unlink()
    assert inspect(path).settings["0"] == {"negative_slope": 0.01}


@pytest.mark.parametrize("key", ["input", "inputs"])
def test_dropouts_of_an_inputs_own_blocks_are_named(key: str, tmp_path: Path) -> None:
    port = {"name": "x", "features": 3, "blocks": [{"dropout": 0.2}, "relu"]}
    spec = MLPSpec(name="m", blocks=[{"linear": 2}, {"dropout": 0.3}], **{key: port if key == "input" else [port]})
    path = export(assemble(spec, seed=0), tmp_path / "m.onnx", spec=spec).path
    assert inspect(path).dropped == {"inputs.0.0": 0.2, "1": 0.3}
