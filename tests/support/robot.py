"""A small robot policy as its training framework describes it: terms, joints, history, normaliser, action scale."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from builder import MLPSpec, assemble
from export import export
from tests.support.commands import Run

JOINTS = ("left_hip", "left_knee", "right_hip", "right_knee")
NAMES = (
    *("ang_vel[0]", "ang_vel[1]", "ang_vel[2]"),
    *(f"joint_pos:{joint}@-1" for joint in JOINTS),
    *(f"joint_pos:{joint}" for joint in JOINTS),
    "height",
)
"""Twelve inputs: a term of three values, joint positions of the last step and of this one, and a bare term."""
MEAN = [0.1, -0.2, 0.3, *[0.01 * i for i in range(8)], 0.7]
STD = [1.5, 1.25, 0.9, *[0.5 + 0.1 * i for i in range(8)], 0.05]
FACTOR, OFFSET = [0.25, 0.5, 0.25, 0.5], [0.1, -0.4, 0.1, -0.4]


def blocks(**changed: Any) -> list[Any]:
    """The blocks of the policy; a block by its name here may be given anew, or as None to leave it out."""
    parts = {
        "clip": {"clip": [-18, 18]},
        "normaliser": {"standardize": {"mean": MEAN, "std": STD}},
        "first": {"linear": 16},
        "activation": "elu",
        "last": {"linear": 4},
        "action_clip": {"clip": [-1, 1]},
        "scale": {"scale": {"factor": FACTOR, "offset": OFFSET}},
    }
    return [block for block in (parts | changed).values() if block is not None]


def policy_spec(
    names: Sequence[str] | None = NAMES,
    actions: Sequence[str] | None = JOINTS,
    period: float | None = 0.02,
    **changed: Any,
) -> MLPSpec:
    """The spec; ``changed`` are its blocks, or the ``units`` and ``ranges`` of features by their names."""
    units: Mapping[str, str] = changed.pop("units", {"height": "m"})
    ranges: Mapping[str, list[float]] = changed.pop("ranges", {})
    features: Any = len(NAMES)
    if names is not None:
        listed = [{"name": n, "unit": units.get(n), "range": ranges.get(n)} for n in names]
        features = [{key: value for key, value in each.items() if value is not None} for each in listed]
    output = {} if actions is None else {"features": [f"joint_pos:{joint}" for joint in actions]}
    whole = {} if period is None else {"period": period}
    return MLPSpec(
        name="policy",
        input={"name": "obs", "features": features, "range": [-3, 3]},
        blocks=blocks(**changed),
        output={"name": "action", **output},
        **whole,
    )


def policy_module(
    spec: MLPSpec, inputs_at: Sequence[int] = range(12), actions_at: Sequence[int] = range(4)
) -> nn.Sequential:
    """The policy with its fixed weights; ``inputs_at`` and ``actions_at`` order its features.

    The constants of the spec are taken as they stand there.
    """
    torch.manual_seed(7)
    weights = [torch.randn(16, 12) / 4, torch.randn(16) / 4, torch.randn(4, 16) / 4, torch.randn(4) / 4]
    module = assemble(spec, seed=0).eval()
    first, last = [layer for layer in module if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        first.weight[:], first.bias[:] = weights[0][:, list(inputs_at)], weights[1]
        last.weight[:], last.bias[:] = weights[2][list(actions_at)], weights[3][list(actions_at)]
    return module


def policy_file(
    path: Path, inputs_at: Sequence[int] = range(12), actions_at: Sequence[int] = range(4), **changed: Any
) -> Path:
    """The exported policy, unproved."""
    spec = policy_spec(**changed)
    path.parent.mkdir(parents=True, exist_ok=True)
    return export(policy_module(spec, inputs_at, actions_at), path, spec=spec).path


ROWS = 40


def observations(scale: float = 1.0) -> np.ndarray:
    """Rows within the declared ranges, or so many times as far."""
    rows = np.random.default_rng(3).uniform(-3, 3, (ROWS, 12)) * scale
    return np.clip(rows, -3 * scale, 3 * scale).astype(np.float32)


def answers(rows: np.ndarray, module: nn.Module | None = None, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """What the policy, or another module, gives in PyTorch."""
    module = policy_module(policy_spec()) if module is None else module
    with torch.no_grad():
        return module.to(dtype)(torch.from_numpy(rows).to(dtype)).numpy()


def saved(folder: Path, rows: np.ndarray, actions: np.ndarray, **names: str) -> Path:
    """Observations and actions in an archive."""
    arrays: Mapping[str, Any] = {names.get("obs", "obs"): rows, names.get("action", "action"): actions}
    np.savez(folder / "saved.npz", **arrays)
    return folder / "saved.npz"


def judged(run: Run, policy: Path, path: Path, *options: Any) -> tuple[int, dict[str, Any]]:
    """The exit code and the report of ``mlpx verify --answers``."""
    code, out, err = run("verify", policy, "--answers", path, "--device", "cpu", "--json", *options)
    assert out, err
    return code, json.loads(out)
