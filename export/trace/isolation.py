"""Running a module without side effects: on a copy, in inference mode, without PyTorch's shortcuts and checks."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

_ONE_AT_A_TIME = RLock()
"""What is switched off is off for the whole process."""


def fresh(module: nn.Module) -> nn.Module:
    """A copy that shares the tensors, so that what one run keeps in Python the next one does not see."""
    if is_plain(module):
        return module
    shared: dict[int, Any] = {id(t): t for t in chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, shared | computed_weights(module))


def is_plain(module: nn.Module) -> bool:
    """Blocks in containers, and no code of the caller's that could touch their tensors."""
    for part in module.modules():
        hooks = part._forward_hooks or part._forward_pre_hooks
        own = {"forward", "train", "eval", "_call_impl"} & set(vars(part))
        if not type(part).__module__.startswith(("torch.nn.modules.", "builder.")) or hooks or own:
            return False
    return True


def computed_weights(module: nn.Module) -> dict[int, Any]:
    """For ``copy.deepcopy``, which refuses tensors that a hook computed: what stands for them in the copy."""
    held = (value for part in module.modules() for value in vars(part).values())
    tensors = (value for value in held if isinstance(value, Tensor) and value.requires_grad and not value.is_leaf)
    return {id(value): value.detach().clone() for value in tensors}


@contextmanager
def isolated() -> Iterator[None]:
    """In inference mode, with the random state given back, without the fast path of attention, which is one operator
    for a whole layer, and without the checks of distributions, which ask for values.
    """
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]), torch.inference_mode():
        fast = torch.backends.mha.get_fastpath_enabled()
        distributions = sys.modules.get("torch.distributions")
        checked = distributions.Distribution._validate_args if distributions is not None else False
        torch.backends.mha.set_fastpath_enabled(False)
        if distributions is not None:
            distributions.Distribution.set_default_validate_args(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            if distributions is not None:
                distributions.Distribution.set_default_validate_args(checked)
