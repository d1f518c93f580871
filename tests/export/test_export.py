"""What an exported file is, and that the caller's module is left as it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from builder import assemble, load_spec
from export import Artifact, ExportError, export, inspect, publish
from runtime import OutputError, Session, read_header
from tests.support.cases import BLOCKS, network, normal
from tests.support.hand_written import Written

ALL_BLOCKS = [{"linear": 7}, *(block for name, block in BLOCKS.items() if "linear" not in name), {"linear": 2}]


def graph_of(artifact: Artifact) -> onnx.GraphProto:
    return onnx.load(str(artifact.path)).graph


def test_the_file_is_named_after_the_module(tmp_path: Path) -> None:
    spec, module = network(
        ["standardize", {"linear": 5}, "relu", {"residual": [{"linear": 5}]}, {"linear": 2}],
        output={"name": "logits"},
    )
    artifact = export(module, tmp_path / "m.onnx", spec=spec)
    model = onnx.load(str(artifact.path))
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert [node.name for node in model.graph.node] == ["0/Sub", "0/Div", "1", "2", "3.0", "3.add", "4"]
    assert [t.name for t in model.graph.initializer] == [
        *("0.mean", "0.std", "1.weight", "1.bias", "3.0.weight", "3.0.bias", "4.weight", "4.bias")
    ]
    state = module.state_dict()
    for tensor in model.graph.initializer:
        assert onnx.numpy_helper.to_array(tensor).tobytes() == state[tensor.name].numpy().tobytes()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("input", "logits")
    assert list(tmp_path.iterdir()) == [artifact.path]
    assert artifact.size == artifact.path.stat().st_size
    assert not artifact.proved


def test_the_checker_accepts_every_block(tmp_path: Path) -> None:
    spec, module = network(ALL_BLOCKS)
    artifact = export(module, tmp_path / "m.onnx", spec=spec)
    onnx.checker.check_model(str(artifact.path), full_check=True)


SCRIPT = """
import sys
from builder import assemble, load_spec
from export import export
spec = load_spec(sys.argv[1])
export(assemble(spec, seed=3), sys.argv[2], spec=spec, fold_affine=len(sys.argv) > 3)
"""


@pytest.mark.parametrize("fold", [[], ["fold"]])
def test_the_same_bytes_from_any_folder_process_and_hash_seed(fold: list[str], tmp_path: Path, root: Path) -> None:
    spec, _ = network(ALL_BLOCKS)
    written = tmp_path / "spec.json"
    written.write_text(json.dumps(spec.model_dump(exclude_none=True)))
    contents = set()
    for seed, threads in (("1", "1"), ("2", "2")):
        folder = tmp_path / f"folder{seed}"
        folder.mkdir()
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "OMP_NUM_THREADS": threads, "PATH": ""}
        command = [sys.executable, "-c", SCRIPT, str(written), str(folder / "m.onnx"), *fold]
        subprocess.run(command, check=True, cwd=folder, env=environment)
        contents.add((folder / "m.onnx").read_bytes())
    assert len(contents) == 1
    content = contents.pop()
    assert str(root).encode() not in content
    assert torch.__version__.encode() not in content


def test_the_metadata_says_what_the_file_is(tmp_path: Path, root: Path) -> None:
    spec = load_spec(root / "models" / "digits" / "spec.yaml")
    artifact = export(assemble(spec), tmp_path / "m.onnx", spec=spec)
    metadata = read_header(artifact.path).metadata
    assert json.loads(metadata["mlpx.spec"]) == spec.model_dump(exclude_none=True)
    assert metadata["mlpx.format"] == "1"
    assert metadata["mlpx.opset"] == "17"
    assert metadata["mlpx.ir_version"] == "8"
    assert len(metadata["mlpx.weights_sha256"]) == 64
    assert metadata["mlpx.multiply_adds"] == str(64 + 64 * 128 + 128 * 64 + 64 * 10)
    assert inspect(artifact.path).summary == artifact.summary


def test_the_weights_hash_is_what_it_says(tmp_path: Path) -> None:
    """SHA-256 over name, dtype, shape and bytes of each tensor of the state dict, in the order of the names."""
    _, module = network([{"linear": 3}, "batch_norm", "standardize"])
    digest = hashlib.sha256()
    for name, values in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{values.dtype}\0{list(values.shape)}\0".encode() + values.numpy().tobytes())
    summary = export(module, tmp_path / "m.onnx").summary
    assert summary is not None
    assert summary.weights_sha256 == digest.hexdigest()


def test_the_weights_hash_changes_with_any_weight(tmp_path: Path) -> None:
    _, module = network([{"linear": 3}])
    hashes = set()
    for _ in range(2):
        summary = export(module, tmp_path / "m.onnx").summary
        assert summary is not None
        hashes.add(summary.weights_sha256)
        with torch.no_grad():
            module.get_parameter("0.bias")[1] = torch.nextafter(module.get_parameter("0.bias")[1], torch.tensor(9.0))
    assert len(hashes) == 2


def test_a_folded_weight_that_is_tied_keeps_both_values(tmp_path: Path) -> None:
    first, last = nn.Linear(4, 4), nn.Linear(4, 4)
    last.weight = first.weight
    norm = nn.BatchNorm1d(4).eval()
    nn.init.constant_(norm.weight, 3)
    module = nn.Sequential(first, norm, nn.ReLU(), last).eval()
    artifact = export(module, tmp_path / "m.onnx")
    x = normal(5, 4)
    with Session(artifact.path, "cpu") as session, torch.inference_mode():
        assert np.abs(session.predict(x) - module(torch.from_numpy(x)).numpy()).max() < 1e-5


def test_a_weight_that_is_not_contiguous_is_stored_once_where_it_is_tied(tmp_path: Path) -> None:
    first, last = nn.Linear(5, 5), nn.Linear(5, 5)
    first.weight = nn.Parameter(first.weight.detach().T)
    last.weight = first.weight
    artifact = export(nn.Sequential(first, nn.ReLU(), last), tmp_path / "m.onnx")
    assert [t.name for t in graph_of(artifact).initializer] == ["0.weight", "0.bias", "2.bias"]


def test_batch_norm_goes_into_its_linear(tmp_path: Path) -> None:
    spec, module = network([{"linear": 5}, {"dropout": 0.3}, "batch_norm", "relu"])
    artifact = export(module, tmp_path / "m.onnx", spec=spec)
    assert [node.op_type for node in graph_of(artifact).node] == ["Gemm", "Relu"]
    assert "batch_norm '2' folded into linear '0'" in artifact.summary.folded[0]
    assert any("dropout '1' is not in the file" in remark for remark in artifact.summary.remarks)


def test_batch_norm_stays_where_its_linear_is_read_twice(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            return self.norm(y) + y

    operators = [node.op_type for node in graph_of(export(Twice(), tmp_path / "m.onnx")).node]
    assert operators == ["Gemm", "BatchNormalization", "Add"]


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    artifact = export(nn.Sequential(first, nn.ReLU(), second), tmp_path / "m.onnx")
    assert [t.name for t in graph_of(artifact).initializer] == ["0.weight", "0.bias", "2.bias"]


def test_external_data_on_request(tmp_path: Path) -> None:
    spec, module = network([{"linear": 300}, "relu", {"linear": 3}])
    inside = export(module, tmp_path / "inside.onnx", spec=spec)
    outside = export(module, tmp_path / "outside.onnx", spec=spec, external_data=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside.onnx", "outside.onnx", "outside.onnx.data"]
    assert outside.path.stat().st_size < 4000
    assert outside.size == inspect(outside.path).size
    again = export(module, outside.path, spec=spec)  # the data file of before stays, and does not count
    assert inspect(again.path).size == again.path.stat().st_size
    with pytest.raises(
        ExportError, match=r"outside\.onnx\.data exists, and the outside\.onnx beside it does not use it"
    ):
        export(module, outside.path, spec=spec, external_data=True)
    Path(f"{outside.path}.data").unlink()
    for _ in range(2):  # the second time its own data is replaced
        export(module, outside.path, spec=spec, external_data=True)
    x = normal(5, 7)
    with Session(inside.path, "cpu") as one, Session(outside.path, "cpu") as other:
        assert one.predict(x).tobytes() == other.predict(x).tobytes()


@pytest.mark.parametrize("make", [export, publish])
def test_a_data_file_of_another_program_is_not_overwritten(make: Callable[..., object], tmp_path: Path) -> None:
    spec, module = network([{"linear": 3}])
    data = tmp_path / "m.onnx.data"
    data.write_bytes(b"measurements")
    for beside in (None, b"no model"):
        if beside is not None:
            (tmp_path / "m.onnx").write_bytes(beside)
        with pytest.raises(ExportError, match=r"m\.onnx\.data exists.*What to do: move it away"):
            make(module, tmp_path / "m.onnx", spec=spec, external_data=True)
    assert data.read_bytes() == b"measurements"
    make(module, tmp_path / "m.onnx", spec=spec)  # without external data it is nobody's concern
    assert data.read_bytes() == b"measurements"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_exported_only_when_asked(dtype: torch.dtype, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).to(dtype)
    with pytest.raises(ExportError, match=rf"'0.weight' is {dtype} and the file computes in float32.*--dtype float32"):
        export(module, tmp_path / "m.onnx")
    assert not any(tmp_path.iterdir())
    artifact = export(module, tmp_path / "m.onnx", dtype="float32")
    assert module[0].weight.dtype == dtype
    with Session(artifact.path, "cpu") as session:
        x = normal(3, 4)
        expected = module.float().eval()(torch.from_numpy(x)).detach().numpy()
        assert np.abs(session.predict(x) - expected).max() < 1e-5


def test_values_that_float32_cannot_hold_are_refused(tmp_path: Path) -> None:
    module = nn.Linear(2, 2).double()
    with torch.no_grad():
        module.bias[0] = 1e300
    with pytest.raises(ExportError, match="'bias' has values that float32 cannot hold"):
        export(module, tmp_path / "m.onnx", dtype="float32")


@pytest.mark.parametrize("name", ["model.onx", "model"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"ends in \.onnx"):
        export(nn.Linear(3, 3), tmp_path / name)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        OutputError,
        match=r"file/m.onnx: cannot be written: a file stands where its folder should be; nothing was changed",
    ):
        export(nn.Linear(3, 3), tmp_path / "file" / "m.onnx")


FULL = """
import resource, signal, sys
from torch import nn
from export import export
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
export(nn.Linear(200, 200), sys.argv[1])
"""


def test_a_disk_that_is_full_leaves_the_old_file_whole(tmp_path: Path, root: Path) -> None:
    """A file size limit in a process of its own stands for the full disk: the write fails half way."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the old file")
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], env=environment, capture_output=True, text=True)
    assert "OutputError" in done.stderr
    assert "cannot be written: File too large; nothing was changed" in done.stderr
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_wrong_with_a_call_is_said_before_any_work(tmp_path: Path) -> None:
    layer = nn.Linear(4, 2)
    with pytest.raises(ExportError, match=r"a DataParallel wraps another module. What to do: export its \.module"):
        export(nn.DataParallel(layer), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="dtype is 'float32' or left out, not 'float16'"):
        export(layer, tmp_path / "m.onnx", dtype="float16")
    with pytest.raises(ExportError, match=r"the file's name ends in \.onnx, not 'm\.pt'"):
        publish(layer, tmp_path / "m.pt")
    spec, _ = network([{"linear": 4}])
    two = Written(lambda m, x: (m.parts[0](x), x * 2), nn.Linear(7, 4))
    with pytest.raises(ExportError, match="1 names are given for the outputs, and the module has 2"):
        export(two, tmp_path / "m.onnx", spec=spec)
    assert not list(tmp_path.iterdir())


def test_artifacts_and_reports_say_in_a_line_what_they_are(tmp_path: Path) -> None:
    spec, module = network([{"linear": 2}])
    artifact, report = publish(module, tmp_path / "m.onnx", spec=spec, page=False)
    rows = sum(part.rows for part in report.inputs)
    assert repr(artifact) == f"Artifact({str(tmp_path / 'm.onnx')!r}, {artifact.size:,} bytes, proved)"
    assert repr(report) == str(report) == f"ParityReport(proved: m.onnx, on cpu, {rows:,} rows)"
