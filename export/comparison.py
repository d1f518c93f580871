"""How far a file's output is from the module's: figures to look at, not a proof."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from runtime import Port, Session

from .errors import ExportError


@dataclass(frozen=True)
class Comparison:
    """The largest difference between a file and the module in evaluation mode, over some rows.

    Infinite where one side has a NaN or an infinity that the other has not.
    """

    rows: int
    origin: str
    """What the rows are, in words."""
    device: str
    from_float32: float
    """From eager PyTorch in the module's own float32."""
    from_float64: float | None
    """From the same module computed in float64; None where it does not run in float64."""
    magnitude: float
    """The largest output of the module."""

    @property
    def grossly_apart(self) -> bool:
        """Farther than rounding ever explains in practice: tracing missed something. It is a net, not a proof."""
        nearest = self.from_float32 if self.from_float64 is None else min(self.from_float32, self.from_float64)
        return not nearest <= 1e-2 * max(self.magnitude, 1e-30)


def compare(
    module: nn.Module, path: str | Path, rows: np.ndarray, *, origin: str = "rows", device: str = "auto"
) -> Comparison:
    """Run the file and the module on float32 rows (batch, *row); the module is left as it is."""
    with Session(path, device) as session, torch.inference_mode():
        found = session.predict(rows).astype(np.float64)
        x = torch.tensor(rows)
        try:
            single = copy.deepcopy(module).cpu().eval().float()(x).double().numpy()
        except Exception as error:  # the caller's code: it may raise anything
            raise ExportError(f"the module does not run on rows of shape {list(rows.shape[1:])}: {error}") from error
        try:  # a copy of its own: a forward may change what it holds
            double = copy.deepcopy(module).cpu().eval().double()(x.double()).numpy()
        except RuntimeError:  # a tensor that is neither parameter nor buffer stays float32
            double = None
        apart = None if double is None else _largest(found, double)
        magnitude = float(np.abs(single[np.isfinite(single)]).max(initial=0.0))
        return Comparison(len(rows), origin, session.device, _largest(found, single), apart, magnitude)


def sample(port: Port, rows: int = 1000, seed: int = 0) -> np.ndarray:
    """Seeded float32 rows for an input: standard normal, or uniform over its range where it declares one."""
    shape = (rows, *(int(size) for size in port.shape[1:]))
    generator = np.random.default_rng(seed)
    if port.range is None:
        return generator.standard_normal(shape, dtype=np.float32)
    low, high = port.range
    return generator.uniform(low, high, shape).astype(np.float32)


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    if not len(found):
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(found - expected)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return float(np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart)).max())
