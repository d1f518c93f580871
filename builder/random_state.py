"""PyTorch's random state, which building a module and running one leave as it was."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def kept_random_state(seed: int | None = None) -> Generator[None]:
    """Restores the CPU's random state afterwards. Within, random numbers start from ``seed``, if one is given."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] - torch gives it no types
        if seed is not None:
            torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType] - torch gives it no types
        yield
