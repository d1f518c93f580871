"""A module that a user names: ``package.module:factory`` or ``path/to/file.py:name``."""

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

from .errors import ExportError


def load_module(reference: str, *, weights: str | Path | None = None, seed: int | None = None) -> nn.Module:
    """The ``nn.Module`` that ``reference`` names, or that the class or function it names gives when called.

    One that has other weights at every call is random: ``weights`` (safetensors or ``torch.save``) are loaded into it,
    or ``seed`` says aloud that they are random, and which. This imports, and so runs, the code it names.
    Raises ExportError: what was not found, or random weights that nobody asked for; WeightsError.
    """
    home, colon, name = reference.rpartition(":")
    if not colon or not home or not name:
        raise ExportError(f"a module is named as package.module:factory or path/to/file.py:name, not '{reference}'")
    code = _from_file(Path(home)) if home.endswith(".py") else _from_package(home)
    try:
        found: object = attrgetter(name)(code)
    except AttributeError:
        known = [key for key in vars(code) if not key.startswith("_")]
        raise ExportError(f"{home} has no '{name}'; it has {', '.join(known) or 'nothing'}") from None
    if not isinstance(found, nn.Module):
        if not callable(found):
            message = f"{reference} is a {type(found).__name__}; expected an nn.Module or a function that gives one"
            raise ExportError(message)
        make = found
        found = _called(make, reference, seed or 0)
        if weights is None and seed is None and _differ(found, _called(make, reference, 1)):
            message = f"{reference} is a new network at every call, with random weights"
            hint = "give trained weights (--weights FILE), or say that random ones are meant (--seed 0)"
            raise ExportError(f"{message}. What to do: {hint}")
    if not isinstance(found, nn.Module):
        raise ExportError(f"{reference} gave a {type(found).__name__}; expected an nn.Module")
    if weights is not None:
        load_weights(found, weights)
    return found


def _called(make: Callable[[], object], reference: str, seed: int) -> object:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make()
    except Exception as error:  # the caller's code: it may raise anything
        message = f"{reference} is called without arguments, and that ended with {type(error).__name__}: {error}"
        raise ExportError(message) from error


def _differ(one: object, other: object) -> bool:
    """Whether both are networks, and a tensor of the first has other values in the second, which NaN equals."""
    if not isinstance(one, nn.Module) or not isinstance(other, nn.Module):
        return False
    held = other.state_dict()
    for key, value in one.state_dict().items():
        if isinstance(value, torch.Tensor):
            again = held.get(key)
            if not isinstance(again, torch.Tensor):
                return True
            if not value.is_meta and not torch.equal(value.nan_to_num(), again.nan_to_num()):
                return True
    return False


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, code)
    sys.path.insert(0, str(path.parent.resolve()))  # as if it were run: it may import what lies beside it
    try:
        spec.loader.exec_module(code)
    except (Exception, SystemExit) as error:  # the caller's code: it may raise anything
        raise ExportError(f"{path}: running it ended with {type(error).__name__}: {error}") from error
    return code


def _from_package(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the caller's code: it may raise anything
        raise ExportError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
