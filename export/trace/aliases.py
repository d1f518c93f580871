"""Alias analysis: which tensors share memory, so that a write in place is seen through every view of it.

A storage has a content: a value of the graph, or a constant. A tensor is a chain of views of its storage. A write gives
the storage a new content, computed by the inverses of the views; a tensor read later applies its views to that again.
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

from .indexing import scatter_order


@dataclass(frozen=True)
class Call:
    """An ATen operator and its arguments by name: tensors, names of values, and options."""

    op: str
    overload: str
    arguments: dict[str, Any]


class Value(str):
    """The name of a value of the graph; a type of its own, since options may be strings too."""


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
        """The operator's call on what the view is of."""
        return Call(self.op, self.overload, {"self": source, **self.options})


@dataclass
class _Storage:
    """Memory that tensors share. ``version`` counts the writes."""

    base: Tensor
    content: Content
    version: int = 0


@dataclass
class Alias:
    """A tensor as a chain of views of its storage, and its content at one version of the storage."""

    tensor: Tensor
    storage: _Storage
    views: tuple[View, ...]
    content: Content
    version: int = 0


class Aliases:
    """The alias of every tensor seen while recording. ``emit`` adds a node and returns the name of its value."""

    def __init__(self, emit: Emit):
        self._emit = emit
        self._aliases: dict[int, Alias] = {}
        self._by_storage: dict[int, list[Alias]] = {}

    def add_value(self, tensor: Tensor, name: Value) -> None:
        """A tensor with a new storage that holds a value of the graph."""
        self._add(tensor, _Storage(tensor, name), (), name)

    def add_constant(self, tensor: Tensor, source: Tensor | None = None, view: View | None = None) -> None:
        """A tensor that does not depend on the input; in the storage of ``source`` where it is a view of it."""
        if source is None or view is None or id(tensor) in self._aliases:
            self._alias(tensor)
        else:
            base = self._alias(source)
            self._add(tensor, base.storage, (*base.views, view), tensor)

    def add_derived(self, tensor: Tensor, source: Tensor, view: View | None = None, *, copied: bool) -> None:
        """A tensor with the content of another, or of a view of it; in a new storage if ``copied``."""
        if tensor is source:
            return
        content, base = self.read(source), self._alias(source)
        if view is not None:
            content = self._emit(view.call(content), view.after, tensor.dtype)
        if copied:
            self._add(tensor, _Storage(tensor, content), (), content)
        else:
            self._add(tensor, base.storage, base.views if view is None else (*base.views, view), content)

    def tracked(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the input."""
        return isinstance(self._alias(tensor).storage.content, Value)

    def read(self, tensor: Tensor) -> Content:
        """The current content of a tensor."""
        alias = self._alias(tensor)
        storage = alias.storage
        if not isinstance(storage.content, Value):
            return tensor
        if alias.version != storage.version or not isinstance(alias.content, Value):
            alias.content = self._view_contents(storage.content, alias.views, tensor.dtype)[-1]
            alias.version = storage.version
        return alias.content

    def before_write(self, tensor: Tensor) -> None:
        """Keep the content of a storage that is a constant, before the tensor is overwritten."""
        storage = self._alias(tensor).storage
        if isinstance(storage.content, Tensor):
            storage.content = storage.base.clone()

    def write(self, tensor: Tensor, result: Tensor) -> None:
        """Give the tensor's storage the content it has after ``result`` was written to the tensor."""
        alias, content = self._alias(tensor), self.read(result)
        storage = alias.storage
        if isinstance(content, Tensor):
            content = content.clone()
        parents = self._view_contents(storage.content, alias.views[:-1], tensor.dtype)
        new = content
        for view, parent in zip(reversed(alias.views), reversed(parents), strict=False):
            new = self._invert(view, parent, new, tensor.dtype)
        storage.content = new
        storage.version += 1
        alias.content, alias.version = content, storage.version

    def _view_contents(self, content: Content, views: tuple[View, ...], dtype: torch.dtype) -> list[Content]:
        """The content of a storage, and the content after each of the views."""
        contents = [content]
        for view in views:
            contents.append(self._apply(view.call(contents[-1]), view.after, dtype))
        return contents

    def _invert(self, view: View, parent: Content, new: Content, dtype: torch.dtype) -> Content:
        """The content that a view is of, after ``new`` was written through the view."""
        if view.op == "reshape":
            return self._apply(Call("reshape", "default", {"self": new, "shape": view.before}), view.before, dtype)
        if view.op == "permute":
            inverse = tuple(sorted(range(len(view.before)), key=lambda axis: view.options["dims"][axis]))
            return self._apply(Call("permute", "default", {"self": new, "dims": inverse}), view.before, dtype)
        if view.op not in ("select", "slice"):
            raise ExportError(f"the forward writes in place through {view.op}; a file cannot do that")
        dim: int = view.options["dim"]
        size = view.before[dim]
        if view.op == "select":
            positions = [view.options["index"]]
            shape = (*view.before[:dim], 1, *view.before[dim + 1 :])
            new = self._apply(Call("reshape", "default", {"self": new, "shape": shape}), shape, dtype)
        else:
            positions = list(range(size))[view.options["start"] : view.options["end"] : view.options["step"]]
        if len(positions) == size:
            return new
        joined_shape = (*view.before[:dim], size + len(positions), *view.before[dim + 1 :])
        joined = self._apply(Call("cat", "default", {"tensors": [parent, new], "dim": dim}), joined_shape, dtype)
        picked = Call("index_select", "default", {"self": joined, "dim": dim, "index": scatter_order(size, positions)})
        return self._apply(picked, view.before, dtype)

    def _apply(self, call: Call, shape: tuple[int, ...], dtype: torch.dtype) -> Content:
        """The result of a call: the value of a new node, or a constant where all its arguments are constants."""
        if any(isinstance(part, Value) for part in tree_leaves(call.arguments)):
            return self._emit(call, shape, dtype)
        return schema(call.op, call.overload)[0](**call.arguments)

    def _add(self, tensor: Tensor, storage: _Storage, views: tuple[View, ...], content: Content) -> None:
        alias = Alias(tensor, storage, views, content, storage.version)
        self._aliases[id(tensor)] = alias
        self._by_storage.setdefault(storage_id(tensor), []).append(alias)

    def _alias(self, tensor: Tensor) -> Alias:
        if id(tensor) not in self._aliases:
            same = self._same_region(tensor)
            if same is not None:  # a tensor created where the recorder does not see it, such as x.data
                self._add(tensor, same.storage, same.views, same.content)
            else:
                self._add(tensor, _Storage(tensor, tensor), (), tensor)
        return self._aliases[id(tensor)]

    def _same_region(self, tensor: Tensor) -> Alias | None:
        """A known tensor that covers the same region of the same memory."""
        aliases = self._by_storage.get(storage_id(tensor), [])
        return next((alias for alias in aliases if _region(alias.tensor) == _region(tensor)), None)


def storage_id(tensor: Tensor) -> int:
    """What tensors that share memory have in common."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage] - an empty storage has no address


def _region(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()
