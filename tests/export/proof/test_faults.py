"""A planted fault of every kind is caught, in the file and in what the runtime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from benchmarks.modules import of_family
from benchmarks.planted import FAULTS, OF_OPERATORS, RUNTIME_ONLY, faulty, plan, planted
from export import export
from export.onnxfile.model import Model
from export.onnxfile.reading import read_model
from export.proof.running import Opener, Running, on_device
from export.proof.structure import Structure, match
from export.proof.verify import prove
from export.trace import signature_of, trace
from tests.support.cases import network

EVERY_PLACE = [
    "standardize",
    {"linear": 16},
    "batch_norm",
    "leaky_relu",
    {"linear": 16},
    "hardsigmoid",
    {"dropout": 0.2},
]
EVERY_PLACE += [{"linear": 16}, "gelu", {"linear": 16}, "relu", {"linear": 5}]
"""A network with a place for every fault of the building blocks."""


Victim = tuple[nn.Module, Any, Model, Structure]
"""A module, the example it is called with, its file, and what the file's operators are of it."""


def outcome(report: object, name: str) -> str:
    return next(check.outcome for check in report.checks if check.name == name)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Victim]:
    """One of building blocks, one of every operator."""
    made = {"blocks": (network(EVERY_PLACE)[1], torch.randn(4, 7)), "operators": of_family("every operator", 0)}
    found = {}
    for name, (module, example) in made.items():
        model = read_model(export(module, tmp_path_factory.mktemp(name) / "m.onnx", example=example).path)
        graph = trace(module, signature_of(module, example=example))
        found[name] = module, example, model, match(graph, model)
    return found


@pytest.fixture(scope="module")
def victim(victims: dict[str, Victim]) -> Victim:
    return victims["blocks"]


def with_a_place(victims: dict[str, Victim], fault: str) -> Victim:
    return victims["operators" if fault in OF_OPERATORS else "blocks"]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in RUNTIME_ONLY])
def test_a_fault_in_the_file_is_caught(fault: str, victims: dict[str, Victim], device: str, tmp_path: Path) -> None:
    module, example, model, structure = with_a_place(victims, fault)
    edit = plan(fault, model, structure, 0)
    assert edit is not None, "the victim has a place for every fault"
    planted(model, edit, tmp_path / "m.onnx")
    report = prove(module, tmp_path / "m.onnx", device=device, example=example)
    assert not report.proved
    assert report.why != "every check passed"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_runtime_is_caught_by_what_it_computes(
    fault: str, victims: dict[str, Victim], device: str
) -> None:
    module, example, model, structure = with_a_place(victims, fault)
    edit = plan(fault, model, structure, 0)
    assert edit is not None
    report = prove(module, model.path, device=device, opener=faulty(on_device(device), edit), example=example)
    assert not report.proved
    assert outcome(report, "structure") == outcome(report, "constants") == "passed"


def test_a_failure_names_the_first_layer_that_diverges(victim: Victim) -> None:
    module, _, model, structure = victim
    edit = plan("slope 0.010001", model, structure, 0)
    assert edit is not None
    report = prove(module, model.path, device="cpu", opener=faulty(on_device("cpu"), edit))
    e = report.failure
    assert e is not None
    assert e.layer == "3"
    assert e.ratio > 1
    assert e.features == 7
    assert len(e.x) == 7
    assert abs(e.file - e.exact) > e.bound >= abs(e.eager - e.exact)
    said = next(check.words for check in report.checks if check.name == "layer bounds")
    for part in (
        "'3'",
        f"row {e.row} of '{e.inputs}'",
        f"{e.file:.9g}",
        f"{e.eager:.9g}",
        f"{e.exact:.9g}",
        f"{e.bound:.3g}",
    ):
        assert part in said
    x = torch.tensor([e.x])
    before = module[:3](x) if isinstance(module, nn.Sequential) else x
    torch.testing.assert_close(float(nn.functional.leaky_relu(before)[0, e.index].detach()), e.eager)


def fused(outputs: int, factor: float) -> Opener:
    """A runtime that multiplies what an Elu gives, unless more than ``outputs`` values are asked for."""
    plain = on_device("cpu")

    def opener(source: Path | bytes) -> Running:
        model = onnx.load(str(source)) if isinstance(source, Path) else onnx.load_from_string(source)
        nodes = model.graph.node
        if len(nodes) > 1 and len(model.graph.output) <= outputs:
            elu = next(node for node in nodes if node.op_type == "Elu")
            own = elu.output[0]
            elu.output[0] = "fused"
            at = list(nodes).index(elu) + 1
            nodes.insert(at, onnx.helper.make_node("Mul", ["fused", "factor"], [own]))
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([factor], np.float32), "factor"))
        return plain(model.SerializeToString())

    return opener


@pytest.mark.parametrize(
    ("outputs", "factor", "verdict", "part"),
    [
        (2, 1 + 2.0**-23, "proved", "the runtime fuses layers, so every linear layer with its activation was compared"),
        (2, 1 + 2.0**-6, "failed", "'1', row "),
        (1, 1 + 2.0**-23, "not proved", "what it computes without them cannot be seen"),
    ],
)
def test_a_runtime_that_fuses_is_held_against_the_bound_of_what_it_fused(
    outputs: int, factor: float, verdict: str, part: str, tmp_path: Path
) -> None:
    spec, module = network([{"linear": 16}, "elu", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    report = prove(module, path, device="cpu", opener=fused(outputs, factor))
    assert report.verdict == verdict
    assert any(part in check.words for check in report.checks)
