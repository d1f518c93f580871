"""A file is written in the opset and IR version that were asked for, and proved in them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper, numpy_helper
from torch import nn

from builder import assemble
from export import Artifact, ExportError, export, inspect, publish, verify
from export.versions import needed_ir_version, newest
from mlpx.cli import main
from tests.support.cases import BLOCKS, network, randomised, specs
from tests.support.outcomes import outcome

OPSETS = range(7, newest().opset + 1)
SINCE_9 = {"gelu": "Erf", "softplus with a threshold": "Where", "impute": "IsNaN"}
"""Blocks that opset 7 and 8 cannot express, and the operator that they lack."""
GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


CHANGED = {
    7: [
        *(
            "linear without bias",
            "sigmoid",
            "relu",
            "leaky_relu",
            "elu",
            "tanh",
            "gelu tanh",
            "silu",
            "softplus",
            "clip",
        ),
        *(
            "softmax",
            "hardsigmoid",
            "batch_norm",
            "layer_norm",
            "layer_norm without weights",
            "standardize",
            "residual",
        ),
    ],
    9: ["gelu", "softplus with a threshold", "batch_norm"],
    11: ["linear without bias", "softmax", "clip", "layer_norm without weights"],
    12: ["relu6"],
    13: ["silu", "tanh", "softmax", "clip", "gelu", "layer_norm", "standardize"],
    14: ["relu", "residual", "layer_norm without bias"],
    15: ["batch_norm without weights"],
    16: ["leaky_relu", "softplus with a threshold"],
    17: ["layer_norm", "layer_norm without weights"],
    20: ["gelu", "gelu tanh"],
    22: ["elu", "softplus", "hardsigmoid"],
    newest().opset: ["linear without bias", "clip", "softmax", "batch_norm", "gelu"],
}
"""Opsets in which operators of blocks have a new version, and blocks that hold each of them."""


def blocks(names: Iterable[str]) -> list[Any]:
    """Blocks one after the other, with a linear layer at the end."""
    return [*(BLOCKS[name] for name in names), {"linear": 7}]


def declared(path: Path) -> tuple[int, int]:
    """The opset and the IR version of a file that passes the checker."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.domain for entry in model.opset_import] == [""]
    return model.opset_import[0].version, model.ir_version


@pytest.mark.parametrize("opset", OPSETS)
def test_every_block_can_be_had_in_every_opset(opset: int, tmp_path: Path) -> None:
    spec, module = network(blocks(name for name in BLOCKS if opset >= 9 or name not in SINCE_9))
    artifact = export(module, tmp_path / "m.onnx", spec=spec, opset=opset)
    assert declared(artifact.path) == (opset, max(8, needed_ir_version(opset)))
    summary = inspect(artifact.path).summary
    assert (summary.opset, summary.ir_version) == declared(artifact.path)
    assert summary.target is None


@pytest.mark.parametrize("opset", CHANGED)
def test_blocks_are_proved_in_every_version_of_their_operators(opset: int, device: str, tmp_path: Path) -> None:
    spec, module = network(blocks(CHANGED[opset]))
    report = verify(module, export(module, tmp_path / "m.onnx", spec=spec, opset=opset), spec=spec, device=device)
    assert report.proved, report.why


@settings(GENERATED, max_examples=8)
@given(spec=specs(deepest=4, widest=8), opset=st.sampled_from(OPSETS), data=st.data())
def test_generated_networks_are_proved_as_asked(spec: Any, opset: int, data: st.DataObject, tmp_path: Path) -> None:
    ir_version = data.draw(st.integers(max(4, needed_ir_version(opset)), newest().ir_version))
    module = randomised(assemble(spec), 0)
    artifact = outcome(ExportError, export, module, tmp_path / "m.onnx", spec=spec, opset=opset, ir_version=ir_version)
    if isinstance(artifact, ExportError):
        assert opset < 9
        assert "needs opset 9" in str(artifact)
        return
    assert declared(artifact.path) == (opset, ir_version)
    report = verify(module, artifact, spec=spec, device="cpu")
    assert report.proved, report.why


