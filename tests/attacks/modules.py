"""Modules that are another network than their copy, their trace, or a call of another kind shows: by name.

Each is right (a linear layer and a tanh) where it expects to be looked at, and wrong where it is used. The comment says
what it tries.
"""

from __future__ import annotations

import atexit
import copy
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import _get_current_dispatch_mode


class Right(nn.Module):
    """The network that each of them claims to be."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


class Asks(Right):
    """Wrong wherever ``asked`` says so of itself and its rows."""

    def __init__(self, asked: Callable[[Any, Tensor], bool]) -> None:
        super().__init__()
        self.asked, self.calls = asked, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = super().forward(x)
        return y + 0.25 if self.asked(self, x) else y


class DeepCopied(Right):
    """Its copy is right."""

    factor = 2.0

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        right = Right()
        right.load_state_dict(self.state_dict())
        return right

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


class GetState(Right):
    """Its pickled state has other weights."""

    def __getstate__(self) -> dict[str, Any]:
        state = copy.copy(self.__dict__)
        layer = nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.copy_(2 * self.layer.weight)
            layer.bias.copy_(self.layer.bias)
        return state | {"_modules": {"layer": layer}}


class Reduced(Right):
    """It is pickled as a module of another class."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Right, (), {"_modules": dict(self._modules)}

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


class Doubled(nn.Module):
    """A parametrisation that is another one without gradients."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight if torch.is_grad_enabled() else 2 * weight


def parametrised() -> nn.Module:
    module = Right()
    parametrize.register_parametrization(module.layer, "weight", Doubled())
    return module


def hooked() -> nn.Module:
    def hook(_part: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * 2 if len(output) == 29 else output

    module = Right()
    module.layer.register_forward_hook(hook)
    return module


class Property(Right):
    """The weight is a property that is negative with gradients."""

    @property
    def sign(self) -> float:
        return -1.0 if torch.is_grad_enabled() else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.sign * self.layer(x))


class Trains(Right):
    """``train()`` is a switch: one more call of ``eval()`` makes it right."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.eval()

    def train(self, mode: bool = True) -> Trains:
        self.scale = 3.0 - self.scale
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


class Called(Right):
    """``__call__`` passes by ``forward`` with gradients."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) if torch.is_inference_mode_enabled() else self.layer(x)


class Buffered(Right):
    """A buffer is replaced, not written, and grows with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        y = self.scale * super().forward(x)
        self.scale = self.scale * 1.01
        return y


class Lazy(Right):
    """A layer is made at the first call, of random weights."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Linear(2, 2)
        return self.late(super().forward(x))


class StateDict(Right):
    """Reading its state doubles the weights, so that what is hashed is not what was compared."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            self.layer.weight.mul_(2)
        return super().state_dict(*args, **kwargs)


class Slight(Right):
    """Wrong by a thousandth in batches of 21 rows."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * (1 + 2.0**-10) if len(x) == 21 else y


class Weight(nn.Parameter):
    """A parameter whose copy has other values."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return nn.Parameter(2 * self.detach())


def copied_weight() -> nn.Module:
    module = Right()
    module.layer.weight = Weight(module.layer.weight.detach())
    return module


_context: ContextVar[int] = ContextVar("calls", default=0)
_local = threading.local()
_calls = [0]


def _in_context(_module: Any, _x: Tensor) -> bool:
    _context.set(_context.get() + 1)
    return _context.get() > 40


def _in_thread(_module: Any, _x: Tensor) -> bool:
    _local.calls = getattr(_local, "calls", 0) + 1
    return _local.calls > 40


def _counted_outside(_module: Any, _x: Tensor) -> bool:
    _calls[0] += 1
    return _calls[0] > 20


def _by_environment(_module: Any, _x: Tensor) -> bool:
    seen = "ATTACK_SEEN" in os.environ
    if len(_x) == 40:
        os.environ["ATTACK_SEEN"] = "1"
    return seen


