"""A clip with limits per feature: as torch clamps, proved in its file, and refused where it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from builder import MLPSpec, SpecError, assemble, json_schema, load_spec
from builder.documents import as_yaml
from export import ExportError, publish, recover
from tests.support.bounds import bounded
from tests.support.cases import normal

LOW, HIGH = [-1.0, -0.5, -2.0], [0.25, 3.0, 2.5]
NONE = 3.4028234663852886e38


def spec_of(*clips: dict[str, Any], **more: Any) -> MLPSpec:
    blocks: list[Any] = [{"clip": clip} for clip in clips]
    return MLPSpec(name="clipped", input={"features": 3, **more}, blocks=[*blocks, {"linear": 3}, {"clip": clips[0]}])


@pytest.mark.parametrize(
    "clip", [{"min": LOW, "max": HIGH}, {"min": -0.5, "max": HIGH}, {"min": LOW, "max": 3}, {"min": [-1], "max": [1]}]
)
def test_limits_per_feature_are_those_of_clamp(clip: dict[str, Any]) -> None:
    features = max(len(value) if isinstance(value, list) else 1 for value in clip.values())
    spec = MLPSpec(name="clipped", input={"features": features}, blocks=[{"clip": clip}])
    low, high = (torch.tensor(clip[name], dtype=torch.float32) for name in ("min", "max"))
    rows = torch.as_tensor(normal(50, features) * 3)
    assert torch.equal(assemble(spec)(rows), torch.clamp(rows, low.expand(features), high.expand(features)))


def test_the_limits_are_the_specs_and_not_among_the_weights() -> None:
    module = assemble(spec_of({"min": LOW, "max": HIGH}))
    assert list(module.state_dict()) == ["1.weight", "1.bias"]
    assert torch.equal(dict(module.named_buffers())["0.max"], torch.tensor(HIGH))


def test_the_file_is_proved_and_bounded(tmp_path: Path) -> None:
    spec = spec_of({"min": LOW, "max": HIGH}, {"min": [-NONE, -0.1, -NONE], "max": NONE}, range=[-4.0, 4.0])
    module = assemble(spec, seed=1).eval()
    artifact, report = publish(module, tmp_path / "clipped.onnx", spec=spec, device="cpu", page=False)
    assert report.proved
    assert artifact.summary is not None
    rows = normal(40, 3) * 3
    exact, radius = bounded(module, rows.astype(np.float64), np.zeros(rows.shape), {})
    with torch.no_grad():
        assert (abs(module(torch.as_tensor(rows)).numpy() - exact) <= radius).all()


def test_it_is_recovered_from_its_file(tmp_path: Path) -> None:
    spec = spec_of({"min": LOW, "max": HIGH})
    publish(assemble(spec, seed=1).eval(), tmp_path / "clipped.onnx", spec=spec, device="cpu", page=False)
    recovery = recover(tmp_path / "clipped.onnx", tmp_path / "again", device="cpu", page=False)
    assert recovery.spec.blocks == spec.blocks
    assert recovery.report is not None
    assert recovery.report.proved
    assert recovery.apart == 0


def test_a_module_with_other_limits_is_not_the_specs(tmp_path: Path) -> None:
    module = assemble(spec_of({"min": LOW, "max": HIGH})).eval()
    other = spec_of({"min": LOW, "max": [0.25, 3.0, 2.0]})
    with pytest.raises(ExportError, match=r"limits \[0.25, 3.0, 2.0\], where the module is .* with \[0.25, 3.0, 2.5\]"):
        publish(module, tmp_path / "clipped.onnx", spec=other, device="cpu", page=False)


def test_it_is_written_and_read_again(tmp_path: Path) -> None:
    spec = spec_of({"min": LOW, "max": 3.0})
    (tmp_path / "spec.yaml").write_text(as_yaml(spec))
    assert load_spec(tmp_path / "spec.yaml") == spec
    assert "clip: {min: [-1.0, -0.5, -2.0], max: 3.0}" in as_yaml(spec)
    limits = json_schema()["$defs"]["Clip"]["properties"]["min"]["anyOf"]
    assert {limit["type"] for limit in limits} == {"number", "array"}


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (
            {"min": [0.0, 1.0], "max": [2.0, 3.0, 4.0]},
            r"blocks\[0\].clip: min has 2 values and max 3; expected as many",
        ),
        ({"min": [0.0, 5.0, 0.0], "max": 3.0}, r"blocks\[0\].clip: min must be below max"),
        (
            {"min": [0.0, 1.0], "max": 3.0},
            "clip has 2 values in min, so it expects 2 features, but .* gives 3 features",
        ),
        ({"min": [], "max": 3.0}, "at least 1 item"),
        ({"min": [-1e39, 0.0, 0.0], "max": 3.0}, "beyond float32"),
        ([[0.0, 0.0, 0.0], [1.0, 1.0]], "min has 3 values and max 2"),
    ],
)
def test_limits_that_do_not_fit_are_an_error(clip: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_of(clip)


def test_limits_per_feature_are_for_flat_rows() -> None:
    with pytest.raises(SpecError, match="clip expects flat rows"):
        MLPSpec(
            name="c", input={"shape": [2, 3]}, blocks=[{"clip": {"min": LOW, "max": HIGH}}, "flatten", {"linear": 1}]
        )


def test_one_limit_is_still_a_hardtanh() -> None:
    module = assemble(spec_of({"min": -1.0, "max": 1.0}))
    assert isinstance(module[0], nn.Hardtanh)
