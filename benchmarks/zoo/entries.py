"""What a network of the table is: where it comes from, how it is built, and what one row of its inputs is.

The packages lie in ``.zoo``, beside the product's environment and after it on the path, so that torch, numpy and onnx
stay the product's own. They are imported when a network is built, and not before.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

PLACE = Path(__file__).resolve().parent.parent.parent / ".zoo"


@dataclass(frozen=True)
class Row:
    """One row of one input: float32, or int64 below ``categories``."""

    shape: tuple[int, ...]
    categories: int = 0

    def drawn(self, rows: int, generator: torch.Generator) -> Tensor:
        if self.categories:
            return torch.randint(self.categories, (rows, *self.shape), generator=generator)
        return torch.randn(rows, *self.shape, generator=generator, dtype=torch.float32)


Inputs = Row | tuple[Row, ...] | Mapping[str, Row]
Example = tuple[Tensor, ...] | dict[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """A network: ``build`` imports its package and makes it; ``inputs`` go by position, or by the forward's names."""

    package: str
    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[Row, ...] | Mapping[str, Row]

    def module(self) -> nn.Module:
        """It in evaluation mode, with the same weights every time.

        Statistics of batch norms and tensors that are all one number are drawn too: at 0 and 1 they hide mistakes.
        """
        seed = crc32(f"{self.package} {self.name}".encode())
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        module = self.build().eval()
        with torch.no_grad():
            if any(isinstance(p, nn.UninitializedParameter) for p in module.parameters()):
                called(module, self.example(2))
            for part in module.modules():
                if isinstance(part, _BatchNorm) and part.running_mean is not None and part.running_var is not None:
                    part.running_mean.normal_(0, 0.5)
                    part.running_var.uniform_(0.5, 2)
            for parameter in module.parameters():
                if parameter.is_floating_point() and parameter.numel() and parameter.min() == parameter.max():
                    parameter += 0.1 * torch.randn_like(parameter)
        return module

    def example(self, rows: int, seed: int = 0) -> Example:
        generator = torch.Generator().manual_seed(seed)
        if isinstance(self.inputs, Mapping):
            return {name: row.drawn(rows, generator) for name, row in self.inputs.items()}
        return tuple(row.drawn(rows, generator) for row in self.inputs)


def of(package: str, *networks: tuple[str, Callable[[], nn.Module], Inputs]) -> list[Entry]:
    """The networks of one package, by its name in the registry."""
    return [
        Entry(package, name, build, (inputs,) if isinstance(inputs, Row) else inputs)
        for name, build, inputs in networks
    ]


def floats(*shape: int) -> Row:
    return Row(shape)


def ints(categories: int, *shape: int) -> Row:
    return Row(shape, categories)


def at(path: str) -> Any:
    """A module of a package of the table."""
    if str(PLACE) not in sys.path:
        sys.path.append(str(PLACE))
    try:
        return importlib.import_module(path)
    finally:
        torch.set_default_dtype(torch.float32)  # some set another for the whole process


def called(module: nn.Module, example: Example) -> Any:
    return module(**example) if isinstance(example, dict) else module(*example)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among a network's outputs, in their order; None and other values are left out."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)
    elif hasattr(value, "__dataclass_fields__"):
        for field in value.__dataclass_fields__:
            yield from tensors(getattr(value, field))