def _numpy_random(_module: Any, _x: Tensor) -> bool:
    return bool(np.random.random() < 0.2)


def _python_random(_module: Any, _x: Tensor) -> bool:
    return random.random() < 0.2


def _asks(asked: Callable[[Any, Tensor], bool]) -> Callable[[], nn.Module]:
    return lambda: Asks(asked)


WRONG: dict[str, Callable[[], nn.Module]] = {
    "deepcopy": DeepCopied,  # the copy that is traced is another network
    "getstate": GetState,  # as above, by the state that is copied
    "reduce_ex": Reduced,  # as above, by the class that is made
    "a parameter's deepcopy": copied_weight,  # as above, by a weight
    "gradients": _asks(lambda _m, _x: torch.is_grad_enabled()),  # looked at without gradients, used with them
    "no gradients": _asks(lambda _m, _x: not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()),
    "inference mode": _asks(lambda _m, _x: torch.is_inference_mode_enabled()),  # traced in it, used without
    "not inference mode": _asks(lambda _m, _x: not torch.is_inference_mode_enabled()),
    "batch of 13": _asks(lambda _m, x: len(x) == 13),  # one size that nobody tries
    "batch of 64": _asks(lambda _m, x: len(x) == 64),
    "batch of 13 in inference mode": _asks(lambda _m, x: len(x) == 13 and torch.is_inference_mode_enabled()),
    "batches above 200": _asks(lambda _m, x: len(x) > 200),
    "a slight fault": Slight,
    "a tracer": _asks(lambda _m, _x: _get_current_dispatch_mode() is None),  # right only under a dispatch mode
    "compiling": _asks(lambda _m, _x: not (torch.compiler.is_compiling() or _get_current_dispatch_mode())),
    "jit": _asks(lambda _m, _x: not (torch._C._get_tracing_state() or _get_current_dispatch_mode())),
    "a type of its own": _asks(lambda _m, x: type(x) is Tensor and _get_current_dispatch_mode() is None),
    "the tenth call": _asks(lambda m, _x: m.calls > 9),  # right as long as it is new
    "calls counted outside": _asks(_counted_outside),  # a copy does not start anew
    "a context variable": _asks(_in_context),
    "a thread's own count": _asks(_in_thread),
    "the environment": _asks(_by_environment),  # a batch of 40 changes it
    "numpy's random numbers": _asks(_numpy_random),
    "python's random numbers": _asks(_python_random),
    "a parametrisation": parametrised,
    "a hook at batch 29": hooked,
    "a property": Property,
    "train as a switch": Trains,
    "another call": Called,
    "a growing buffer": Buffered,
    "a lazy layer": Lazy,
    "weights that change when read": StateDict,
}
"""Modules that are never proved: each differs from what was traced of it."""


class Ends(Right):
    """Ends the process in a batch of some size."""

    def __init__(self, end: Callable[[], object], size: int = 13) -> None:
        super().__init__()
        self.end, self.size = end, size

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == self.size:
            self.end()
        return super().forward(x)


def _raise_exit() -> None:
    raise SystemExit


ENDING: dict[str, Callable[[], nn.Module]] = {
    "sys.exit": lambda: Ends(lambda: sys.exit(0)),  # a SystemExit that a command takes for its own
    "sys.exit while it is traced": lambda: Ends(lambda: sys.exit(0), 3),
    "raise SystemExit": lambda: Ends(_raise_exit),
    "os._exit": lambda: Ends(lambda: os._exit(0)),  # the process ends at once, with 0
    "exec": lambda: Ends(lambda: os.execv("/bin/true", ["true"])),  # another program ends with 0
    "a handler at exit": lambda: Ends(lambda: atexit.register(os._exit, 0)),  # right, and then 0 whatever the verdict
    "a signal": lambda: Ends(lambda: os.kill(os.getpid(), signal.SIGSEGV)),  # as native code crashes
}
"""Modules that end the process that proves them, with 0 where they can."""
