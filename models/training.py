"""What the training programs of the example models share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from safetensors.torch import save_file
from sklearn.model_selection import train_test_split
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def split(x: np.ndarray, y: np.ndarray, *, stratify: bool) -> list[Any]:
    """Train and held-out rows as float32, three to one: x_train, x_held, y_train, y_held."""
    return train_test_split(x.astype(np.float32), y, random_state=0, stratify=y if stratify else None)


def fit(
    module: nn.Module,
    x: np.ndarray | Sequence[np.ndarray],
    y: np.ndarray,
    loss: Loss,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    batch_size: int = 64,
) -> None:
    """Train in place with AdamW, a cosine schedule over the epochs and batches of ``batch_size`` rows, reproducibly.

    ``x`` are the rows of the only input, or those of every input in the order of the forward's arguments.
    """
    torch.manual_seed(0)
    inputs = [torch.tensor(each) for each in ([x] if isinstance(x, np.ndarray) else x)]
    targets = torch.tensor(y)
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(targets)).split(batch_size):
            if len(batch) == 1:  # has no variance, which BatchNorm needs
                continue
            optimiser.zero_grad()
            loss(module(*(rows[batch] for rows in inputs)), targets[batch]).backward()
            optimiser.step()
        schedule.step()
    module.eval()


def save(module: nn.Module, folder: Path, x_held: np.ndarray, y_held: np.ndarray, features: Sequence[str]) -> None:
    """Write ``weights.safetensors`` and ``heldout.parquet``, whose last column is ``target``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), folder / "weights.safetensors")
    columns = {name: x_held[:, index] for index, name in enumerate(features)}
    polars.DataFrame(columns | {"target": y_held}).write_parquet(folder / "heldout.parquet")