@pytest.mark.parametrize("opset", [7, newest().opset])
def test_rows_of_more_dimensions_are_proved(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(5), nn.Softmax(-1), nn.Hardtanh(0.1, 0.3), nn.Flatten(), nn.Linear(15, 2))
    options = {"input_shape": (3, 5), "opset": opset, "device": "cpu"}
    _, report = publish(module, tmp_path / "m.onnx", **options)
    assert report is not None
    assert report.proved


def test_the_same_opset_gives_the_same_bytes_and_another_target_only_its_name(tmp_path: Path) -> None:
    spec, module = network(blocks(BLOCKS))

    def digest(**options: Any) -> str:
        path = export(module, tmp_path / "m.onnx", spec=spec, **options).path
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert digest(opset=12) == digest(opset=12) != digest(opset=13)
    assert digest() == digest(opset=17, ir_version=8) == digest(opset=17) == digest(ir_version=8)
    aimed = onnx.load(export(module, tmp_path / "m.onnx", spec=spec, target="triton:23.10").path)
    usual = onnx.load(export(module, tmp_path / "m.onnx", spec=spec).path)
    (entry,) = [entry for entry in aimed.metadata_props if entry.key == "mlpx.target"]
    assert entry.value == "triton:23.10"
    aimed.metadata_props.remove(entry)
    assert aimed == usual


@pytest.mark.parametrize("name", SINCE_9)
def test_a_block_that_the_opset_lacks_is_named_with_the_opset_it_needs(name: str, tmp_path: Path) -> None:
    spec, module = network([{"linear": 3}, BLOCKS[name]])
    with pytest.raises(ExportError) as raised:
        export(module, tmp_path / "m.onnx", spec=spec, opset=8)
    words = str(raised.value)
    operator = {"impute": "isnan at '1/isnan'"}.get(name, f"{name.split()[0]} at '1'")
    assert f"{operator} needs opset 9, for its {SINCE_9[name]}" in words
    assert "opset 8" in words
    assert "--opset 9" in words
    assert not list(tmp_path.iterdir())


def test_an_integer_of_another_library_is_a_version(tmp_path: Path) -> None:
    artifact = export(nn.Linear(2, 2), tmp_path / "m.onnx", opset=np.int64(13), ir_version=np.int8(7))  # type: ignore[arg-type]
    assert declared(artifact.path) == (13, 7)


def rewritten(artifact: Artifact, change: Any) -> Path:
    """The file with its graph changed."""
    model = onnx.load(artifact.path)
    change(model.graph)
    path = artifact.path.with_name("changed.onnx")
    onnx.save(model, path)
    return path


def attribute(node: NodeProto, name: str) -> onnx.AttributeProto:
    return next(entry for entry in node.attribute if entry.name == name)


def _another_bound(graph: onnx.GraphProto) -> None:
    attribute(next(node for node in graph.node if node.op_type == "Clip"), "max").f = 0.8


def _no_bound(graph: onnx.GraphProto) -> None:
    clip = next(node for node in graph.node if node.op_type == "Clip")
    clip.attribute.remove(attribute(clip, "min"))


def _another_axis(graph: onnx.GraphProto) -> None:
    attribute(next(node for node in graph.node if node.op_type == "Softmax"), "axis").i = 1


def _another_mean(graph: onnx.GraphProto) -> None:
    attribute(next(node for node in graph.node if node.op_type == "ReduceMean"), "axes").ints[:] = [1]


def _another_eps(graph: onnx.GraphProto) -> None:
    eps = next(tensor for tensor in graph.initializer if tensor.name.endswith(".eps"))
    eps.CopyFrom(numpy_helper.from_array(np.array(1e-4, np.float32), eps.name))


