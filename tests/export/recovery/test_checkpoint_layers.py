"""Checkpoints whose tensors are like a layer's and are none, and whose names or shapes give no order."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from builder import MLPSpec, RecoveryError, assemble
from export import read_checkpoint
from tests.support.recovering import mlp, recovered

ones = torch.ones
RELU: dict[str, Any] = {"activation": "relu"}


def beside(**tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    """A head, and a module with these tensors before it."""
    return {**{f"first.{name}": value for name, value in tensors.items()}, "head.weight": ones(2, 8)}


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else ones(2, 2)


def ended() -> dict[str, torch.Tensor]:
    """A module without weights between the last Linear and a scale after it."""
    blocks = [{"linear": 8}, "relu", {"linear": 2}, "tanh", "scale"]
    return assemble(MLPSpec(name="n", input={"features": 4}, blocks=blocks), seed=0).state_dict()


STATES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a weight norm of a convolution": (
        beside(weight_g=ones(8, 1, 1), weight_v=ones(8, 4, 3)), RELU, "weight-normed, and not a plain Linear"
    ),
    "a weight norm with more": (
        beside(weight_g=ones(8, 1), weight_v=ones(8, 4), mask=ones(8, 4)), RELU, "weight-normed, and not a plain Linear"
    ),
    "a weight norm of columns": (
        beside(weight_g=ones(1, 4), weight_v=ones(8, 4)), RELU, "weight-normed along another dimension than 0"
    ),
    "a batch norm without its bias": (
        beside(running_mean=ones(8), running_var=ones(8), weight=ones(8)),
        RELU,
        "like a BatchNorm1d, but its tensors do not fit one",
    ),
    "a batch norm of two widths": (
        beside(running_mean=ones(8), running_var=ones(8), weight=ones(4), bias=ones(4)),
        RELU,
        "like a BatchNorm1d, but its tensors do not fit one",
    ),
    "a linear with a mask": (
        beside(weight=ones(8, 4), mask=ones(8, 4)), RELU, "not a plain layer: besides the weight it has mask"
    ),
    "a name twice": (
        {"module.0.weight": ones(2, 2), "0.weight": ones(2, 2)},
        RELU,
        "two tensors have the same name without 'module.' and '_orig_mod.'",
    ),
    "a norm alone": (beside(weight=ones(8), bias=ones(8)), {"prefix": ["first."]}, "--prefix first.: no Linear among"),
    "dictionaries without end": (nested(150), RELU, "is nested deeper than .* levels; a state dict is not"),
    "a name twice, once in a dictionary": (
        {"a": {"b.weight": ones(2, 2), "b": {"weight": ones(2, 2)}}},
        RELU,
        r"two tensors have the name a\.b\.weight, one of them nested deeper",
    ),
    "a list of numbers": ([1, 2], RELU, "no tensors in it; expected a state dict, found a list"),
    "two options for one": (
        mlp(4, 8, 2).state_dict(),
        {"activation": "relu", "activations": ["relu"]},
        "give either --activation or --activations",
    ),
    "more at the end than there is room for": (
        ended(),
        {"activation": "relu", "output_activation": "relu+tanh"},
        r"--output-activation relu\+tanh: the indices leave room for 1 modules",
    ),
    "a module at the end": (ended(), RELU, "does not say which. What to do: add --output-activation NAME"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_no_dense_network(name: str, tmp_path: Path) -> None:
    state, options, words = STATES[name]
    with pytest.raises(RecoveryError, match=words):
        recovered(tmp_path, state, **options)


UNORDERED: dict[str, dict[str, torch.Tensor]] = {
    "alike": {"net.a.weight": ones(4, 4), "net.b.weight": ones(4, 4)},
    "a name beside the same with a number": {"net.fc.weight": ones(8, 4), "net.fc1.weight": ones(4, 8)},
    "numbers that do not chain": {"net.a1.weight": ones(8, 4), "net.a2.weight": ones(8, 4), "net.b.weight": ones(4, 8)},
    "more orders than are tried": {
        "net.odd.weight": ones(9, 9), **{f"net.{a}.weight": ones(4, 4) for a in string.ascii_lowercase[:14]}
    },
}  # fmt: skip


@pytest.mark.parametrize("name", UNORDERED)
def test_a_file_without_an_order(name: str, tmp_path: Path) -> None:
    save_file(UNORDERED[name], tmp_path / "c.safetensors")
    with pytest.raises(RecoveryError, match="keeps no order of modules, and shapes alone do not give one"):
        read_checkpoint(tmp_path / "c.safetensors", activation="relu", prefix=["net."])


def test_an_epsilon_is_the_normaliser_s_where_there_is_one(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    state |= {"norm.mean": torch.zeros(4), "norm.std": ones(4)}
    found = recovered(tmp_path, state, activation="relu", epsilon=0.5)
    assert found.weights["0.std"].tolist() == [1.5] * 4
    assert any("layer_norm with torch's eps 1e-05 (--epsilon is the normaliser's)" in note for note in found.notes)
