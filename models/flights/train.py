"""Train ``flights``: ``python -m models.flights.train [FOLDER]`` writes weights and a sample of the held-out rows.

Trained on January to September; settings were chosen on October; November and December are held out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from polars import col
from safetensors.torch import save_file
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from torch import nn

from builder import Impute, MLPSpec, Standardize
from mlpx import assemble, load_spec, table
from models.flights.data import NUMBERS, read_flights
from models.training import fit

HERE = Path(__file__).parent
SAMPLE = 200  # of the held-out rows, for heldout.csv


@dataclass(frozen=True)
class Figures:
    """How good the predicted probabilities of being late are."""

    auc: float
    log_loss: float
    average_precision: float
    predicted: float
    """The mean of the probabilities."""
    observed: float
    """The share of the flights that were late."""


def figures(probabilities: np.ndarray, late: np.ndarray) -> Figures:
    """The figures of probabilities (rows,) for flights that were ``late`` (rows,), 1 or 0."""
    return Figures(
        float(roc_auc_score(late, probabilities)),
        float(log_loss(late, probabilities)),
        float(average_precision_score(late, probabilities)),
        float(probabilities.mean()),
        float(late.mean()),
    )


def rows_of(spec: MLPSpec, frame: polars.DataFrame) -> list[np.ndarray]:
    """The rows of every input of ``spec``: float32 numbers (rows, 12), NaN where missing, and int64 codes (rows, 5)."""
    return list(table.rows_of(spec, frame).values())


def late_of(frame: polars.DataFrame) -> np.ndarray:
    """float32 (rows,): 1 for a late flight, 0 for another."""
    return (frame["target"] == "late").to_numpy().astype(np.float32)


def train(spec: MLPSpec, frame: polars.DataFrame) -> nn.Module:
    """The network of ``spec``, trained on the flights of ``frame``."""
    module = assemble(spec, seed=0)
    (numbers,) = table.fit_features(frame.select(NUMBERS)).inputs
    impute, standardize = (next(iter(block.values())) for block in numbers["blocks"])
    for part in module.modules():
        if isinstance(part, Impute):
            part.value.copy_(torch.tensor(impute["value"]))
        elif isinstance(part, Standardize):
            part.mean.copy_(torch.tensor(standardize["mean"]))
            part.std.copy_(torch.tensor(standardize["std"]))
    rows, late = rows_of(spec, frame), late_of(frame)[:, None]
    fit(module, rows, late, nn.BCEWithLogitsLoss(), epochs=4, learning_rate=1e-2, weight_decay=1e-2, batch_size=1024)
    return module


def predict(module: nn.Module, rows: Sequence[np.ndarray]) -> np.ndarray:
    """float64 (rows,): the probability that each flight is late."""
    with torch.inference_mode():
        return torch.sigmoid(module(*map(torch.tensor, rows))[:, 0].double()).numpy()


def boosted(rows: Sequence[np.ndarray], late: np.ndarray) -> Any:
    """scikit-learn's gradient boosting of trees on the same rows, with the categories as such."""
    width = rows[0].shape[1]
    settings: dict[str, Any] = {"categorical_features": range(width, width + rows[1].shape[1]), "early_stopping": False}
    trees = HistGradientBoostingClassifier(random_state=0, **settings)
    return trees.fit(np.hstack(rows), late)


def save(module: nn.Module, folder: Path, held: polars.DataFrame) -> None:
    """Write ``weights.safetensors`` and ``heldout.csv``, a sample of the held-out flights with their ``target``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), folder / "weights.safetensors")
    held.drop("month").sample(SAMPLE, seed=0).write_csv(folder / "heldout.csv")


def main(folder: Path) -> dict[tuple[str, str], Figures]:
    """Train and save; the figures of the network, in evaluation mode, and of the trees, on both spans of months."""
    spec, flights = load_spec(HERE / "spec.yaml"), read_flights()
    seen, chosen, held = (flights.filter(col("month").is_between(*span)) for span in ((1, 9), (10, 10), (11, 12)))
    module = train(spec, seen)
    save(module, folder, held)
    trees = boosted(rows_of(spec, seen), late_of(seen))
    found = dict[tuple[str, str], Figures]()
    for name, frame in (("October", chosen), ("held out", held)):
        rows, late = rows_of(spec, frame), late_of(frame)
        found[name, "network"] = figures(predict(module, rows), late)
        found[name, "trees"] = figures(trees.predict_proba(np.hstack(rows))[:, 1], late)
    return found


if __name__ == "__main__":
    found = main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
    print(" " * 16, *(f"{field.name.replace('_', ' '):>17}" for field in fields(Figures)))
    for (months, model), each in found.items():
        print(f"{months:<8} {model:<7}", *(f"{value:>17.3f}" for value in astuple(each)))
