"""How far rounding may carry a module's outputs: found by evaluating it in float64 with random errors everywhere.

Each operator's float inputs and outputs are moved by a few units of float32, several times with other random numbers
(stochastic arithmetic: Vignes, *A stochastic arithmetic for reliable scientific computation*, 1993). It shares nothing
with the rules of the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

U = 2.0**-24
_UNITS = 4
_TINY = 2.0**-126
"""Results below it may be flushed to zero."""
_LARGE = 2.0**120
_EXACT = (
    *(
        "cat",
        "stack",
        "where",
        "index",
        "index_select",
        "gather",
        "embedding",
        "clone",
        "copy",
        "_to_copy",
        "lift_fresh",
    ),
    *("relu", "abs", "neg", "maximum", "minimum", "max", "min", "amax", "amin", "clamp", "sort", "topk", "hardtanh"),
    *("gt", "ge", "lt", "le", "eq", "ne", "argmax", "argmin", "any", "flip", "roll", "masked_fill", "threshold"),
    *("full_like", "zeros_like", "ones_like", "empty_like", "full", "scalar_tensor", "arange", "leaky_relu", "isnan"),
)
"""Operators that move or choose numbers."""
_ABSOLUTE = (
    *("sigmoid", "tanh", "gelu", "silu", "mish", "softplus", "elu", "celu", "erf", "exp", "sin", "cos", "_softmax"),
    *("_log_softmax", "log_sigmoid_forward", "hardsigmoid", "hardswish", "softsign", "logsumexp", "expm1", "log1p"),
)
"""Functions whose libraries err by a few units of 1 or of the input, not of a small result."""


def _name(function: Any) -> str:
    return str(function._schema.name).rpartition("::")[2].removesuffix("_copy").rstrip("_")


def _aliases(function: Any) -> bool:
    """Whether an operator gives a view of an input or writes to one."""
    return any(each.alias_info is not None for each in (*function._schema.returns, *function._schema.arguments))


class Perturbed(TorchDispatchMode):
    """Every operator errs."""

    def __init__(self, seed: int):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def _noise(self, values: Tensor) -> Tensor:
        return torch.empty(values.shape, dtype=torch.float64).uniform_(-1, 1, generator=self.generator)

    def _moved(self, values: Any) -> Any:
        if not isinstance(values, Tensor) or values.dtype != torch.float64 or not values.ndim:
            return values
        return values * (1 + _UNITS * U * self._noise(values))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        if name in _EXACT or _aliases(func):
            return func(*args, **(kwargs or {}))
        returned = func(*tree_map(self._moved, args), **(kwargs or {}))
        around = 0.0
        if name in _ABSOLUTE and isinstance(args[0], Tensor):
            around = args[0].abs().clamp(max=1) if name in ("gelu", "silu", "mish", "hardswish") else 1.0
        elif name == "glu":
            around = args[0].chunk(2, dim=args[1] if len(args) > 1 else -1)[0].abs()

        def erring(values: Any) -> Any:
            if not isinstance(values, Tensor) or values.dtype != torch.float64 or not values.ndim:
                return values
            size = values.abs() + around if not isinstance(around, Tensor) or around.shape == values.shape else values
            return values + (_UNITS * U * size + _TINY) * self._noise(values)

        return tree_map(erring, returned)


class Watched(TorchDispatchMode):
    """Notes which rows came near to what float32 can hold, or beyond it, in any operator."""

    def __init__(self, rows: int):
        super().__init__()
        self.rows, self.beyond = rows, torch.zeros(rows, dtype=torch.bool)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        for values in (returned, *args) if isinstance(returned, Tensor) else (*returned, *args):
            if isinstance(values, Tensor) and values.is_floating_point() and values.numel():
                self._note(~(values.detach().abs() < _LARGE))
        return returned

    def _note(self, beyond: Tensor) -> None:
        if not beyond.any():
            return
        for axis, size in enumerate(beyond.shape):
            if size and size % self.rows == 0 and axis in (0, beyond.ndim - 1):
                by_row = beyond.movedim(axis, 0).reshape(self.rows, -1)
                self.beyond |= by_row.any(dim=1)
                return
        self.beyond[:] = True


def spread(call: Callable[[], Sequence[Tensor]], exact: Sequence[Tensor], runs: int = 8) -> list[Tensor]:
    """The largest distance of perturbed evaluations from the exact one, for each element; infinite where unknown."""
    found = [torch.zeros_like(each, dtype=torch.float64) for each in exact]
    for number in range(runs):
        with Perturbed(number):
            moved = call()
        for i, (values, right) in enumerate(zip(moved, exact, strict=True)):
            distance = (values.double() - right.double()).abs().nan_to_num(torch.inf, torch.inf)
            found[i] = torch.maximum(found[i], distance)
    return found
