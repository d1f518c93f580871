"""Running a module without side effects: on a copy, in inference mode, without PyTorch's shortcuts and checks."""

from __future__ import annotations

import copy
import random
from collections.abc import Generator
from contextlib import contextmanager
from itertools import chain
from threading import RLock
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from builder.random_state import kept_random_state

_ONE_AT_A_TIME = RLock()
"""What is switched off is off for the whole process."""
_OVERRIDDEN = {"forward", "train", "eval", "_call_impl", "__deepcopy__", "__getstate__", "__reduce_ex__"}
_FUNCTIONS = (FunctionType, MethodType)


def fresh(module: nn.Module) -> nn.Module:
    """A copy that shares the tensors, so that a run does not see what an earlier one kept in Python attributes."""
    if is_plain(module):
        return module
    shared: dict[int, Any] = {id(t): t for t in chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, shared | computed_weights(module))


def is_plain(module: nn.Module) -> bool:
    """Whether a module is building blocks in containers, without code of the user's that could change their tensors."""
    for part in module.modules():
        attributes = vars(part)
        hooks = attributes.get("_forward_hooks") or attributes.get("_forward_pre_hooks")
        own = _OVERRIDDEN & set(attributes)
        if not type(part).__module__.startswith(("torch.nn.modules.", "builder.")) or hooks or own:
            return False
        if any(
            type(value) in _FUNCTIONS and not value.__module__.startswith("torch.") for value in attributes.values()
        ):
            return False  # the activation of a TransformerEncoderLayer
    return True


def computed_weights(module: nn.Module) -> dict[int, Any]:
    """A memo for ``copy.deepcopy``, which refuses tensors that a hook computed: copies of them without a gradient."""
    attributes = (value for part in module.modules() for value in vars(part).values())
    tensors = (value for value in attributes if isinstance(value, Tensor) and value.requires_grad and not value.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


@contextmanager
def without_exit() -> Generator[None]:
    """``sys.exit`` of the caller's code becomes an error like any other: it must not end the process as if all is well.

    Raises RuntimeError.
    """
    try:
        yield
    except SystemExit as end:
        raise RuntimeError(f"it calls sys.exit({'' if end.code is None else repr(end.code)})") from end


@contextmanager
def without_shortcuts() -> Generator[None]:
    """Without the fast path of attention, which is one operator for a whole layer and gives zeros where a mask is.

    The checks of distributions, which read values, are off too. One thread at a time.
    """
    with _ONE_AT_A_TIME:
        fast_path = torch.backends.mha.get_fastpath_enabled()
        validates = Distribution._validate_args  # pyright: ignore[reportPrivateUsage] - it can be set, not read
        torch.backends.mha.set_fastpath_enabled(False)
        Distribution.set_default_validate_args(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            Distribution.set_default_validate_args(validates)


@contextmanager
def kept_random_states() -> Generator[None]:
    """Restores the random states of PyTorch's CPU, NumPy and Python, which the caller's code may draw from."""
    states = random.getstate(), np.random.get_state()
    try:
        with kept_random_state():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def isolated() -> Generator[None]:
    """Inference mode without shortcuts, with the random states restored afterwards; ``sys.exit`` is an error."""
    with without_exit(), without_shortcuts(), kept_random_states(), torch.inference_mode():
        yield
