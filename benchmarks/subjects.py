"""The models that speed is measured on, each written once: the ONNX file, its rows, and the right answers."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.networks import MODELS, network
from builder import MLPSpec, Scale, Standardize
from export import export
from runtime import Session
from runtime.timing.rows import described_inputs, seeded_rows
from tests.support.cases import WIDTHS, relu_network

NAMES = (*WIDTHS, *MODELS)


def described(name: str) -> tuple[MLPSpec, nn.Sequential]:
    """Spec and module of one of ``NAMES``, in evaluation mode."""
    return relu_network(name) if name in WIDTHS else network(name)


@dataclass(frozen=True)
class Subject:
    """A model, ready to be measured."""

    name: str
    module: nn.Sequential
    path: Path
    """The ONNX file."""
    steps: Path
    """What the module computes, as numpy arrays; see ``steps_of``."""

    def rows(self, count: int) -> dict[str, np.ndarray]:
        """Seeded float32 rows by the input's name."""
        with Session(self.path, "cpu") as session:
            return seeded_rows(described_inputs(session), count)

    def exact(self, rows: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The module's output in float64."""
        (x,) = rows.values()
        with torch.inference_mode():
            return [copy.deepcopy(self.module).double()(torch.from_numpy(x).double()).numpy()]


def prepared(name: str, folder: Path) -> Subject:
    """Write the files of one of ``NAMES``."""
    spec, module = described(name)
    path = export(module, folder / f"{name}.onnx", spec=spec).path
    steps = folder / f"{name}.steps"
    steps.write_bytes(pickle.dumps(steps_of(module)))
    return Subject(name, module, path, steps)


def steps_of(module: nn.Sequential) -> list[tuple[Any, ...]]:
    """``("linear", weight, bias)``, ``("affine", factor, offset)``, ``("leaky_relu", slope)``, ``("relu",)`` and so on.

    Weights are (in, out) and contiguous, as numpy multiplies fastest.
    """
    steps: list[tuple[Any, ...]] = []
    for part in module:
        values = {key: value.detach().numpy() for key, value in part.state_dict().items()}
        if isinstance(part, nn.Linear):
            steps.append(("linear", np.ascontiguousarray(values["weight"].T), values["bias"]))
        elif isinstance(part, nn.BatchNorm1d):
            factor = values["weight"] / np.sqrt(values["running_var"] + np.float32(part.eps))
            steps.append(("affine", factor, values["bias"] - values["running_mean"] * factor))
        elif isinstance(part, Standardize):
            mean, std = (getattr(part, key).numpy() for key in ("mean", "std"))
            steps.append(("affine", 1 / std, -mean / std))
        elif isinstance(part, Scale):
            steps.append(("affine", *(getattr(part, key).numpy() for key in ("factor", "offset"))))
        elif isinstance(part, nn.LeakyReLU):
            steps.append(("leaky_relu", np.float32(part.negative_slope)))
        elif isinstance(part, nn.ELU) and part.alpha == 1:
            steps.append(("elu",))
        elif isinstance(part, nn.ReLU | nn.Sigmoid):
            steps.append((type(part).__name__.lower(),))
        elif not isinstance(part, nn.Dropout):
            raise TypeError(f"no step for {type(part).__name__}")
    return steps
