"""Train ``digits``: ``python -m models.digits.train [FOLDER]`` writes weights and held-out rows, by default here."""

import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from mlpx import assemble, load_spec
from models.training import fit, save, split

HERE = Path(__file__).parent


def main(folder: Path) -> float:
    """Train and save; the accuracy on the held-out rows, in evaluation mode."""
    data: Any = load_digits()
    x, x_held, y, y_held = split(data.data, data.target, stratify=True)
    module = assemble(load_spec(HERE / "spec.yaml"))
    fit(module, x, y, nn.CrossEntropyLoss(), epochs=100, learning_rate=2e-3)
    save(module, folder, x_held, y_held, data.feature_names)
    with torch.inference_mode():
        return (module(torch.tensor(x_held)).argmax(1).numpy() == y_held).mean().item()


if __name__ == "__main__":
    print(f"held-out accuracy {main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):.3f}")
