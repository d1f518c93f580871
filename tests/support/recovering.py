"""What the tests of recovering share: networks, and a comparison with what was recovered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from builder import RecoveryError, assemble
from export import Recovered, read_checkpoint
from tests.support import ROOT

Module = TypeVar("Module", bound=nn.Module)


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ELU) -> nn.Sequential:
    """Linear layers of these widths with an activation between, not behind."""
    modules = [module for into, out in pairwise(widths) for module in (nn.Linear(into, out), act())]
    return nn.Sequential(*modules[:-1])


def randomised(module: Module, seed: int = 0) -> Module:
    """The module with every tensor drawn anew, in evaluation mode; variances and stds stay positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(drawn.abs() + 0.1 if "var" in name or "std" in name else drawn * 0.5)
    return module.eval()


def named(parts: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def recovered(directory: Path, saved: Any, **options: Any) -> Recovered:
    torch.save(saved, directory / "checkpoint.pt")
    return read_checkpoint(directory / "checkpoint.pt", **options)


def agree(found: Recovered, original: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The recovered network gives the original's outputs bit for bit."""
    module = assemble(found.spec)
    module.load_state_dict(found.weights)
    rows = torch.randn(33, *found.spec.input.row_shape, generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad():
        assert torch.equal(module.eval()(rows), original(rows))


def kinds(found: Recovered) -> list[str]:
    return [block.kind for block in found.spec.blocks]


def said(error: pytest.ExceptionInfo[RecoveryError], *words: str) -> None:
    for word in words:
        assert word in str(error.value)


def real_network(name: str) -> Path:
    """A network that somebody else trained, from the folder beside the checkout; skips where that is absent."""
    path = ROOT.parent / "shared" / "cases" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path
