"""The networks that the gates are tested on: the models of this repository, generated, hand-written and large ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from benchmarks.modules import written
from builder import MLPSpec, assemble, load_spec, load_weights
from tests.support.cases import randomised

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("digits", "breast_cancer", "diabetes")
MOST_PARAMETERS = 4_000_000
LARGE: dict[str, tuple[list[int], list[Any]]] = {
    "784-1024-1024-10": ([784, 1024, 1024, 10], ["relu"]),
    "1024-4096-4096-1000": ([1024, 4096, 4096, 1000], ["leaky_relu"]),
    "2048 four times": ([2048] * 5, ["batch_norm", "gelu", {"dropout": 0.1}]),
    "512 sixteen times": ([512] * 17, ["silu"]),
    "4096-1024-1024-4096": ([4096, 1024, 1024, 4096], ["hardsigmoid"]),
}
"""Widths, and the blocks between two linear layers."""
POLICY = "policy"
_SHAPES = LARGE | {POLICY: ([154, 512, 256, 128, 29], ["elu"])}
"""With the widths of a humanoid's walking policy."""
_BETWEEN: list[Any] = [
    "relu",
    "leaky_relu",
    "hardsigmoid",
    "gelu",
    "sigmoid",
    "tanh",
    "elu",
    "silu",
    "softplus",
    "relu6",
]
_BETWEEN += [{"gelu": "tanh"}, {"leaky_relu": 0.2}, {"clip": [-2, 2]}]


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, and the spec or the example that export and verify need with it."""

    module: nn.Module
    spec: MLPSpec | None = None
    example: tuple[Tensor, ...] | None = None


def named(name: str) -> Network:
    """What ``network`` knows, or ``written N``: a module with a forward of its own."""
    if name.startswith("written "):
        module, example = written(int(name.removeprefix("written ")))
        return Network(module, example=example)
    spec, module = network(name)
    return Network(module, spec)


def network(name: str) -> tuple[MLPSpec, nn.Sequential]:
    """``digits`` and the others of ``models``, ``generated N``, ``POLICY`` or one of ``LARGE``, in evaluation mode."""
    if name in MODELS:
        spec = load_spec(ROOT / "models" / name / "spec.yaml")
        module = assemble(spec)
        load_weights(module, ROOT / "models" / name / "weights.safetensors")
        return spec, module.eval()
    if name in _SHAPES:
        widths, between = _SHAPES[name]
        blocks = [block for width in widths[1:-1] for block in ({"linear": width}, *between)]
        spec = MLPSpec(name="large", input={"features": widths[0]}, blocks=[*blocks, {"linear": widths[-1]}])
        return spec, randomised(assemble(spec, seed=0), 0)
    seed = int(name.removeprefix("generated "))
    spec = generated(np.random.default_rng(seed))
    return spec, randomised(assemble(spec, seed=seed), seed)


def generated(rng: np.random.Generator) -> MLPSpec:
    """Widths 4 to 2048, 1 to 16 linear layers, at most 4 M parameters; norms, dropout and residuals here and there."""
    while True:
        depth = int(rng.integers(1, 17))
        widest = exp(rng.uniform(log(8), log(2048)))
        widths = [round(exp(rng.uniform(log(4), log(widest)))) for _ in range(depth + 1)]
        if rng.random() < 0.3:  # as in many networks: one width inside
            widths[1:-1] = [widths[1]] * max(0, depth - 1)
        if sum(a * b + b for a, b in pairwise(widths)) <= MOST_PARAMETERS:
            break
    blocks: list[Any] = ["standardize"] if rng.random() < 0.4 else []
    for index, width in enumerate(widths[1:]):
        blocks.append({"linear": {"features": width, "bias": bool(rng.random() < 0.9)}})
        if index == depth - 1:
            break
        if rng.random() < 0.2:
            blocks.append("batch_norm")
        blocks.append(_BETWEEN[rng.integers(len(_BETWEEN))])
        if rng.random() < 0.3:
            blocks.append({"dropout": 0.2})
        if rng.random() < 0.1:
            blocks.append({"residual": ["tanh", "scale"]} if rng.random() < 0.5 else "layer_norm")
    if rng.random() < 0.3:
        blocks.append(["softmax", "sigmoid", "scale", "tanh"][rng.integers(4)])
    return MLPSpec(name="generated", input={"features": widths[0]}, blocks=blocks)
