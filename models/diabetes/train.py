"""Train ``diabetes``: ``python -m models.diabetes.train [FOLDER]`` writes weights and held-out rows."""

import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from torch import nn

from builder import Scale, Standardize
from mlpx import assemble, load_spec
from models.training import fit, save, split

HERE = Path(__file__).parent


def main(folder: Path) -> float:
    """Train and save; the share of the variance of the held-out targets that is explained (R squared)."""
    data: Any = load_diabetes(scaled=False)
    x, x_held, y, y_held = split(data.data, data.target.astype("float32"), stratify=False)
    module = assemble(load_spec(HERE / "spec.yaml"))
    first, last = module[0], module[-1]
    assert isinstance(first, Standardize)
    assert isinstance(last, Scale)
    first.mean.copy_(torch.tensor(x).mean(0))
    first.std.copy_(torch.tensor(x).std(0))
    last.factor.fill_(y.std().item())
    last.offset.fill_(y.mean().item())
    fit(module, x, y[:, None], nn.MSELoss(), epochs=40, learning_rate=3e-3, weight_decay=1e-1)
    save(module, folder, x_held, y_held, data.feature_names)
    with torch.inference_mode():
        return float(r2_score(y_held, module(torch.tensor(x_held))[:, 0]))


if __name__ == "__main__":
    print(f"held-out R squared {main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):.3f}")
