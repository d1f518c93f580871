"""A small model for the tests of tuning, whose weights of 4 bits say something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builder import MLPSpec, assemble
from export import export

FEATURES = 24


def ill_conditioned(folder: Path, *, labels: bool = True, seed: int = 0) -> Path:
    """``model.onnx``: its first weight is 40 times the others, and its first feature is always 0.

    A block's step is then 5 with 4 bits, so that all the others become 0; with 8 bits it is 0.3, and they stay.
    """
    output: Any = {"labels": ["low", "high"]} if labels else {}
    spec = MLPSpec(name="model", input={"features": FEATURES}, blocks=[{"linear": 2}], output=output)
    module = assemble(spec, seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        signs = torch.randint(0, 2, (2, FEATURES), generator=generator) * 2.0 - 1
        signs[1] = -signs[0]
        module[0].weight[:] = signs  # type: ignore[index]
        module[0].weight[:, 0] = 40.0  # type: ignore[index]
        module[0].bias[:] = torch.tensor([0.0, 0.3])  # type: ignore[index]
    folder.mkdir(exist_ok=True)
    return export(module.eval(), folder / "model.onnx", spec=spec).path


def rows(folder: Path, count: int = 200) -> Path:
    """``rows.npy``, of the model's traffic."""
    x = np.random.default_rng(0).uniform(-1, 1, (count, FEATURES)).astype(np.float32)
    x[:, 0] = 0
    np.save(folder / "rows.npy", x)
    return folder / "rows.npy"


def edited(path: Path, **changes: Any) -> None:
    """Change a JSON file's keys."""
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | changes))
