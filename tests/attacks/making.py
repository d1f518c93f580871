"""What the makers of hostile files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from tests.support.onnx_drafts import Draft

Maker = Callable[[Path], tuple[nn.Module, Path]]
"""Writes a file into a folder; the module that the file pretends to be, and the file's path."""
F = np.float32


def written(draft: Draft, output: str, folder: Path) -> Path:
    """The draft as a file that declares no shape but its input's."""
    return draft.save(folder / "attack.onnx", output)


def ints(*values: int) -> np.ndarray:
    """A constant shape or index."""
    return np.array(values, np.int64)
