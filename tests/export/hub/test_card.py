"""The model card: metadata that the Hub's own library reads, and what the file is and how to run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from builder import MLPSpec, assemble
from export import TargetError, publish, push
from runtime import read_certificate
from tests.support import ROOT
from tests.support.hub import LEGACY, Hub

pytestmark = pytest.mark.filterwarnings(LEGACY)


def card_of(path: Path, folder: Path, **options: Any) -> Any:
    """The card of a dry run. ModelCard checks ``model-index``, and fails for one that is malformed."""
    push(path, "team/pump", dry_run=folder / "dry", **options)
    return ModelCard.load(folder / "dry" / "README.md")


def test_the_metadata_are_those_of_the_hub(pump: Path, tmp_path: Path) -> None:
    card = card_of(pump, tmp_path, license="apache-2.0")
    known = read_certificate(pump / "pump.parity.json")
    assert known.bound is not None
    data = card.data
    assert (data.library_name, data.license, data.pipeline_tag) == ("mlpx", "apache-2.0", "tabular-classification")
    assert {"onnx", "onnxruntime"} <= set(data.tags)
    measured, bound = data.eval_results
    assert (measured.metric_type, measured.metric_value) == ("max_absolute_error", known.largest)
    assert (bound.metric_value, bound.dataset_name) == (known.bound.largest, "every input of the declared ranges")


def test_the_text_says_what_the_file_takes_and_gives(pump: Path, tmp_path: Path) -> None:
    text = card_of(pump, tmp_path).text
    for line in (
        "# pump",
        "| input | `x` | `[batch, 2]` | float32 | 2 features, `flow` to `heat` |",
        "| output | `state` | `[batch, 3]` | float32 | logits of 3 labels |",
        "Labels of `state`, in order: 0: `idle`, 1: `no`, 2: `worn out`.",
        "| `flow` | l/min | 0 to 9 | a \\| b, in \\*stars\\* |",
        "| `heat` | °C | -20 to 60 |  |",
        "$ mlpx pull team/pump -o pump",
        "| `pump.onnx` | the model |",
        f"SHA-256 of `pump.onnx`: `{read_certificate(pump / 'pump.parity.json').sha256}`.",
    ):
        assert line in text.splitlines()
    assert re.search(r"at most \S+ for every input with x -20 to 60", text)


def test_the_python_of_the_card_runs(pump: Path, hub: Hub, tmp_path: Path) -> None:
    push(pump, "team/pump")
    ours, theirs = re.findall(r"```python\n(.*?)```", hub.files("team/pump")["README.md"].decode(), re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", f"{ours}\n{theirs}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    own, other = (list(map(float, re.findall(r"-?\d+\.\d+", line))) for line in done.stdout.splitlines())
    assert own == pytest.approx(other), done.stderr
    assert len(own) == 3


def test_an_own_text_comes_first_and_its_metadata_win(pump: Path, tmp_path: Path) -> None:
    own = tmp_path / "OWN.md"
    own.write_text(
        "---\nlicense: mit\nlanguage: no\ndate: 2026-11-26\ntags: [pumps, onnx]\ndatasets: [team/flows]\n---\n"
        "# Pumps\n\nWhat I know of them.\n",
        encoding="utf-8",
    )
    card = card_of(pump, tmp_path, readme=own, license="apache-2.0")
    assert card.text.strip().startswith("# Pumps\n\nWhat I know of them.\n\n## The file\n")
    assert (card.data.license, card.data.datasets, card.data.library_name) == ("mit", ["team/flows"], "mlpx")
    assert card.data.tags == ["pumps", "onnx", "onnxruntime", "mlp"]
    written = (tmp_path / "dry" / "README.md").read_text(encoding="utf-8")
    assert "\nlanguage: no\n" in written  # not false, as YAML 1.1 reads it
    assert "\ndate: 2026-11-26\n" in written


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\n- a\n---\n", b"\xff\xfe"])
def test_a_readme_that_cannot_be_read_is_refused(text: str | bytes, pump: Path, tmp_path: Path) -> None:
    own = tmp_path / "OWN.md"
    own.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TargetError, match="What to do"):
        push(pump, "team/pump", readme=own, dry_run=tmp_path / "dry")
    assert not (tmp_path / "dry").exists()
    own.write_text("no metadata\n---\nat all\n---\n")
    assert "no metadata\n---\nat all" in card_of(pump, tmp_path, readme=own).text


def test_the_task_is_the_one_that_fits(tmp_path: Path) -> None:
    def task(spec: MLPSpec) -> str | None:
        path = tmp_path / spec.name / f"{spec.name}.onnx"
        publish(assemble(spec, seed=0), path, spec=spec, device="cpu", page=False, bound=False)
        return card_of(path, tmp_path / spec.name).data.pipeline_tag

    assert task(MLPSpec(name="a", input={"features": 2}, blocks=[{"linear": 1}])) == "tabular-regression"
    assert task(MLPSpec(name="b", input={"features": 2}, blocks=[{"linear": 1}], period=0.02)) == "robotics"
    image = MLPSpec(name="c", input={"shape": [2, 3]}, blocks=["flatten", {"linear": 1}])
    assert task(image) is None


def test_words_missing_values_and_two_inputs_are_described(tmp_path: Path) -> None:
    class Prices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.body = nn.Embedding(3, 2), nn.Linear(4, 1)

        def forward(self, kind, size):  # type: ignore[no-untyped-def]
            return torch.sigmoid(self.body(torch.cat([self.table(kind[:, 0]), size], dim=1)))

    features: dict[str, Any] = {
        "kind": {"features": [{"name": "shape", "categories": ["a|b", "c`d", "e"], "unknown": "e"}]},
        "output": {"labels": ["cheap", "d|``r"], "scores": "probabilities"},
    }
    rows = {"kind": torch.tensor([[0], [2]]), "size": torch.ones(2, 2)}
    publish(Prices(), tmp_path / "a p.onnx", example=rows, features=features, device="cpu", page=False, bound=False)
    text = card_of(tmp_path / "a p.onnx", tmp_path).text
    assert "| `shape` | 0: `a\\|b`, 1: `` c`d ``, 2: `e`; any other is 2 |" in text
    assert "Labels of `output`: above 0.5 is ``` d|``r ```, otherwise `cheap`." in text
    assert "$ mlpx predict 'pump/a p.onnx' rows.csv" in text
    assert 'session.run({"kind": np.zeros((1, 1), np.int64), "size": np.zeros((1, 2), np.float32)})' in text
