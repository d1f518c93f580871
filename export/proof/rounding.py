"""Roundings of float32, and what a rule of a bound is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from export.graph import Node

U = 2.0**-24
ETA = 2.0**-126
LARGEST = float(np.finfo(np.float32).max)
PROBABILISTIC = 8
"""λ of the probabilistic line: it fails to hold with probability 2·exp(-λ²/2) per sum (Higham and Mary, SIAM J. Sci.
Comput. 41(5), 2019, theorem 2.4)."""

Radius = Tensor | None
"""None stands for an input that is known exactly."""
Rule = Callable[[Node, Sequence[Tensor], Sequence[Radius], Tensor], Tensor]


def gamma(k: float) -> float:
    """The relative error of k roundings in a row; infinite where k·u reaches 1."""
    return k * U / (1 - k * U) if k * U < 1 else float("inf")


def sharper(k: float) -> float:
    """How many times smaller the probabilistic line expm1(λ·√k·u + k·u² / (1 - u)) is than γ_k; at least 1."""
    likely = float(np.expm1(PROBABILISTIC * np.sqrt(k) * U + k * U**2 / (1 - U)))
    return max(1.0, gamma(k) / likely)


def size(z: Tensor) -> Tensor:
    """Absolute values; those of NaN and infinity, whose results are compared by kind, count as 0."""
    return torch.where(z.isfinite(), z.abs(), 0.0)
