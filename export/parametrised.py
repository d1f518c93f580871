"""Weights that a layer computes of other tensors at every call: weight_norm, spectral_norm and their kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .errors import ExportError


def computed_weights(module: nn.Module) -> dict[int, Any]:
    """For ``copy.deepcopy``, which refuses tensors that were computed: what stands for them in the copy."""
    held = (getattr(part, hook.name, None) for part, hook in _hooked(module))
    return {id(value): value.detach().clone() for value in held if isinstance(value, torch.Tensor)}


def with_plain_weights(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, changed in place: a computed weight is a parameter with the value it has there."""
    module.eval()
    for part, hook in list(_hooked(module)):
        remove = _REMOVED[type(hook)]
        remove(part, hook)
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            _without_parametrisations(part)
    return module


def _hooked(module: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """The functions of before parametrisations: a hook computes the weight at every call."""
    for part in module.modules():
        for hook in part._forward_pre_hooks.values():
            if type(hook) in _REMOVED:
                yield part, hook


def _without_parametrisations(part: nn.Module) -> None:
    """PyTorch's own remove_parametrizations takes the property from the class, which the caller's module shares."""
    names = [name for name, _ in part.get_submodule("parametrizations").named_children()]
    with torch.random.fork_rng(devices=[]):
        values = {name: getattr(part, name).detach().clone() for name in names}
        again = next((name for name in names if not torch.equal(getattr(part, name), values[name])), None)
    if again is not None:
        raise ExportError(f"the parametrisation of '{again}' gives another value at every call; a file holds one")
    part.__class__ = type(part).__bases__[0]
    del part._modules["parametrizations"]
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _forget(part: nn.Module, hook: Any, weight: torch.Tensor, *names: str) -> None:
    key = next(key for key, held in part._forward_pre_hooks.items() if held is hook)
    del part._forward_pre_hooks[key]
    part._forward_pre_hooks_with_kwargs.pop(key, None)
    vars(part).pop(hook.name, None)
    for name in names:
        part._parameters.pop(name, None)
        part._buffers.pop(name, None)
    part.register_parameter(hook.name, nn.Parameter(weight.detach().clone(), requires_grad=False))


def _remove_weight_norm(part: nn.Module, hook: WeightNorm) -> None:
    _forget(part, hook, hook.compute_weight(part), f"{hook.name}_g", f"{hook.name}_v")


def _remove_spectral_norm(part: nn.Module, hook: SpectralNorm) -> None:
    weight = hook.compute_weight(part, do_power_iteration=False)
    _forget(part, hook, weight, f"{hook.name}_orig", f"{hook.name}_u", f"{hook.name}_v")


_REMOVED = {WeightNorm: _remove_weight_norm, SpectralNorm: _remove_spectral_norm}
