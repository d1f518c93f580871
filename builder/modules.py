"""Modules of the building blocks that ``torch.nn`` lacks."""

from collections.abc import Sequence

import torch
from torch import nn

Values = float | Sequence[float] | None


class _PerFeature(nn.Module):
    """A map with constants per feature. The constants are buffers: saved with the weights, never trained.

    ``declared`` holds the constants that the spec gives, to compare with a weights file.
    """

    def __init__(self, features: int, **constants: tuple[Values, float]):
        super().__init__()
        self.features = features
        self.declared: dict[str, torch.Tensor] = {}
        for name, (value, default) in constants.items():
            constant = torch.tensor(default if value is None else value, dtype=torch.float32).expand(features).clone()
            self.register_buffer(name, constant)
            if value is not None:
                self.declared[name] = constant.clone()

    def extra_repr(self) -> str:
        return f"{self.features}"


class Standardize(_PerFeature):
    """``(x - mean) / std`` per feature: (N, features) to (N, features).

    ``mean`` and ``std`` are numbers or one number per feature; their defaults are 0 and 1 until weights are loaded.

    Examples:
        >>> import torch
        >>> from builder import Standardize
        >>> Standardize(2, mean=[1.0, 2.0], std=4.0)(torch.tensor([[5.0, 2.0]]))
        tensor([[1., 0.]])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, features: int, mean: Values = None, std: Values = None):
        super().__init__(features, mean=(mean, 0.0), std=(std, 1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rows with the mean taken off, in units of ``std``."""
        return (x - self.mean) / self.std


class Scale(_PerFeature):
    """``x * factor + offset`` per feature: (N, features) to (N, features), such as a robot's action scale.

    ``factor`` and ``offset`` are numbers or one number per feature; their defaults are 1 and 0.

    Examples:
        >>> import torch
        >>> from builder import Scale
        >>> Scale(2, factor=0.25, offset=[0.0, 0.8])(torch.tensor([[1.0, 0.0]]))
        tensor([[0.2500, 0.8000]])
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, features: int, factor: Values = None, offset: Values = None):
        super().__init__(features, factor=(factor, 1.0), offset=(offset, 0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rows times ``factor``, plus ``offset``."""
        return x * self.factor + self.offset


class Impute(_PerFeature):
    """``value`` where x is NaN, and x elsewhere: (N, features) to (N, features).

    ``value`` is a number or one number per feature, such as the mean of the training rows; its default is 0.

    Examples:
        >>> import torch
        >>> from builder import Impute
        >>> Impute(2, value=[7.0, 8.0])(torch.tensor([[torch.nan, 1.0]]))
        tensor([[7., 1.]])
    """

    value: torch.Tensor

    def __init__(self, features: int, value: Values = None):
        super().__init__(features, value=(value, 0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rows without NaN."""
        return torch.where(torch.isnan(x), self.value, x)


class Clip(nn.Module):
    """``min(max(x, min), max)`` with limits per feature: (N, features) to (N, features).

    The limits are the spec's, and not saved with the weights.
    """

    min: torch.Tensor
    max: torch.Tensor

    def __init__(self, features: int, min: Values, max: Values):  # noqa: A002 - the names of the block's options
        super().__init__()
        for name, value in (("min", min), ("max", max)):
            # on the CPU, also where the other modules get their values later and are made on the meta device
            limit = torch.tensor(value, dtype=torch.float32, device="cpu").expand(features).clone()
            self.register_buffer(name, limit, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rows within the limits."""
        return torch.minimum(torch.maximum(x, self.min), self.max)


class Residual(nn.Sequential):
    """``x + body(x)``: a sequence of modules plus its own input; the body keeps the number of features.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from builder import Residual
        >>> Residual(nn.ReLU())(torch.tensor([[-1.0, 2.0]]))
        tensor([[-1.,  4.]])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name nn.Sequential uses
        """The rows plus what the sequence makes of them."""
        body = input
        for module in self:
            body = module(body)
        return input + body
