"""Where a call comes from: the path of a module and a line of the user's code, read off the Python stack."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import cast

import torch
from torch import nn

from builder.blocks import BLOCKS

_TORCH = str(Path(torch.__file__).parent)
_THIS_FOLDER = str(Path(__file__).parent)
_PACKAGE = str(Path(__file__).parent.parent)
_BLOCK_PACKAGES = ("torch.nn.", "builder.")
_BLOCK_NAMES = {block.torch_name: block.kind for block in BLOCKS.values()}


@dataclass(frozen=True)
class CallSite:
    """Where an operator is called: ``scope`` is the path of the module whose forward runs, ``line`` a line of code.

    ``home`` is the path of the building block that the module is, and ``block`` that block's name in a spec; both are
    empty where the module is code of the user's own.
    """

    scope: str
    home: str
    block: str
    line: str

    def path_of(self, op: str) -> str:
        """The path of a node: its building block's, else the operator's name below its module's."""
        return self.home or (f"{self.scope}.{op}" if self.scope else op)


def _class_name(part: nn.Module) -> str:
    """The name of a module's class; PyTorch puts a word in front of that of a parametrised layer."""
    return type(part).__name__.removeprefix("Parametrized")


def _is_leaf(part: nn.Module) -> bool:
    """Whether a module has no children but those that compute its own weights."""
    return all(name == "parametrizations" for name, _ in part.named_children())


class CallSites:
    """Finds the call site of the operator that runs now, by the paths of a module's parts."""

    def __init__(self, module: nn.Module):
        parts = cast("Iterable[tuple[str, nn.Module]]", module.named_modules())
        self._paths = {id(part): path for path, part in parts}
        self._call_counts: dict[str, int] = {}
        self._forward: FrameType | None = None
        self._home = ""

    def current(self) -> CallSite:
        """The innermost module whose forward is on the stack, and the innermost line of the user's code."""
        frame = inspect.currentframe()
        frame = None if frame is None else frame.f_back
        line, scope, home, block = "", None, "", ""
        while frame is not None and (scope is None or not line):
            file = frame.f_code.co_filename
            if file.startswith(_PACKAGE) and not file.startswith(_THIS_FOLDER):
                break
            if not line and not file.startswith((_TORCH, _THIS_FOLDER)) and not file.startswith("<"):
                line = f"line {frame.f_lineno} of {Path(file).name}"
            if scope is None and frame.f_code.co_varnames[:1] == ("self",):
                part = frame.f_locals.get("self")
                if isinstance(part, nn.Module) and id(part) in self._paths and not file.startswith(_THIS_FOLDER):
                    scope = self._paths[id(part)]
                    if type(part).__module__.startswith(_BLOCK_PACKAGES) and _is_leaf(part):
                        name = _class_name(part)
                        block = _BLOCK_NAMES.get(name, name.lower())
                        home = self._home_of(scope, frame, block)
            frame = frame.f_back
        return CallSite(scope or "", home, block, line)

    def _home_of(self, path: str, frame: FrameType, block: str) -> str:
        """A block's path, with a number from its second call on; one call may run several operators."""
        path = path or block
        forward = frame
        while forward.f_back is not None and forward.f_back.f_locals.get("self") is frame.f_locals["self"]:
            forward = forward.f_back
        if forward is not self._forward:
            self._forward = forward
            count = self._call_counts.get(path, 0)
            self._call_counts[path] = count + 1
            self._home = f"{path}_{count}" if count else path
        return self._home
