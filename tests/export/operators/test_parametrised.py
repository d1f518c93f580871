"""Layers whose weight is computed at every call: the file holds the weight, and the caller's module stays as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from export import publish


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: deprecated
        return nn.utils.weight_norm(layer)


class Doubled(nn.Module):
    """A parametrisation of the user's own."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def own(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight_norm by hooks": old_weight_norm,
    "spectral_norm by hooks": nn.utils.spectral_norm,
    "the user's own": own,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_the_weight_that_is_used(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(KINDS[kind](nn.Linear(6, 4)), nn.ReLU(), KINDS[kind](nn.Linear(4, 3)))
    module(torch.randn(5, 6))  # a step of training: spectral_norm's vectors move
    before = {key: value.clone() for key, value in module.state_dict().items()}
    kinds = [type(part) for part in module.modules()]
    hooks = [len(part._forward_pre_hooks) for part in module.modules()]
    artifact, report = publish(module, tmp_path / "m.onnx", device="cpu", page=False)
    assert report is not None
    assert report.proved
    assert [type(part) for part in module.modules()] == kinds
    assert module.training
    assert [len(part._forward_pre_hooks) for part in module.modules()] == hooks
    assert {key: value.tolist() for key, value in module.state_dict().items()} == {
        k: v.tolist() for k, v in before.items()
    }
    module.eval()(torch.zeros(1, 6))
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(artifact.path)).graph.initializer}
    for index in (0, 2):
        for name in (f"{index}.weight", f"{index}.bias"):
            assert torch.equal(torch.from_numpy(held[name].copy()), attrgetter(name)(module).detach())
    module.train()(torch.randn(5, 6))  # still trains
