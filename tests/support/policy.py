"""The network of several inputs and outputs that tests of files, packages and servers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

SHAPES = {"obs": (3,), "goal": (2,)}


class Heads(NamedTuple):
    action: torch.Tensor
    value: torch.Tensor


class Policy(nn.Module):
    """Two inputs of unequal width, a skip and two heads."""

    def __init__(self, returned: Callable[[torch.Tensor, torch.Tensor], Any] = Heads):
        super().__init__()
        self.returned = returned
        self.body, self.skip = nn.Linear(5, 8), nn.Linear(3, 8)
        self.act, self.mu, self.v = nn.ELU(), nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, obs: torch.Tensor, *, goal: torch.Tensor) -> Any:
        hidden = self.act(self.body(torch.cat([obs, goal], dim=1))) + self.skip(obs)
        return self.returned(torch.tanh(self.mu(hidden)), self.v(hidden))
