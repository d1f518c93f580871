"""A network of numbers that may be missing and of words, its rows, and what these are as eager PyTorch takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from builder import MLPSpec, assemble

CARRIERS = ("AA", "B6", "UA", "Ü 2")
ORIGINS = ("EWR", "JFK", "LGA")
NUMBERS: dict[str, Any] = {
    "name": "numbers",
    "features": [{"name": "distance", "unit": "mi"}, "wind"],
    "range": [-1e4, 1e4],
    "blocks": [{"impute": [1000.0, 10.0]}, {"standardize": {"mean": [1000.0, 10.0], "std": [730.0, 5.5]}}],
}
WORDS: dict[str, Any] = {
    "name": "words",
    "features": [
        {"name": "carrier", "categories": list(CARRIERS), "unknown": "UA", "embedding": 3},
        {"name": "origin", "categories": list(ORIGINS), "description": "the airport"},
    ],
}
RECORD: dict[str, Any] = {
    "name": "delays",
    "inputs": [NUMBERS, WORDS],
    "blocks": [{"linear": 8}, "relu", "batch_norm", {"dropout": 0.1}, {"linear": 1}],
    "output": {"name": "delay", "labels": ["on time", "late"]},
}


def delays(seed: int = 0) -> tuple[MLPSpec, nn.Sequential]:
    """The spec and its network with random weights, in evaluation mode."""
    spec = MLPSpec(**RECORD)
    return spec, assemble(spec, seed=seed).eval()


def eager(module: nn.Module, numbers: Any, codes: Any) -> np.ndarray:
    """What the network computes in eager PyTorch for rows of numbers and codes, in float64."""
    import copy

    with torch.inference_mode():
        exact = copy.deepcopy(module).double()
        return exact(torch.tensor(numbers, dtype=torch.float64), torch.tensor(codes, dtype=torch.int64)).numpy()
