"""Modules by reference: ``package.module:factory`` or ``path/to/file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from builder import load_weights
from builder.random_state import kept_random_state

from .errors import ExportError


def load_module(reference: str, *, weights: str | Path | None = None, seed: int | None = None) -> nn.Module:
    """The ``nn.Module`` that ``reference`` names, or that the class or function it names returns.

    A function whose modules have other weights at every call needs ``weights`` (safetensors or ``torch.save``), which
    are loaded, or a ``seed`` for random ones. This imports, and so runs, the code that is named.
    Raises ExportError: nothing of that name, or random weights without a seed; WeightsError.

    Examples:
        >>> from export import load_module
        >>> load_module("torch.nn:Tanh")
        Tanh()
    """
    home, colon, name = reference.rpartition(":")
    if not colon or not home or not name:
        raise ExportError(f"a module is named as package.module:factory or path/to/file.py:name, not '{reference}'")
    code = _from_file(Path(home)) if home.endswith(".py") else _from_package(home)
    try:
        module: object = attrgetter(name)(code)
    except AttributeError:
        known = [key for key in vars(code) if not key.startswith("_")]
        raise ExportError(f"{home} has no '{name}'; it has {', '.join(known) or 'nothing'}") from None
    if not isinstance(module, nn.Module):
        if not callable(module):
            message = f"{reference} is a {type(module).__name__}; expected an nn.Module or a function that returns one"
            raise ExportError(message)
        factory = module
        module = _call(factory, reference, seed or 0)
        if weights is None and seed is None and _differ(module, _call(factory, reference, 1)):
            message = f"{reference} returns a new network with random weights at every call"
            hint = "give trained weights (--weights FILE), or a seed for random ones (--seed 0)"
            raise ExportError(f"{message}. What to do: {hint}")
    if not isinstance(module, nn.Module):
        raise ExportError(f"{reference} returned a {type(module).__name__}; expected an nn.Module")
    if weights is not None:
        load_weights(module, weights)
    return module


def _call(factory: Callable[[], object], reference: str, seed: int) -> object:
    try:
        with kept_random_state(seed):
            return factory()
    except (Exception, SystemExit) as error:  # the caller's code: it may raise anything
        message = f"{reference} was called without arguments and raised {type(error).__name__}: {error}"
        raise ExportError(message) from error


def _differ(module: object, other: object) -> bool:
    """Whether both are modules, and a tensor of the first has other values in the second; NaN equals NaN."""
    if not isinstance(module, nn.Module) or not isinstance(other, nn.Module):
        return False
    other_state = other.state_dict()
    for key, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            other_value = other_state.get(key)
            if not isinstance(other_value, torch.Tensor):
                return True
            if not value.is_meta and not torch.equal(value.nan_to_num(), other_value.nan_to_num()):
                return True
    return False


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, code)
    sys.path.insert(0, str(path.parent.resolve()))  # as if it were run: it may import what lies beside it
    try:
        spec.loader.exec_module(code)
    except (Exception, SystemExit) as error:  # the caller's code: it may raise anything
        raise ExportError(f"{path}: running it raised {type(error).__name__}: {error}") from error
    return code


def _from_package(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the caller's code: it may raise anything
        raise ExportError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
