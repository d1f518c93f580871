"""Where a call comes from: the path of a module and a line of the user's code, read off the Python stack."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from builder.blocks import BLOCKS

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)
_PACKAGE = str(Path(__file__).parent.parent)
_HOMES = ("torch.nn.", "builder.")
_BLOCKS = {block.torch_name: block.kind for block in BLOCKS.values()}


@dataclass(frozen=True)
class Place:
    """``scope`` is the module whose forward runs; ``home`` too where that is a building block, whole in itself."""

    scope: str
    home: str
    block: str
    line: str

    def path_of(self, op: str) -> str:
        """The path of a node: that of its building block, else the operator's name within its module."""
        return self.home or (f"{self.scope}.{op}" if self.scope else op)


def _plain(part: nn.Module) -> str:
    """The name of its class; that of a parametrised layer has a word in front."""
    return type(part).__name__.removeprefix("Parametrized")


def _is_whole(part: nn.Module) -> bool:
    """Whether a module has no parts but what computes its own weights."""
    return all(name == "parametrizations" for name, _ in part.named_children())


class Places:
    """The paths of a module's parts, and what is running now."""

    def __init__(self, module: nn.Module):
        self._paths = {id(part): path for path, part in module.named_modules()}
        self._calls: dict[str, int] = {}
        self._frame: FrameType | None = None
        self._home = ""

    def here(self) -> Place:
        """The innermost module whose forward is on the stack, and the innermost line of code that is the user's."""
        frame: FrameType | None = sys._getframe(1)
        line, scope, home, block = "", None, "", ""
        while frame is not None and (scope is None or not line):
            name = frame.f_code.co_filename
            if name.startswith(_PACKAGE) and not name.startswith(_OURS):
                break
            if not line and not name.startswith((_TORCH, _OURS)) and not name.startswith("<"):
                line = f"line {frame.f_lineno} of {Path(name).name}"
            if scope is None and frame.f_code.co_varnames[:1] == ("self",):
                part = frame.f_locals.get("self")
                if isinstance(part, nn.Module) and id(part) in self._paths and not name.startswith(_OURS):
                    scope = self._paths[id(part)]
                    if type(part).__module__.startswith(_HOMES) and _is_whole(part):
                        block = _BLOCKS.get(_plain(part), _plain(part).lower())
                        home = self._home_of(scope, frame, block)
            frame = frame.f_back
        return Place(scope or "", home, block, line)

    def _home_of(self, path: str, frame: FrameType, block: str) -> str:
        """A block that is called again has the name with a number; one call may be several operators."""
        path = path or block
        forward = frame
        while forward.f_back is not None and forward.f_back.f_locals.get("self") is frame.f_locals["self"]:
            forward = forward.f_back
        if forward is not self._frame:
            self._frame = forward
            count = self._calls.get(path, 0)
            self._calls[path] = count + 1
            self._home = f"{path}_{count}" if count else path
        return self._home
