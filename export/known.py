"""What a forward knows without its inputs: parameters, buffers, and what it computes of them alone."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx.node import map_arg

from .calls import Calls, path_of
from .errors import ExportError
from .graph import Tensor

ROWS = object()
"""The number of rows, as ``x.size(0)`` gives it."""
_SHAPE = object()


class Known:
    """The values of the calls of one forward that do not depend on its inputs."""

    def __init__(self, module: nn.Module, calls: Calls):
        self._root = calls.root
        self._changed = calls.changed
        self._names = {id(tensor): name for name, tensor in reversed(list(_tensors(module)))}
        self._values: dict[fx.Node, Any] = {}

    def take(self, node: fx.Node) -> bool:
        """Evaluate a call that needs no input, as PyTorch does in float32; False for any other."""
        value = self._size(node)
        if value is None:
            if node.op == "get_attr":
                value = self._attribute(str(node.target))
            elif node.all_input_nodes and all(argument in self._values for argument in node.all_input_nodes):
                value = self._evaluated(node)
            else:
                return False
        self._values[node] = value
        return True

    def value(self, argument: Any) -> Any:
        """What an argument stands for: itself, or the value of a call that needs no input; None for any other call."""
        return self._values.get(argument) if isinstance(argument, fx.Node) else argument

    def tensor(self, argument: Any, name: str, *, flat: bool = False) -> Tensor:
        """A parameter or buffer under its own name, or what is computed of them under ``name``. Raises ExportError."""
        value = self.value(argument)
        if not isinstance(value, torch.Tensor):
            raise ExportError(f"{name} is {described(argument)}; expected a parameter or a buffer of the module")
        own = self._names.get(id(value))
        if id(value) in self._changed:
            raise ExportError(f"the forward changes '{own or name}' in place; a file cannot do that")
        # A tensor that two blocks share has one name, the first.
        return Tensor(own or name, _array(value.reshape(-1) if flat else value, own or name), computed=own is None)

    def per_feature(self, argument: Any, path: str) -> Tensor | float:
        """A constant of an elementwise block: a number, or a tensor with a value per feature, or one for all."""
        value = self.value(argument)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, torch.Tensor):
            raise ExportError(f"'{path}' takes {described(argument)}; expected a number, a parameter or a buffer")
        if value.ndim and value.shape[-1] != value.numel():
            message = f"'{path}' takes a constant of shape {list(value.shape)}"
            raise ExportError(f"{message}; expected a number, or a value per feature")
        if not value.is_floating_point() and not value.is_complex():
            return self._exact(value, path)
        if value.ndim == 0 and value.dtype == torch.float64:  # PyTorch takes it as a number
            return float(value)
        return self.tensor(argument, f"{path}.constant", flat=True)

    def transposed(self, argument: Any, path: str) -> Tensor:
        """The matrix of a product x @ matrix as a Linear holds it, (out, in)."""
        held = self.tensor(argument, f"{path}.matrix")
        if held.values.ndim != 2:
            raise ExportError(
                f"'{path}' multiplies with {held.name} of shape {list(held.values.shape)}; expected a matrix"
            )
        return Tensor(held.name, held.values.T, held.computed)

    def _exact(self, value: torch.Tensor, path: str) -> Tensor:
        converted = value.float()
        if not torch.equal(converted.to(value.dtype), value):
            raise ExportError(f"'{path}' takes integers that float32 cannot hold")
        return Tensor(f"{path}.constant", converted.reshape(-1).numpy())

    def _attribute(self, target: str) -> Any:
        found: Any = self._root
        for part in target.split("."):
            found = getattr(found, part)
        return found

    def _size(self, node: fx.Node) -> Any:
        """The shape of a value that depends on the inputs; only its number of rows has a meaning in a file."""
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source in self._values:
            rows = self._values[source] is _SHAPE and node.target is operator.getitem and node.args[1] == 0
            return ROWS if rows else None
        if node.target is getattr and node.args[1:] == ("shape",):
            return _SHAPE
        if node.op == "call_method" and node.target == "size":
            dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return {None: _SHAPE, 0: ROWS}.get(dim) if dim is None or isinstance(dim, int) else None
        return None

    def _evaluated(self, node: fx.Node) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self._values[n])
        if any(self._values[n] is _SHAPE or self._values[n] is ROWS for n in node.all_input_nodes):
            raise ExportError(
                f"the forward computes with the shape of its input at '{node.name}'; a file cannot do that"
            )
        given = [self._values[n] for n in node.all_input_nodes if isinstance(self._values[n], torch.Tensor)]
        versions = [tensor._version for tensor in given]
        try:
            with torch.no_grad():
                is_method = node.op == "call_method"
                target: Any = getattr(args[0], str(node.target)) if is_method else node.target
                value = target(*(args[1:] if is_method else args), **kwargs)
        except Exception as error:  # what PyTorch raises
            raise ExportError(f"'{node.name}' cannot be computed: {type(error).__name__}: {error}") from error
        for tensor, version in zip(given, versions, strict=True):
            if tensor._version != version:
                name = self._names.get(id(tensor), node.name)
                raise ExportError(f"the forward changes '{name}' in place; a file cannot do that")
        return value


def described(argument: Any) -> str:
    """An argument of a call in words."""
    if isinstance(argument, fx.Node):
        return f"the constant '{path_of(str(argument.target))}'" if argument.op == "get_attr" else f"'{argument.name}'"
    return f"a {type(argument).__name__}" if isinstance(argument, list | tuple | dict) else repr(argument)


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _array(tensor: torch.Tensor, name: str) -> np.ndarray:
    """The values of a tensor, in its own memory where that can be."""
    if tensor.is_meta:
        raise ExportError(f"{name} is on the meta device and has no values; load weights first")
    if tensor.dtype != torch.float32 or tensor.layout != torch.strided or tensor.ndim == 0:
        found = f"{tensor.dtype}, {tensor.layout}, shape {list(tensor.shape)}"
        raise ExportError(f"{name} is {found}; a dense float32 tensor with a value per feature is expected")
    return tensor.detach().cpu().resolve_neg().numpy()
