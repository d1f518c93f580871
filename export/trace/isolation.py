"""Running a module without side effects: on a copy, in inference mode, without PyTorch's shortcuts and checks."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from itertools import chain
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from builder.random_state import kept_random_state

_ONE_AT_A_TIME = RLock()
"""What is switched off is off for the whole process."""


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
        own = {"forward", "train", "eval", "_call_impl"} & set(attributes)
        if not type(part).__module__.startswith(("torch.nn.modules.", "builder.")) or hooks or own:
            return False
    return True


def computed_weights(module: nn.Module) -> dict[int, Any]:
    """A memo for ``copy.deepcopy``, which refuses tensors that a hook computed: copies of them without a gradient."""
    attributes = (value for part in module.modules() for value in vars(part).values())
    tensors = (value for value in attributes if isinstance(value, Tensor) and value.requires_grad and not value.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


@contextmanager
def isolated() -> Generator[None]:
    """Inference mode, with the random state restored afterwards.

    The fast path of attention is off, which is one operator for a whole layer, and so are the checks of distributions,
    which read values.
    """
    with _ONE_AT_A_TIME, kept_random_state(), torch.inference_mode():
        fast_path = torch.backends.mha.get_fastpath_enabled()
        validates = Distribution._validate_args  # pyright: ignore[reportPrivateUsage] - it can be set, not read
        torch.backends.mha.set_fastpath_enabled(False)
        Distribution.set_default_validate_args(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            Distribution.set_default_validate_args(validates)
