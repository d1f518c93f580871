"""Small ONNX files for tests, written by hand, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from builder import assemble
from export import Recovered, verify


class Draft:
    """A graph under construction: ``draft("Add", value, array)`` adds an operator and gives its output's name."""

    def __init__(self, opset: int = 17, dims: tuple[int | str | None, ...] = ("batch", 6)):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        self.initializers.append(numpy_helper.from_array(array, f"c{len(self.initializers)}"))
        return self.initializers[-1].name

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def axes(self, kind: str, value: str, axes: list[int], since: int, **attributes: Any) -> str:
        """An operator whose axes are an attribute before opset ``since``, and an input from it on."""
        if self.opset < since:
            return self(kind, value, axes=axes, **attributes)
        return self(kind, value, np.asarray(axes, np.int64), **attributes)

    def clip(self, value: str, low: float, high: float) -> str:
        if self.opset < 11:
            return self("Clip", value, min=float(low), max=float(high))
        return self("Clip", value, np.float32(low), np.float32(high))

    def model(self, output: str, dims: tuple[int | str | None, ...] | None = None) -> onnx.ModelProto:
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, dims)
        graph = helper.make_graph(self.nodes, "draft", [self.input], [result], self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=4 if self.opset < 10 else 10)

    def save(self, path: Path, output: str) -> Path:
        path.write_bytes(self.model(output).SerializeToString())
        return path


def layer(folder: Path, weight: np.ndarray, bias: np.ndarray) -> Path:
    """A file of one linear layer, written by hand."""
    draft = Draft(dims=("batch", len(weight)))
    output = draft("Gemm", "x", weight, bias)
    path = folder / "layer.onnx"
    path.write_bytes(draft.model(output, ("batch", weight.shape[1])).SerializeToString())
    return path


def fixed_batch(folder: Path, rows: int) -> Path:
    """A proved file of another tool that takes exactly so many rows."""
    module, path = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), folder / "fixed.onnx"
    draft, value = Draft(17, (rows, 5)), "x"
    for layer in module:
        given = [p.detach().numpy() for p in layer.parameters()]
        value = draft("Gemm", value, *given, transB=1) if given else draft("Relu", value)
    path.write_bytes(draft.model(value, (rows, 2)).SerializeToString())
    report = verify(module, path, device="cpu")
    assert report.proved, report.why
    report.write(folder / "fixed.parity.json")
    return path


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime gives for the file."""
    import onnxruntime  # which starts a thread, and a process that imports this may fork

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def compute(recovered: Recovered, rows: np.ndarray) -> np.ndarray:
    """What the recovered network gives, in float64."""
    module = assemble(recovered.spec).eval()
    module.load_state_dict(recovered.weights)
    with torch.no_grad():
        return module.double()(torch.from_numpy(rows).double()).numpy()


def kinds(recovered: Recovered) -> list[str]:
    """The names of the blocks."""
    return [block.kind for block in recovered.spec.blocks]


def inputs(dims: tuple[int, ...], seed: int) -> np.ndarray:
    """What ``agree`` runs the file with."""
    return np.random.default_rng(seed).normal(size=dims).astype(np.float32) * 2


def agree(path: Path, recovered: Recovered, dims: tuple[int, ...] = (5, 6), seed: int = 0) -> None:
    """The file and the recovered network give the same for seeded inputs, up to float32 rounding."""
    x = inputs(dims, seed)
    rows = x.reshape(-1, *recovered.spec.input.row_shape)
    expected = run(path, x).reshape(len(rows), -1)
    np.testing.assert_allclose(
        compute(recovered, rows), expected, rtol=2e-5, atol=1e-6 * max(2, np.abs(expected).max())
    )
