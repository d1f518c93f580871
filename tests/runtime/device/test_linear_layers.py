"""Which linear layers of a file are run alone, however the file spells them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.device.linear_layers import Graph
from runtime.device.probes import probe
from runtime.device.running import on_device
from runtime.errors import ModelError
from runtime.model.onnx_messages import external_names, parse_model

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(6, 4)).astype("f4"), RNG.normal(size=4).astype("f4")
Node = onnx.NodeProto


def constant(name: str, values: np.ndarray) -> Node:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> Node:
    return helper.make_node(kind, list(inputs), [output], **attributes)


def saved(folder: Path, nodes: Sequence[Node], constants: dict[str, np.ndarray], **options: Any) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(folder / "m.onnx"), **options)
    return folder / "m.onnx"


def graph_of(path: Path) -> Graph:
    return Graph(parse_model(path.read_bytes(), path), path.parent)


SPELLINGS: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "Gemm": ([node("Gemm", "x", "w", "b", transB=1)], {"w": WEIGHT.T.copy(), "b": BIAS}),
    "Gemm without bias": ([node("Gemm", "x", "w")], {"w": WEIGHT}),
    "Gemm with factors": ([node("Gemm", "x", "w", "b", alpha=0.5, beta=-2.0)], {"w": WEIGHT, "b": BIAS}),
    "Gemm with one bias for all": ([node("Gemm", "x", "w", "b")], {"w": WEIGHT, "b": BIAS[:1]}),
    "MatMul": ([node("MatMul", "x", "w")], {"w": WEIGHT}),
    "MatMul and Add": (
        [node("MatMul", "x", "w", output="p"), node("Add", "b", "p")],
        {"w": WEIGHT, "b": BIAS},
    ),
    "MatMul and Sub": (
        [node("MatMul", "x", "w", output="p"), node("Sub", "p", "b")],
        {"w": WEIGHT, "b": BIAS[None]},
    ),
    "a bias less the product": (
        [node("MatMul", "x", "w", output="p"), node("Sub", "b", "p")],
        {"w": WEIGHT, "b": BIAS},
    ),
    "Constant nodes": ([constant("w", WEIGHT), constant("b", BIAS), node("Gemm", "x", "w", "b")], {}),
    "Transpose and Identity": (
        [node("Transpose", "w", output="v", perm=[1, 0]), node("Identity", "v", output="u"), node("Gemm", "x", "u")],
        {"w": WEIGHT.T.copy()},
    ),
    "denormal and endless weights": (
        [node("Gemm", "x", "w", "b")],
        {"w": np.where(WEIGHT > 1, np.inf, WEIGHT * 1e-38).astype("f4"), "b": BIAS},
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_run_alone_and_right(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, *SPELLINGS[name])
    graph = graph_of(path)
    (layer,) = graph.linear_layers()
    assert graph.left_out == []
    if "endless" not in name:
        np.testing.assert_array_equal(layer.weight, WEIGHT)
    assert (layer.following is not None) == (name in ("MatMul and Add", "MatMul and Sub"))
    probed = probe(layer, graph.model, on_device(path, "cpu"), 24, None)
    assert probed.wrong == 0
    assert probed.elements > 1000
    assert bool(probed.skipped) == ("endless" in name)


LEFT_OUT: dict[str, tuple[list[Node], dict[str, np.ndarray], str]] = {
    "computed weights": (
        [node("Add", "w", "w", output="v"), node("Gemm", "x", "v")],
        {"w": WEIGHT},
        "its weights are computed in the file",
    ),
    "a factor": ([node("Gemm", "x", "w", alpha=0.3)], {"w": WEIGHT}, "not a power of two"),
    "the weights first": ([node("MatMul", "w", "x")], {"w": WEIGHT}, "its first factor is a constant"),
    "more dimensions": ([node("MatMul", "x", "w")], {"w": WEIGHT[None]}, "have the shape [1, 6, 4]"),
    "a transposed input": ([node("Gemm", "x", "w", transA=1)], {"w": WEIGHT}, "it transposes its input"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_cannot_be_run_alone_is_said_with_the_reason(name: str, tmp_path: Path) -> None:
    nodes, constants, reason = LEFT_OUT[name]
    graph = graph_of(saved(tmp_path, nodes, constants))
    assert list(graph.linear_layers()) == []
    (words,) = graph.left_out
    assert words.startswith("'y': ")
    assert reason in words


def test_a_product_of_two_values_is_no_linear_layer(tmp_path: Path) -> None:
    nodes = [node("Identity", "x", output="z"), node("MatMul", "x", "z")]
    graph = graph_of(saved(tmp_path, nodes, {}))
    assert list(graph.linear_layers()) == graph.left_out == []


def test_external_data_is_read_and_every_file_of_it_named(tmp_path: Path) -> None:
    nodes = [constant("b", BIAS), node("Gemm", "x", "w", "b")]
    options = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 0}
    path = saved(tmp_path, nodes, {"w": WEIGHT}, convert_attribute=True, **options)
    graph = graph_of(path)
    assert external_names(graph.model) == {"w", "b"}
    (layer,) = graph.linear_layers()
    np.testing.assert_array_equal(layer.weight, WEIGHT)
    np.testing.assert_array_equal(layer.bias, BIAS)
    (tmp_path / "w").write_bytes(b"short")
    with pytest.raises(ModelError, match="the constant 'w' is damaged"):
        list(graph_of(path).linear_layers())


def test_external_data_of_a_nested_graph_and_of_a_sparse_constant_is_named() -> None:
    def external(name: str) -> TensorProto:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    inner = onnx.GraphProto(name="inner", initializer=[external("deep")])
    nested = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=onnx.GraphProto(name="other"))
    sparse = onnx.SparseTensorProto(values=external("few"))
    graph = onnx.GraphProto(name="g", node=[nested], sparse_initializer=[sparse])
    function = onnx.FunctionProto(name="f", node=[helper.make_node("Constant", [], ["k"], value=external("called"))])
    model = onnx.ModelProto(graph=graph, functions=[function])
    assert external_names(parse_model(model.SerializeToString(), "m")) == {"deep.bin", "few.bin", "called.bin"}


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: not a whole ONNX file \(3 bytes\)"):
        parse_model(b"\xff\xff\xff", "m.onnx")
