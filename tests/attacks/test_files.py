"""No file of ``files.py`` is proved, and every one of ``right_files.py`` is; nor is one that changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from benchmarks.planted.sites import faulty
from export import ProofError, package, verify
from export.onnxfile.model import RESHAPES
from export.onnxfile.shapes import OF_SIZES
from export.onnxfile.source import external_data
from export.proof.running import Opener, Running, on_device
from export.proof.verify import prove
from runtime import ModelError, sha256
from runtime.server.loaded_model import check_file
from runtime.server.options import Options
from tests.support.commands import Run
from tests.support.onnx_drafts import Draft
from tests.support.outcomes import outcome
from tests.support.repeats import but

from .constants import Bump, bump
from .files import ATTACKS
from .making import F, ints, written
from .right_files import RIGHT


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_that_is_not_the_module_is_not_proved(name: str, tmp_path: Path) -> None:
    module, path = ATTACKS[name](tmp_path)
    report = verify(module.eval(), path, device="cpu")
    assert not report.proved, ATTACKS[name].__doc__
    assert report.why


@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_file_that_is_right_is_proved(name: str, tmp_path: Path) -> None:
    module, path = RIGHT[name](tmp_path)
    report = verify(module.eval(), path, device="cpu")
    assert report.proved, report.why


def layer(folder: Path, factor: float = 1.0, name: str = "m.onnx") -> tuple[nn.Linear, Path]:
    """A layer, and a file of it in which its weights are multiplied."""
    torch.manual_seed(0)
    module, d = nn.Linear(6, 4), Draft()
    weight, bias = (p.detach().numpy() * F(factor) for p in module.parameters())
    path = folder / name
    path.write_bytes(d.model(d("Gemm", "x", weight, bias, transB=1), ("batch", 4)).SerializeToString())
    return module, path


def beside(path: Path) -> Path:
    """The same file with its constants in a Constant node, in a file of their own."""
    model = onnx.load(str(path))
    data = path.with_name("weights.bin")
    content = b""
    for tensor in model.graph.initializer:
        held = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        held.data_location = TensorProto.EXTERNAL
        for key, value in (("location", data.name), ("offset", len(content)), ("length", len(tensor.raw_data))):
            held.external_data.add(key=key, value=str(value))
        content += tensor.raw_data
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=held))
    data.write_bytes(content)
    model.graph.ClearField("initializer")
    path.write_bytes(model.SerializeToString())
    return data


def replaced(path: Path) -> None:
    layer(path.parent, 1.5, "other.onnx")[1].replace(path)


def overwritten(path: Path) -> None:
    path.write_bytes(layer(path.parent, 1.5, "other.onnx")[1].read_bytes())


def replaced_and_put_back(path: Path) -> None:
    kept = path.with_name("kept.onnx")
    kept.hardlink_to(path)
    replaced(path)
    kept.replace(path)


def data_overwritten(path: Path) -> None:
    data = path.with_name("weights.bin")
    data.write_bytes((np.frombuffer(data.read_bytes(), F) * F(1.5)).tobytes())


def data_replaced(path: Path) -> None:
    data, other = path.with_name("weights.bin"), path.with_name("other.bin")
    other.write_bytes((np.frombuffer(data.read_bytes(), F) * F(1.5)).tobytes())
    other.replace(data)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("change", [replaced, overwritten, replaced_and_put_back, removed])
def test_a_file_that_changes_while_it_is_verified_gets_no_verdict(
    change: Callable[[Path], None], at: int, tmp_path: Path
) -> None:
    module, path = layer(tmp_path)
    with pytest.raises(ModelError, match=r"m\.onnx: the file has changed since it was read\. What to do"):
        prove(module, path, device="cpu", opener=interrupted(lambda: change(path), at))


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("change", [data_overwritten, data_replaced])
def test_nor_does_one_whose_external_data_changes(change: Callable[[Path], None], at: int, tmp_path: Path) -> None:
    module, path = layer(tmp_path)
    beside(path)
    with pytest.raises(ModelError, match=r"weights\.bin: the file has changed since it was read"):
        prove(module, path, device="cpu", opener=interrupted(lambda: change(path), at))


def interrupted(change: Callable[[], None], at: int) -> Opener:
    """A runtime before whose opening of a model, the ``at``-th of one proof, the file changes."""
    opened = 0

    def opener(source: Path | bytes) -> Running:
        nonlocal opened
        opened += 1
        if opened == at:
            change()
        return on_device("cpu")(source)

    return opener


def test_a_certificate_lists_the_data_of_constant_nodes(tmp_path: Path, run: Run) -> None:
    """Times 1.5, it is not what was proved: for ``verify --certificate``, ``package`` and ``serve --only-proved``."""
    module, path = layer(tmp_path)
    data = beside(path)
    report = verify(module, path, device="cpu")
    assert report.proved, report.why
    assert report.file.data == {"weights.bin": sha256(data)}
    assert report.file.size == path.stat().st_size + data.stat().st_size
    certificate = tmp_path / "m.parity.json"
    report.write(certificate)
    assert run("verify", path, "--certificate", certificate).code == 0
    package(path, "triton", tmp_path / "before")
    options = Options(tmp_path, device="cpu", only_proved=True)
    assert check_file(path, options).certificate is not None
    data_overwritten(path)
    assert run("verify", path, "--certificate", certificate).code == 1
    with pytest.raises(ProofError, match="it, or its external data, has changed"):
        package(path, "triton", tmp_path / "after")
    with pytest.raises(ModelError, match="has no certificate that proves these bytes"):
        check_file(path, options)


def test_every_byte_of_a_file_is_listed(tmp_path: Path) -> None:
    """Tensors in attributes, in bodies of branches and of functions, and sparse ones."""

    def outside(name: str) -> TensorProto:
        (tmp_path / f"{name}.bin").write_bytes(bytes(8))
        tensor = TensorProto(name=name, data_type=TensorProto.INT64, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    d = Draft()
    d.nodes.append(helper.make_node("ConstantOfShape", [d.constant(ints(2))], ["filled"], value=outside("filling")))
    inner = helper.make_node("Constant", [], ["y"], value=outside("body"))
    result = helper.make_tensor_value_info("y", TensorProto.INT64, [1])
    body = helper.make_graph([inner], "body", [], [result], [outside("branch")])
    always = d.constant(np.array(True))
    d.nodes.append(helper.make_node("If", [always], ["z"], then_branch=body, else_branch=body))
    model = d.model(d("Relu", "x"))
    node = helper.make_node("Constant", [], ["c"], value=outside("function"))
    model.functions.append(helper.make_function("own", "f", [], ["c"], [node], model.opset_import))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(outside("sparse"))
    sparse.indices.CopyFrom(outside("indices"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    names = ["body", "branch", "filling", "function", "indices", "sparse"]
    assert sorted(external_data(path)) == [f"{name}.bin" for name in names]


def test_the_runtime_is_asked_for_the_constants_that_a_file_computes(tmp_path: Path) -> None:
    """One that adds differently where constants meet: the bound of a Clip, which no row that is tried reaches."""
    d = Draft()
    high = d("Add", F(6), F(0.5))
    path = written(d, d("Clip", bump(d, 8), F(0), high), tmp_path)

    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.op_type = "Sub" if node.op_type == "Add" else node.op_type

    module = Bump(8, 0.0, 6.5)
    assert verify(module, path, device="cpu").proved
    report = prove(module, path, device="cpu", opener=faulty(on_device("cpu"), edit))
    assert report.verdict == "failed"
    assert "the runtime gives 5.5, ONNX's reference 6.5" in report.why


@pytest.mark.parametrize("count", but(0, 1, 4))
@pytest.mark.parametrize("kind", sorted({*OF_SIZES, *RESHAPES, "Transpose", "CumSum", "Dropout", "Clip", "TopK"}))
def test_an_operator_with_another_number_of_inputs_is_an_answer(kind: str, count: int, tmp_path: Path) -> None:
    d = Draft()
    given = d.constant(np.ones((1, 6), F)) if count == 1 else "x"
    d.nodes.append(helper.make_node(kind, [given] * count, ["given"]))
    target = d("Concat", "given", ints(-1), axis=0)
    output = d("Relu", d("Reshape", d("Add", "x", "given"), target))
    found = outcome(ModelError, verify, nn.ReLU(), written(d, output, tmp_path), device="cpu")
    assert isinstance(found, ModelError) or not found.proved


class Offset(nn.Module):
    """A sum with a parameter that forward expands to the batch: a node without an input."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.arange(6.0)[None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.row.expand(len(x), -1)], 1)


def test_a_node_without_an_input_that_the_file_lacks_is_an_answer(tmp_path: Path) -> None:
    d = Draft()
    report = verify(Offset(), written(d, d("Concat", "x", "x", axis=1), tmp_path), device="cpu")
    assert not report.proved
    assert "the module has expand at" in report.checks[1].words or "the module has expand at" in report.why
