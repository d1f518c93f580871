"""What a file declares of its features: the proof draws rows by it, and holds it against the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from builder import MLPSpec, assemble, load_spec
from export import export, verify
from export.proof.verify import prove
from tests.support.arm import ROWS, WORDS, built_arm, csv


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    return built_arm(tmp_path)


def drawn(path: Path, spec: MLPSpec, **more: Any) -> Any:
    return verify(assemble(spec, seed=1), path, spec=spec, device="cpu", **more)


def test_the_proof_draws_over_each_features_range(arm: Path, tmp_path: Path) -> None:
    spec = load_spec(tmp_path / "arm.yaml")
    report = drawn(arm, spec, data=csv(tmp_path, ROWS))
    assert report.proved, report.why
    words = {given.kind: given.words for given in report.inputs}
    assert words["range"] == "1,000 rows, each feature uniform over its declared range"
    assert WORDS in [check.words for check in report.checks if check.outcome == "warning"]
    partly = MLPSpec(name="p", input={"features": [{"name": "a", "range": [3, 4]}, "b"]}, blocks=[{"linear": 1}])
    path = export(assemble(partly, seed=1), tmp_path / "p.onnx", spec=partly).path
    words = {given.kind: given.words for given in drawn(path, partly).inputs}
    assert words["range"] == "1,000 rows, uniform over the declared range 3 to 4, 1 without one standard normal"


def test_the_proofs_rows_lie_where_the_range_does(tmp_path: Path) -> None:
    listed = [{"name": "a", "range": [1e6, 1.1e6]}, "b"]
    spec = MLPSpec(name="c", input={"features": listed}, blocks=[{"linear": 1}])
    path = export(assemble(spec, seed=1), tmp_path / "c.onnx", spec=spec).path
    report = drawn(path, spec)
    assert report.proved
    assert report.end_to_end is not None
    assert report.end_to_end.magnitude > 1e5


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("m/s", "km/h", "the units of the file are ['km/h', 'rad', None], and the spec's ['m/s', 'rad', None]"),
        ("[0.0, 30.0]", "[0.0, 3.0]", "the ranges of the file are [(0.0, 3.0), None, None]"),
        ("Nm", "lbf", "the output units of the file are"),
        ("elbow", "wrist", "the output features of the file are"),
        ("[-5.0, 5.0]", "[-6.0, 5.0]", "the output ranges of the file are"),
    ],
)
def test_a_file_that_declares_something_else_fails(old: str, new: str, part: str, arm: Path, tmp_path: Path) -> None:
    spec = load_spec(tmp_path / "arm.yaml")
    model = onnx.load(str(arm))
    for entry in model.metadata_props:
        if entry.key in ("mlpx.inputs", "mlpx.outputs"):
            entry.value = entry.value.replace(old, new)
    onnx.save(model, arm)
    report = prove(assemble(spec, seed=1), arm, spec=spec, device="cpu", stop_early=True)
    assert report.verdict == "failed"
    assert part in report.why


def test_a_spec_of_another_width_fails(arm: Path, tmp_path: Path) -> None:
    spec = load_spec(tmp_path / "arm.yaml")
    module = assemble(spec, seed=1)
    other = MLPSpec(
        name="o", input={"name": "state", "features": [{"name": "a", "range": [0, 1]}, "b"]}, blocks=["relu"]
    )
    report = verify(module, arm, spec=other.model_copy(update={"output": spec.output}), device="cpu")
    assert report.verdict == "failed"
    assert report.why == "the module takes rows of shape [3], and the spec's input has [2]"
