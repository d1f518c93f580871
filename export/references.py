"""A module that a user names: ``package.module:factory`` or ``path/to/file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from .errors import ExportError


def load_module(reference: str) -> nn.Module:
    """The ``nn.Module`` that ``reference`` names, or that the class or function it names gives when called.

    This imports, and so runs, the code it names. Raises ExportError naming what was not found.
    """
    home, colon, name = reference.rpartition(":")
    if not colon or not home or not name:
        raise ExportError(f"a module is named as package.module:factory or path/to/file.py:name, not '{reference}'")
    code = _from_file(Path(home)) if home.endswith(".py") else _from_package(home)
    found: object = code
    for part in name.split("."):
        if not hasattr(found, part):
            known = [key for key in vars(code) if not key.startswith("_")]
            raise ExportError(f"{home} has no '{name}'; it has {', '.join(known) or 'nothing'}")
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ExportError(
                f"{reference} is a {type(found).__name__}; expected an nn.Module or a function that gives one"
            )
        try:
            found = found()
        except Exception as error:  # the caller's code: it may raise anything
            message = f"{reference} is called without arguments, and that ended with {type(error).__name__}: {error}"
            raise ExportError(message) from error
    if not isinstance(found, nn.Module):
        raise ExportError(f"{reference} gave a {type(found).__name__}; expected an nn.Module")
    return found


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