def _a_bias(graph: onnx.GraphProto) -> None:
    bias = next(tensor for tensor in graph.initializer if tensor.name == "4.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(2, 1e-6, np.float32), bias.name))


WRONG = {
    "clip, another bound": _another_bound,
    "clip, no bound": _no_bound,
    "softmax over all": _another_axis,
    "layer_norm, another axis": _another_mean,
    "layer_norm, another eps": _another_eps,
    "linear, a bias": _a_bias,
}


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Artifact]:
    """A network whose every block has another spelling in opset 10 than in 17."""
    torch.manual_seed(0)
    layers = [nn.LayerNorm(5), nn.Softmax(-1), nn.Hardtanh(0.1, 0.3), nn.Flatten(), nn.Linear(15, 2, bias=False)]
    module = nn.Sequential(*layers)
    return module, export(module, tmp_path_factory.mktemp("older") / "m.onnx", input_shape=(3, 5), opset=10)


@pytest.mark.parametrize("name", ["nothing", *WRONG])
def test_an_older_spelling_that_means_something_else_is_not_proved(
    name: str, older: tuple[nn.Module, Artifact]
) -> None:
    module, artifact = older
    report = verify(module, rewritten(artifact, WRONG.get(name, lambda _: None)), device="cpu")
    assert report.proved == (name == "nothing"), report.why


def test_a_spelling_of_another_opset_is_seen_before_anything_runs(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU6())
    artifact = export(module, tmp_path / "m.onnx", opset=13)

    def without_bounds(graph: onnx.GraphProto) -> None:
        clip = next(node for node in graph.node if node.op_type == "Clip")
        del clip.input[1:]

    report = verify(module, rewritten(artifact, without_bounds), device="cpu")
    outcomes = {check.name: check.outcome for check in report.checks}
    assert not report.proved, report.why
    assert outcomes["constants"] == "failed", report.why


def test_the_spelling_of_layer_norm_that_pytorch_wrote_is_proved(older: tuple[nn.Module, Artifact]) -> None:
    module, artifact = older

    def squared_by_pow(graph: onnx.GraphProto) -> None:
        square = next(node for node in graph.node if node.op_type == "Mul" and node.input[0] == node.input[1])
        graph.initializer.append(numpy_helper.from_array(np.array(2, np.float32), "two"))
        square.CopyFrom(helper.make_node("Pow", [square.input[0], "two"], list(square.output), name=square.name))

    report = verify(module, rewritten(artifact, squared_by_pow), device="cpu")
    assert report.proved, report.why


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command in this process: its exit code, and what it printed."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlpx", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_commands_write_for_a_server_and_say_so(command: Command, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("name: small\ninput: {features: 4}\nblocks: [{linear: 3}, gelu, layer_norm]\n")
    build = ["build", tmp_path / "spec.yaml", "--seed", "0", "-o", tmp_path, "--no-html"]
    code, out, _ = command(*build, "--for", "onnxruntime:1.6.0")
    assert code == 0
    assert "opset 13, IR 7, for onnxruntime:1.6.0)" in out
    assert declared(tmp_path / "small.onnx") == (13, 7)
    assert inspect(tmp_path / "small.onnx").summary.target == "onnxruntime:1.6.0"
    assert "13, IR 7, for onnxruntime:1.6.0" in command("inspect", tmp_path / "small.onnx")[1]
    assert "opset 9, IR 4)" in command(*build, "--opset", "9", "--ir-version", "4")[1]
    code, _, said = command(*build, "--for", "triton:23.10", "--opset", "20")
    assert code == 2
    assert "triton:23.10 is known to take opset 19 at most" in said
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(3, 2, bias=False)\n")
    export_it = ["export", f"{tmp_path / 'net.py'}:make", "-o", tmp_path / "net.onnx", "--no-html", "--seed", "0"]
    assert command(*export_it, "--opset", "10")[0] == 0
    assert declared(tmp_path / "net.onnx") == (10, 8)
