"""Where a function is flat or its values are few, an error that comes in grows no further than its values are apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.bound_search import Search
from export import export
from export.bounds.bounding import Bounding
from export.bounds.boxes import box_of
from export.bounds.enclosing import Network
from export.bounds.report import BoundReport
from export.bounds.searching import eager
from export.onnxfile.reading import read_model
from export.proof.structure import match
from export.trace import signature_of, trace

FUNCTIONS = {
    "tanh": (nn.Tanh(), 2.0),
    "sigmoid": (nn.Sigmoid(), 1.0),
    "hardtanh": (nn.Hardtanh(-0.5, 0.25), 0.75),
    "softmax": (nn.Softmax(dim=1), 1.0),
    "softplus": (nn.Sequential(nn.Softplus(), nn.Hardtanh(0, 3)), 3.0),
}


def steep(end: nn.Module, folder: Path) -> tuple[BoundReport, Search]:
    """Layers that make errors far larger than 1, a function, and a sum of its values; with a search for bad rows."""
    torch.manual_seed(0)
    hidden = [part for _ in range(5) for part in (nn.Linear(8, 8, bias=False), nn.LeakyReLU(0.5))]
    module = nn.Sequential(*hidden, end, nn.Linear(8, 1, bias=False)).eval()
    with torch.no_grad():
        for part in module:
            if isinstance(part, nn.Linear):
                part.weight.mul_(100) if part.out_features == 8 else part.weight.fill_(1.0)
    export(module, folder / "m.onnx", input_shape=(8,))
    structure = match(trace(module, signature_of(module, input_shape=(8,))), read_model(folder / "m.onnx"))
    box = box_of(structure.wiring.inputs, (), (-1.0, 1.0))
    report = Bounding(structure, box, "m.onnx", "", seconds=0.1).report()
    assert report.why is None
    network = Network.of(structure)
    found = Search(network, box, np.array([report.largest]), {"PyTorch": eager(network)}, np.random.default_rng(0))
    return report, found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_off_by_no_more_than_its_values_are_apart(name: str, tmp_path: Path) -> None:
    function, apart = FUNCTIONS[name]
    report, search = steep(function, tmp_path)
    assert report.largest <= 8 * apart * (1 + 1e-4)
    found = search.run()
    assert all(float(errors.max()) <= report.largest for errors in found.errors.values())
    before, _ = steep(nn.Identity(), tmp_path)
    assert before.largest > 10 * 8 * apart


def test_a_norm_that_may_cancel_says_so(tmp_path: Path) -> None:
    module = nn.Sequential(nn.LayerNorm(4, eps=1e-12))
    export(module, tmp_path / "m.onnx", input_shape=(4,))
    structure = match(trace(module, signature_of(module, input_shape=(4,))), read_model(tmp_path / "m.onnx"))
    report = Bounding(structure, box_of(structure.wiring.inputs, (), (1.0, 2.0)), "m.onnx", "").report()
    assert report.outputs == {}
    assert report.why is not None
    assert "layer_norm has no bound, since the variance of a row may be lost in rounding," in report.why
