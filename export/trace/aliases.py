"""Who shares whose memory, so that a write in place is seen by everyone who looks at it.

A memory has a content: a value of the graph, or a constant. A tensor is a chain of views of it. A write gives the
memory a new content, made by the views' inverses; whoever reads an older view then looks through its views again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from export.errors import ExportError
from export.evaluation import schema


@dataclass(frozen=True)
class Call:
    """An operator and its arguments by name: tensors, names of values, and everything else."""

    op: str
    overload: str
    arguments: dict[str, Any]


class Value(str):
    """The name of a value of the graph, told apart from options that are words."""


Content = Value | Tensor
"""A value of the graph, or a constant."""
Emit = Callable[[Call, tuple[int, ...], torch.dtype], Value]


@dataclass(frozen=True)
class View:
    """One view of a tensor of shape ``before``: ``op`` with its arguments, to the shape ``after``."""

    op: str
    overload: str
    options: dict[str, Any]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def call(self, source: Content) -> Call:
        return Call(self.op, self.overload, {"self": source, **self.options})


@dataclass
class _Memory:
    base: Tensor
    content: Content
    version: int = 0


@dataclass
class Alias:
    """What a tensor is of its memory, and the value that it held at one version of it."""

    tensor: Tensor
    memory: _Memory
    views: tuple[View, ...]
    content: Content
    version: int = 0


class Memories:
    """Every tensor that was seen while recording. ``emit`` adds a node and gives the name of its value."""

    def __init__(self, emit: Emit):
        self._emit = emit
        self._aliases: dict[int, Alias] = {}
        self._by_storage: dict[int, list[Alias]] = {}

    def value(self, tensor: Tensor, name: Value) -> None:
        """A new memory that holds a value of the graph."""
        self._hold(tensor, _Memory(tensor, name), (), name)

    def constant(self, tensor: Tensor, source: Tensor | None = None, view: View | None = None) -> None:
        """A tensor that no input has a part in; of ``source``'s memory where it is a view of it."""
        if source is None or view is None or id(tensor) in self._aliases:
            self._alias(tensor)
        else:
            of = self._alias(source)
            self._hold(tensor, of.memory, (*of.views, view), tensor)

    def derived(self, tensor: Tensor, source: Tensor, view: View | None = None, *, copied: bool) -> None:
        """A tensor with the content of another, or of a view of it; in memory of its own if ``copied``."""
        if tensor is source:
            return
        content, of = self.read(source), self._alias(source)
        if view is not None:
            content = self._emit(view.call(content), view.after, tensor.dtype)
        if copied:
            self._hold(tensor, _Memory(tensor, content), (), content)
        else:
            self._hold(tensor, of.memory, of.views if view is None else (*of.views, view), content)

    def tracked(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the input."""
        return isinstance(self._alias(tensor).memory.content, Value)

    def read(self, tensor: Tensor) -> Content:
        """What a tensor holds now."""
        alias = self._alias(tensor)
        if not isinstance(alias.memory.content, Value):
            return tensor
        if alias.version != alias.memory.version or not isinstance(alias.content, Value):
            alias.content = self._through(alias.memory.content, alias.views, tensor.dtype)[-1]
            alias.version = alias.memory.version
        return alias.content

    def before_write(self, tensor: Tensor) -> None:
        """Keep what a memory of constants holds, before the tensor is overwritten."""
        memory = self._alias(tensor).memory
        if isinstance(memory.content, Tensor):
            memory.content = memory.base.clone()

    def write(self, tensor: Tensor, result: Tensor) -> None:
        """The tensor's memory after ``result`` was written to it."""
        alias, content = self._alias(tensor), self.read(result)
        if isinstance(content, Tensor):
            content = content.clone()
        parents = self._through(alias.memory.content, alias.views[:-1], tensor.dtype)
        new = content
        for view, parent in zip(reversed(alias.views), reversed(parents), strict=False):
            new = self._undo(view, parent, new, tensor.dtype)
        alias.memory.content = new
        alias.memory.version += 1
        alias.content, alias.version = content, alias.memory.version

    def _through(self, content: Content, views: tuple[View, ...], dtype: torch.dtype) -> list[Content]:
        """The content of a memory, and what each view makes of it."""
        contents = [content]
        for view in views:
            contents.append(self._apply(view.call(contents[-1]), view.after, dtype))
        return contents

    def _undo(self, view: View, parent: Content, new: Content, dtype: torch.dtype) -> Content:
        """The parent of a view after ``new`` was written through it."""
        if view.op == "reshape":
            return self._apply(Call("reshape", "default", {"self": new, "shape": view.before}), view.before, dtype)
        if view.op == "permute":
            back = tuple(sorted(range(len(view.before)), key=lambda axis: view.options["dims"][axis]))
            return self._apply(Call("permute", "default", {"self": new, "dims": back}), view.before, dtype)
        if view.op not in ("select", "slice"):
            raise ExportError(f"the forward writes in place through {view.op}; a file cannot say that")
        dim = view.options["dim"]
        size = view.before[dim]
        if view.op == "select":
            positions = [view.options["index"]]
            shape = (*view.before[:dim], 1, *view.before[dim + 1 :])
            new = self._apply(Call("reshape", "default", {"self": new, "shape": shape}), shape, dtype)
        else:
            positions = list(range(size))[view.options["start"] : view.options["end"] : view.options["step"]]
        if len(positions) == size:
            return new
        order = torch.arange(size)
        order[positions] = size + torch.arange(len(positions))
        both = (*view.before[:dim], size + len(positions), *view.before[dim + 1 :])
        joined = self._apply(Call("cat", "default", {"tensors": [parent, new], "dim": dim}), both, dtype)
        return self._apply(
            Call("index_select", "default", {"self": joined, "dim": dim, "index": order}), view.before, dtype
        )

    def _apply(self, call: Call, shape: tuple[int, ...], dtype: torch.dtype) -> Content:
        """What a call gives: the value of a node, or a constant where it takes constants alone."""
        if any(isinstance(part, Value) for part in tree_leaves(call.arguments)):
            return self._emit(call, shape, dtype)
        return schema(call.op, call.overload)[0](**call.arguments)

    def _hold(self, tensor: Tensor, memory: _Memory, views: tuple[View, ...], content: Content) -> None:
        alias = Alias(tensor, memory, views, content, memory.version)
        self._aliases[id(tensor)] = alias
        self._by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(alias)

    def _alias(self, tensor: Tensor) -> Alias:
        if id(tensor) not in self._aliases:
            alike = self._alike(tensor)
            if alike is not None:  # a tensor that was made out of sight, such as x.data
                self._hold(tensor, alike.memory, alike.views, alike.content)
            else:
                self._hold(tensor, _Memory(tensor, tensor), (), tensor)
        return self._aliases[id(tensor)]

    def _alike(self, tensor: Tensor) -> Alias | None:
        """A tensor that is the same piece of the same memory."""
        aliases = self._by_storage.get(tensor.untyped_storage()._cdata, [])
        return next((alias for alias in aliases if _piece(alias.tensor) == _piece(tensor)), None)


def _piece(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()
