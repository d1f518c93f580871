"""What a file cannot hold, each kind with its sentence and what to do, and where it was called.

The place in the module, and the line of the user's code, are read off the Python stack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from builder.blocks import BLOCKS

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)
_PACKAGE = str(Path(__file__).parent.parent)
_HOMES = ("torch.nn.", "builder.")
_BLOCKS = {block.torch_name: block.kind for block in BLOCKS.values()}


@dataclass(frozen=True)
class Refusal:
    """One reason: what was called, at which module's path and which line of the user's code."""

    kind: str
    what: str
    path: str
    line: str
    detail: str = ""

    def __str__(self) -> str:
        op = self.what.rpartition(".")[0] or self.what
        place = ", ".join(part for part in (self.path and f"'{self.path}'", self.line) if part)
        words = _SENTENCES[_KIND_OF.get(op, self.kind)]
        return words.format(op=op, detail=self.detail, at=place and f" at {place}")


_SENTENCES = {
    "operator": "no operator of a file for {op}{at}. What to do: write it with operators that docs/export.md lists",
    "data": "the forward depends on the data{at}: {op} takes a value of the input to decide with, and a file has one "
    "way for every input. What to do: write it with torch.where",
    "random": "{op}{at} draws random numbers, so two runs would differ. What to do: take sampling out of it",
    "buffer": "the forward changes '{detail}' in place{at}; a file cannot do that. What to do: return the new value "
    "instead",
    "dtype": "{op}{at} computes in {detail}, and a file computes in float32. What to do: .float() before it, and no "
    "autocast",
    "out": "{op}{at} writes into out=, or changes a shape in place. What to do: use what it returns",
    "sparse": "{op}{at} takes a sparse tensor, and a file holds dense ones. What to do: .to_dense() before it",
    "classes": "{op}{at} counts its classes in the data. What to do: give num_classes",
    "places": "{op}{at} tells where sorted values stood, and equal ones may stand in any order. What to do: use its "
    "values alone",
    "dropout": "{op}{at}: this dropout stays active in evaluation mode; call it with training=self.training, or let "
    "eval() reach it",
    "max_norm": "{op}{at} shortens rows of '{detail}' to max_norm at every call; a file cannot do that. What to do: "
    "shorten the table once, and take max_norm away",
    "shapes": "the number of its results depends on the data{at}: {op}. What to do: write it with torch.where",
    "convolution": "{op}{at} is a convolution or a pooling, and mlpx is for dense networks. What to do: export it by "
    "torch.onnx, and what follows it by mlpx",
    "recurrent": "{op}{at} is a recurrent cell, and mlpx is for networks without a state. What to do: export it by "
    "torch.onnx",
}
"""By the kind of refusal, or the kind of operator."""
_KINDS = {
    "dropout": ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    "max_norm": ("embedding_renorm_",),
    "shapes": ("nonzero", "masked_select", "unique", "_unique2", "unique_dim"),
    "convolution": (
        *("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d", "max_pool1d", "max_pool2d", "avg_pool1d"),
        *("avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "max_pool2d_with_indices", "_convolution"),
        *("mkldnn_convolution", "adaptive_max_pool1d", "max_pool1d_with_indices", "upsample_nearest2d"),
    ),
    "recurrent": ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell"),
    "places": ("sort", "topk", "argsort", "msort", "kthvalue", "median", "mode"),
}
"""Operators whose refusal has a sentence of its own, whatever the reason is."""
_KIND_OF = {op: kind for kind, ops in _KINDS.items() for op in ops}
_DATA_DEPENDENT = ("_local_scalar_dense", "item", "is_nonzero", "equal", *_KINDS["shapes"])
_UNSUPPORTED = {*_KINDS["convolution"], *_KINDS["recurrent"], *_KINDS["places"], "embedding_bag"} - {"sort", "topk"}


def refusal_of(name: str, args: Sequence[Any], tracked: Callable[[Tensor], bool]) -> str | None:
    """The kind of refusal that a call on values of the input is; None where it is none by itself."""
    op = name.partition(".")[0]
    if op in _DATA_DEPENDENT:
        return "data"
    if op in _UNSUPPORTED:
        return "operator"
    if name == "one_hot.default" and (args[1] if len(args) > 1 else -1) < 0:
        return "classes"
    if name not in ("index.Tensor", "index_put.default"):
        return None
    indices = [index for index in args[1] if index is not None]
    moving = [index for index in indices if tracked(index)]
    if name == "index_put.default":
        accumulates = len(args) > 3 and args[3]
        by_mask = len(indices) == 1 and _is_mask(indices[0])
        return "operator" if accumulates or (moving and not by_mask) else None
    if moving and _is_mask(moving[0]):
        return "data"
    of_table = not tracked(args[0]) and len(indices) == 1 and args[1][0] is not None
    return "operator" if moving and not of_table else None


def _is_mask(index: Tensor) -> bool:
    return str(index.dtype) in ("torch.bool", "torch.uint8")


def told(refusals: Iterable[Refusal]) -> str:
    """All of them in one message, each once."""
    words = list(dict.fromkeys(map(str, refusals)))
    return words[0] if len(words) == 1 else "; ".join(f"({i}) {each}" for i, each in enumerate(words, 1))


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

    def refusal(self, kind: str, what: str, detail: str = "") -> Refusal:
        """Why the call that runs now cannot be in a file."""
        place = self.here()
        return Refusal(kind, what, place.home or place.scope, place.line, detail)
