"""Files that a package cannot hold as they are, or that are more than one file: too new, several, of a fixed batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from export import ProofError, TargetError, package, publish
from runtime import read_certificate, read_header
from tests.support.cases import network, randomised
from tests.support.commands import Run
from tests.support.onnx_drafts import fixed_batch
from tests.support.policy import SHAPES, Policy

FEATURES = [{"name": f"f{i}", "range": [-i - 1, i + 1]} for i in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proved file with declared ranges and labels."""
    folder = tmp_path_factory.mktemp("model")
    spec, module = network(
        [{"linear": 8}, "layer_norm", "relu", {"linear": 2}], 4, output={"name": "y", "labels": ["no", "yes"]}
    )
    spec = spec.model_validate(spec.model_dump(exclude_none=True) | {"input": {"name": "x", "features": FEATURES}})
    publish(randomised(module, 1), folder / "m.onnx", spec=spec, page=False)
    return folder / "m.onnx"


def test_a_file_that_is_too_new_is_lowered_and_proved_anew(run: Run, model: Path, tmp_path: Path) -> None:
    done = run("package", model, "--for", "triton", "--target-version", "22.12", "-o", tmp_path / "p", "--json")
    assert done.code == 0, done.err
    (note,) = json.loads(done.out)["notes"]
    assert "opset 17 and IR 8, more than triton:22.12 reads" in note
    assert "proved again on cpu" in note
    file = tmp_path / "p" / "models" / "m" / "1" / "model.onnx"
    header, certificate = read_header(file), read_certificate(tmp_path / "p" / "m.parity.json")
    assert (header.opset, header.ir_version) == (15, 8)
    assert certificate.proved
    assert certificate.is_of(file)
    for key in ("mlpx.inputs", "mlpx.outputs"):  # features, ranges and labels
        assert header.metadata[key] == read_header(model).metadata[key]
    assert note in (tmp_path / "p" / "README.md").read_text()
    assert package(model, "triton:23.10", tmp_path / "q").notes == ()


def test_a_backend_that_brings_its_own_runtime_reads_the_file_as_it_is(model: Path, tmp_path: Path) -> None:
    made = package(model, "triton:22.12", tmp_path / "p", backend="python")
    assert made.notes == ()
    assert made.deployment.summary.opset == 17
    assert 'pip install --no-cache-dir "onnxruntime>=1.12"' in (made.folder / "Dockerfile").read_text()


def test_what_cannot_be_lowered_is_refused_with_the_reason(tmp_path: Path) -> None:
    torch.manual_seed(0)
    publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, page=False)
    with pytest.raises(TargetError, match="does not read that, and it cannot be lowered: ") as raised:
        package(tmp_path / "m.onnx", "triton:21.12", tmp_path / "p")
    assert "What to do: export the module again with --for triton:21.12" in str(raised.value)
    assert not (tmp_path / "p").exists()


def test_external_data_goes_with_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, external_data=True, page=False)
    made = package(tmp_path / "m.onnx", "openvino", tmp_path / "p")
    file = made.folder / "models" / "m" / "1" / "model.onnx"
    assert made.deployment.certificate.is_of(file)
    with open(tmp_path / "m.onnx.data", "r+b") as data:
        data.write(b"\x01")
    with pytest.raises(ProofError, match="or its external data, has changed"):
        package(tmp_path / "m.onnx", "openvino", tmp_path / "q")


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    fixed = fixed_batch(tmp_path, 30)
    made = package(fixed, "triton", tmp_path / "p")
    assert made.deployment.max_batch == made.deployment.fixed_batch == 30
    request = json.loads((made.folder / "smoke" / "request.json").read_text())
    assert request["inputs"][0]["shape"] == [30, 5]
    assert len(request["inputs"][0]["data"]) == 150
    with pytest.raises(TargetError, match="takes exactly 30 rows, and --max-batch 8 was given"):
        package(fixed, "triton", tmp_path / "q", max_batch=8)
