"""Models and inputs that tests and benchmarks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from builder import MLPSpec, Scale, Standardize, assemble

BLOCKS: dict[str, Any] = {
    "linear": {"linear": 7},
    "linear without bias": {"linear": {"features": 7, "bias": False}},
    "sigmoid": "sigmoid",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "leaky_relu with a negative slope": {"leaky_relu": -0.37},
    "dropout": {"dropout": 0.5},
    "elu": {"elu": 1.3},
    "tanh": "tanh",
    "gelu": "gelu",
    "gelu tanh": {"gelu": "tanh"},
    "silu": "silu",
    "softplus": "softplus",
    "softplus with a threshold": {"softplus": {"beta": 2.5, "threshold": 1.5}},
    "softmax": "softmax",
    "relu6": "relu6",
    "hardsigmoid": "hardsigmoid",
    "softsign": "softsign",
    "clip": {"clip": [-0.4, 0.9]},
    "batch_norm": "batch_norm",
    "batch_norm without weights": {"batch_norm": {"affine": False}},
    "layer_norm": "layer_norm",
    "layer_norm without weights": {"layer_norm": {"elementwise_affine": False}},
    "layer_norm without bias": {"layer_norm": {"bias": False}},
    "flatten": "flatten",
    "identity": "identity",
    "standardize": {"standardize": {"mean": 0.7, "std": 1.9}},
    "scale": {"scale": {"factor": -2.5, "offset": 0.3}},
    "impute": {"impute": 0.4},
    "residual": {"residual": ["tanh", {"scale": {"factor": 0.5, "offset": 0.1}}]},
}
"""Every block of a spec, with options that matter, by a name for the test's output."""


WIDTHS = {
    "tiny": [8, 16, 16, 1],
    "small": [64, 256, 256, 10],
    "medium": [784, 1024, 1024, 10],
    "large": [1024, 4096, 4096, 1000],
    "deep": [64] * 33,
}
"""The networks that speed is measured on: Linear layers of these widths with ReLU between."""


def relu_network(name: str) -> tuple[MLPSpec, nn.Sequential]:
    """One of ``WIDTHS`` with random weights, in evaluation mode."""
    first, *hidden, last = WIDTHS[name]
    blocks = [block for width in hidden for block in ({"linear": width}, "relu")]
    spec = MLPSpec(name=name, input={"features": first}, blocks=[*blocks, {"linear": last}])
    return spec, assemble(spec).eval()


def network(blocks: list[Any], features: int = 7, seed: int = 0, **spec: Any) -> tuple[MLPSpec, nn.Sequential]:
    """A spec and its network with every constant away from its default, in evaluation mode."""
    described = MLPSpec(name="case", input={"features": features}, blocks=blocks, **spec)
    return described, randomised(assemble(described, seed=seed), seed)


def randomised(module: nn.Sequential, seed: int) -> nn.Sequential:
    """The module with statistics, norms and constants as training might leave them, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.LayerNorm):
            for values in part.parameters():
                values.data.normal_(0.5, 1, generator=generator)
        if isinstance(part, nn.BatchNorm1d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 1, generator=generator)
            part.running_var.uniform_(0.2, 3, generator=generator)
        if isinstance(part, Standardize) and not part.declared:
            part.mean.normal_(0, 1, generator=generator)
            part.std.uniform_(0.2, 3, generator=generator)
        if isinstance(part, Scale) and not part.declared:
            part.factor.normal_(0, 1, generator=generator)
            part.offset.normal_(0, 1, generator=generator)
    return module.eval()


def normal(rows: int, features: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 rows."""
    return np.random.default_rng(seed).standard_normal((rows, features), dtype=np.float32)


EXTREMES = np.array(
    [
        *(0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1e4, -1e4, 1e30, -1e30),
        *(np.inf, -np.inf, np.nan, 20.0, -18.0, 88.8, -104.0),
    ],
    dtype=np.float32,
)
"""Values at which a float32 implementation may go wrong."""

SLOPES = st.floats(-2, 2, width=32, allow_nan=False)
_PLAIN = ["sigmoid", "relu", "elu", "tanh", "gelu", "silu", "softplus", "softmax", "relu6", "hardsigmoid", "flatten"]
_PLAIN += ["softsign", "identity", "batch_norm", "layer_norm", "standardize", "scale", "dropout", "leaky_relu"]

ELEMENTWISE = st.one_of(
    st.sampled_from(_PLAIN),
    st.builds(lambda slope: {"leaky_relu": slope}, SLOPES),
    st.builds(lambda alpha: {"elu": alpha}, st.floats(0.125, 3, width=32)),
    st.builds(lambda p: {"dropout": p}, st.sampled_from([0.0, 0.5, 1.0])),
    st.just({"gelu": "tanh"}),
    st.builds(lambda low, high: {"clip": [-low, high]}, st.floats(0.125, 3, width=32), st.floats(0.125, 3, width=32)),
)
"""Blocks that keep the number of features."""


@st.composite
def specs(draw: st.DrawFn, deepest: int = 12, widest: int = 512) -> MLPSpec:
    """Networks of every block: 1 to ``deepest`` blocks that act, 1 to ``widest`` features."""
    widths = st.one_of(st.integers(1, 16), st.integers(1, widest))
    linear = st.builds(lambda width, bias: {"linear": {"features": width, "bias": bias}}, widths, st.booleans())
    residual = st.builds(lambda inner: {"residual": inner}, st.lists(ELEMENTWISE, min_size=1, max_size=3))
    blocks = draw(st.lists(st.one_of(linear, ELEMENTWISE, residual), max_size=deepest - 1))
    blocks.insert(draw(st.integers(0, len(blocks))), draw(linear))  # something acts in evaluation mode
    return MLPSpec(name="generated", input={"features": draw(widths)}, blocks=blocks)
