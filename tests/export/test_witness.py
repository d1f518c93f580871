"""``torch.onnx.export(dynamo=True)`` as the independent witness: same operators, attributes and initialiser bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import export
from tests.support.by_torch import by_torch

BLOCKS: dict[str, nn.Module] = {
    "linear": nn.Linear(5, 4),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.3),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "elu": nn.ELU(0.7),
    "softmax": nn.Softmax(dim=-1),
    "layer_norm": nn.LayerNorm(4),
}


def described(model: onnx.ModelProto) -> list[tuple]:
    """Each node as its operator, its attributes and the bits of its initialisers."""
    bits = {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        defaults = {"Gemm": {"transA": 0, "transB": 0}, "LayerNormalization": {"axis": -1, "stash_type": 1}}
        attributes = {**defaults.get(node.op_type, {}), **attributes}
        nodes.append((node.op_type, attributes, [bits[name] for name in node.input if name in bits]))
    return nodes


@pytest.mark.parametrize("name", BLOCKS)
def test_the_witness_agrees(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    block = BLOCKS[name]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.from_numpy(np.random.default_rng(0).standard_normal(parameter.shape)))
    module = nn.Sequential(nn.Linear(5, 4), block if name != "linear" else nn.Linear(4, 4)).eval()
    artifact = export(module, tmp_path / "m.onnx")
    assert described(onnx.load(str(artifact.path))) == described(by_torch(module))
