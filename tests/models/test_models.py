"""The example models keep their figures, and their training programs give them again."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from builder import assemble, load_spec, load_weights
from export import export
from models.score import held_out
from tests.support.repeats import but

AT_LEAST = {"digits": 0.96, "breast_cancer": 0.95, "diabetes": 0.33, "flights": 0.75}
TRAINED = ("digits", "breast_cancer", "diabetes")
"""In seconds, and by one figure; ``flights`` has a test of its own."""


def built(root: Path, name: str, weights: Path, folder: Path) -> Path:
    spec = load_spec(root / "models" / name / "spec.yaml")
    module = assemble(spec)
    load_weights(module, weights)
    return export(module, folder / f"{name}.onnx", spec=spec).path


@pytest.mark.parametrize("name", AT_LEAST)
def test_the_file_scores_as_it_should(name: str, root: Path, device: str, tmp_path: Path) -> None:
    file = built(root, name, root / "models" / name / "weights.safetensors", tmp_path)
    result = held_out(name, file, device)
    assert result.value >= AT_LEAST[name]
    assert f"{result.value:.3f}" in (root / "models" / name / "README.md").read_text()


@pytest.mark.parametrize("name", but(*TRAINED))
def test_training_gives_the_figure_again(name: str, root: Path, tmp_path: Path) -> None:
    figure = importlib.import_module(f"models.{name}.train").main(tmp_path)
    assert figure >= AT_LEAST[name]
    assert held_out(name, built(root, name, tmp_path / "weights.safetensors", tmp_path)).value == pytest.approx(
        figure, abs=1e-6
    )
