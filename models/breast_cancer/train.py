"""Train ``breast_cancer``: ``python -m models.breast_cancer.train [FOLDER]`` writes weights and held-out rows."""

import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from builder import Standardize
from mlpx import assemble, load_spec
from models.training import fit, save, split

HERE = Path(__file__).parent


def main(folder: Path) -> float:
    """Train and save; the accuracy on the held-out rows, in evaluation mode."""
    data: Any = load_breast_cancer()
    x, x_held, y, y_held = split(data.data, data.target, stratify=True)
    module = assemble(load_spec(HERE / "spec.yaml"))
    first = module[0]
    assert isinstance(first, Standardize)
    first.mean.copy_(torch.tensor(x).mean(0))
    first.std.copy_(torch.tensor(x).std(0))
    fit(module, x, y.astype("float32")[:, None], nn.BCELoss(), epochs=120, weight_decay=1e-2)
    save(module, folder, x_held, y_held, data.feature_names)
    with torch.inference_mode():
        return ((module(torch.tensor(x_held))[:, 0] > 0.5).numpy() == y_held).mean().item()


if __name__ == "__main__":
    print(f"held-out accuracy {main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):.3f}")
