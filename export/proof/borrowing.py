"""The caller's own module, lent to the proof: in evaluation mode, and afterwards as it was."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from export.trace.isolation import is_plain, kept_random_states, without_exit, without_shortcuts

_TENSORS = (Tensor, nn.Parameter, nn.Buffer)
_DICTS, _LISTS = (dict, OrderedDict, defaultdict), (list, deque)
_Undo = Callable[[], None]


@contextmanager
def borrowed(module: nn.Module) -> Generator[nn.Module]:
    """The module itself in evaluation mode, which it is put into if a part of it is training.

    Afterwards each part has its ``training`` flag again and, where it has code that could change them, its parameters,
    buffers, hooks and other attributes, those in lists, dicts and sets too. So have the random states of PyTorch,
    NumPy and Python. What the code changes elsewhere (a global, an object of a class of its own) stays changed.
    """
    parts, undo = list(module.modules()), list[_Undo]()
    if not is_plain(module):
        seen: dict[int, object] = {}
        for part in parts:
            _keep(vars(part), seen, undo)
    flags = [(vars(part), vars(part).get("training")) for part in parts]
    with ExitStack() as stack:
        stack.enter_context(kept_random_states())
        stack.callback(_restore, flags, undo)
        stack.enter_context(_kept_cuda_state(module))
        stack.enter_context(without_shortcuts())
        if any(part.training for part in parts):
            with without_exit():
                module.eval()
        yield module


def _restore(flags: list[tuple[dict[str, Any], Any]], undo: list[_Undo]) -> None:
    with torch.inference_mode():  # tensors made in inference mode can be written only there
        for step in undo:
            step()
    for attributes, training in flags:
        if attributes.get("training") is not training:
            attributes["training"] = training


@contextmanager
def _kept_cuda_state(module: nn.Module) -> Generator[None]:
    """The random state of the GPUs that the module is on."""
    tensors = chain(module.parameters(), module.buffers())
    indices = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(indices)):  # pyright: ignore[reportUnknownMemberType] - torch gives it no types
        yield


def _keep(value: Any, seen: dict[int, object], undo: list[_Undo]) -> None:
    """Add what makes a value what it is now, and all that it holds in dicts, lists, tuples and sets."""
    if id(value) in seen:
        return
    kind = cast("type[object]", type(value))
    seen[id(value)] = value
    if kind in _TENSORS:
        if value.layout == torch.strided and not value.is_meta and not is_lazy(value):
            undo.append(_kept_tensor(value))
    elif kind is np.ndarray:
        undo.append(partial(np.copyto, value, value.copy()))
    elif kind in _DICTS:
        undo.append(_kept_container(value, value.items(), value.update))
        for each in list(value.values()):
            _keep(each, seen, undo)
    elif kind in (*_LISTS, set):
        undo.append(_kept_container(value, value, value.update if kind is set else value.extend))
        for each in list(value):
            _keep(each, seen, undo)
    elif kind is tuple:
        for each in value:
            _keep(each, seen, undo)


def _kept_container(container: Any, items: Any, fill: Callable[[list[Any]], None]) -> _Undo:
    """What gives a container the objects again that it holds now, if it holds others: other threads may read it."""

    def identities() -> list[Any]:
        return [(id(item[0]), id(item[1])) if items is not container else id(item) for item in items]

    content, before = list(items), identities()

    def undo() -> None:
        if identities() != before:
            container.clear()
            fill(content)

    return undo


def _kept_tensor(tensor: Tensor) -> _Undo:
    """What gives a tensor its memory, values and gradient again."""
    memory, gradient, wanted = tensor.detach(), tensor.grad if tensor.is_leaf else None, tensor.requires_grad
    values = memory.clone()

    def undo() -> None:
        if tensor.data_ptr() != memory.data_ptr() or tensor.shape != memory.shape:
            tensor.data = memory
        if not torch.equal(memory, values):
            memory.copy_(values)
        if tensor.is_leaf:
            if tensor.requires_grad != wanted:
                tensor.requires_grad_(wanted)
            if tensor.grad is not gradient:
                tensor.grad = gradient

    return undo
