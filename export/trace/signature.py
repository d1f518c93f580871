"""The signature of a module: how it is called with the network's inputs, and the outputs in what it returns."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten_with_path, tree_unflatten

from builder.joining import SeveralInputs
from builder.values import is_list, is_mapping, is_tuple
from export.errors import ExportError
from export.graph import Input

TYPES = {"float32": torch.float32, "int64": torch.int64}
Example = Tensor | np.ndarray | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Signature:
    """A way to call a module: ``inputs`` by name, in order, and ``example`` rows of each where the caller gave them.

    ``leaves`` are the flattened arguments: a placeholder for each input, and other values, passed as they are.
    """

    inputs: Mapping[str, Input]
    method: str
    leaves: tuple[Any, ...]
    tree: TreeSpec
    example: Mapping[str, Tensor] | None = None

    def call(self, module: nn.Module, values: Mapping[str, Tensor]) -> Any:
        """What the module returns for its inputs, called as a user calls it: hooks, defaults and ``__call__``."""
        leaves = [values[leaf.name] if isinstance(leaf, _Placeholder) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.tree)
        function = module if self.method == "forward" else getattr(module, self.method)
        return function(*args, **kwargs)

    def rows(self, count: int, seed: int = 0) -> dict[str, Tensor]:
        """Rows to run the module on: those of the example, repeated, else random ones; whole numbers are 0."""
        generator = torch.Generator().manual_seed(seed)
        rows: dict[str, Tensor] = {}
        for name, port in self.inputs.items():
            if self.example is not None:
                rows[name] = self.example[name][torch.arange(count) % len(self.example[name])].clone()
            elif port.dtype == "float32":
                rows[name] = torch.randn(count, *port.row, generator=generator, dtype=torch.float32)
            else:
                rows[name] = torch.zeros(count, *port.row, dtype=torch.int64)
        return rows

    def with_inputs(self, inputs: Mapping[str, Input]) -> Signature:
        """The same call with other shapes or types of the inputs, by the same names."""
        return replace(self, inputs={name: inputs[name] for name in self.inputs})

    def named(self, names: Sequence[str]) -> Signature:
        """The same call with other names of the inputs. Raises ExportError: names that do not fit."""
        names = checked_names(tuple(self.inputs), names, "input")
        new = dict(zip(self.inputs, names, strict=True))
        leaves = tuple(_Placeholder(new[leaf.name]) if isinstance(leaf, _Placeholder) else leaf for leaf in self.leaves)
        example = None if self.example is None else {new[name]: value for name, value in self.example.items()}
        return replace(self, inputs={new[n]: i for n, i in self.inputs.items()}, leaves=leaves, example=example)


@dataclass(frozen=True)
class _Placeholder:
    """An argument that is the input of this name."""

    name: str = ""


def parameters_of(module: nn.Module, method: str = "forward") -> dict[str, bool]:
    """The parameters that take a tensor: those without a default, else the first; and whether they are keyword-only.

    Raises ExportError: no such method, or one that is not Python.
    """
    if isinstance(module, SeveralInputs) and method == "forward":
        return dict.fromkeys(module.input_names, False)
    kind = type(module).__name__
    if not callable(getattr(module, method, None)):
        raise ExportError(f"a {kind} has no method '{method}'. What to do: name one that it has (--method)")
    try:
        parameters = inspect.signature(getattr(module, method)).parameters.values()
    except ValueError:
        raise ExportError(f"a {kind} cannot be traced: it has no Python forward") from None
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in named if p.default is p.empty] or named[:1]
    return {p.name: p.kind == p.KEYWORD_ONLY for p in required} or {"input": False}


def from_parameters(module: nn.Module, method: str = "forward") -> Signature:
    """The call with a tensor for every parameter that takes one; the shapes are still open."""
    parameters = parameters_of(module, method)
    args = tuple(_Placeholder() for keyword_only in parameters.values() if not keyword_only)
    kwargs = {name: _Placeholder() for name, keyword_only in parameters.items() if keyword_only}
    return _signature(module, method, args, kwargs)


def from_example(module: nn.Module, example: Example, method: str = "forward") -> Signature:
    """The call with the tensors of an example (batch, *row): one, a tuple of arguments, or a dict of them by name.

    Tensors may be nested in dicts, tuples and lists; other values are passed as they are. Raises ExportError.
    """
    if not callable(getattr(module, method, None)):
        parameters_of(module, method)  # says what is wrong
    if not isinstance(example, Tensor | np.ndarray | Mapping | list | tuple):
        kind = type(example).__name__
        raise ExportError(f"an example is a tensor, a tuple of arguments or a dict of them by name, not a {kind}")
    if isinstance(example, Tensor | np.ndarray):
        return _signature(module, method, (example,), {})
    if isinstance(example, Mapping):
        return _signature(module, method, (), dict(example))
    return _signature(module, method, tuple(example), {})


def _signature(module: nn.Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Signature:
    flat, tree = tree_flatten_with_path((args, kwargs))
    leaves = [(path, _as_tensor(leaf)) for path, leaf in flat]
    tensors = [(path, leaf) for path, leaf in leaves if isinstance(leaf, Tensor | _Placeholder)]
    if not tensors:
        raise ExportError("the example has no tensor. What to do: give a tensor (batch, ...) for every input")
    positional = [*parameters_of(module, method)]
    if not isinstance(module, SeveralInputs):
        parameters = inspect.signature(getattr(module, method)).parameters.values()
        positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = ["input"] if len(tensors) == 1 else [_name(path, positional) for path, _ in tensors]
    named = [(name, leaf) for name, (_, leaf) in zip(names, tensors, strict=True)]
    inputs = {name: _input(name, leaf) for name, leaf in named}
    queue = iter(names)
    values = tuple(_Placeholder(next(queue)) if isinstance(x, Tensor | _Placeholder) else x for _, x in leaves)
    example = {name: leaf for name, leaf in named if isinstance(leaf, Tensor)}
    if len({len(tensor) for tensor in example.values()}) > 1:
        counts = ", ".join(f"'{name}' {len(tensor)}" for name, tensor in example.items())
        raise ExportError(f"the tensors of the example have different numbers of rows: {counts}")
    return Signature(inputs, method, values, tree, example or None)


def _as_tensor(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        leaf = torch.as_tensor(np.ascontiguousarray(cast(np.ndarray, leaf)), device="cpu")
    if isinstance(leaf, Tensor):
        leaf = leaf.detach().cpu()
        if leaf.dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
            leaf = leaf.to(torch.int64)
    return leaf


def _input(name: str, leaf: Tensor | _Placeholder) -> Input:
    if isinstance(leaf, _Placeholder):
        return Input(())
    kind = next((kind for kind, dtype in TYPES.items() if dtype == leaf.dtype), None)
    if kind is None:
        raise ExportError(f"the example of '{name}' is {leaf.dtype}; a file takes float32 and int64")
    if not leaf.ndim or not len(leaf):
        raise ExportError(
            f"the example of '{name}' has shape {list(leaf.shape)}; expected (batch, ...), one row or more"
        )
    return Input(tuple(leaf.shape[1:]), kind)


def _name(path: Any, parameters: Sequence[str]) -> str:
    """The parameter's name, and the keys below it; further values of ``*args`` have numbers."""
    keys = [getattr(key, "key", getattr(key, "idx", getattr(key, "name", None))) for key in path]
    kind, first, *rest = keys
    if kind == 0 and isinstance(first, int):
        first = parameters[first] if first < len(parameters) else f"input_{first}"
    return ".".join(str(key) for key in (first, *rest))


def checked_names(own: tuple[str, ...], given: Sequence[str], kind: str) -> tuple[str, ...]:
    """The given names of inputs or outputs, else their own. Raises ExportError: another number, or repetitions."""
    names = tuple(given) or own
    if len(names) != len(own):
        message = f"{len(names)} names are given for the {kind}s, and the module has {len(own)}: {', '.join(own)}"
        raise ExportError(message)
    if len(set(names)) < len(names) or not all(names):
        listed = ", ".join(map(repr, names))
        raise ExportError(f"every {kind} needs a name of its own (--{kind}-name); given are: {listed}")
    return names


def named_outputs(returned: Any) -> dict[str, Tensor]:
    """The tensors that a forward returns, by name; None is left out. Raises ExportError: other values.

    Names are "output" for the only one, the keys of a dict, the fields of a named tuple or dataclass, or output_0,
    output_1 and so on, joined by dots where they are nested.
    """
    named = _named_tensors(returned, "")
    outputs = dict(named)
    if len(outputs) != len(named):
        repeated = next(name for name, count in Counter(name for name, _ in named).items() if count > 1)
        raise ExportError(f"forward returns two outputs with the name '{repeated}'. What to do: give each its own")
    if not outputs:
        kind = "nothing" if returned is None else f"a {type(returned).__name__} without a tensor"
        raise ExportError(f"forward returns {kind}{_HINT}")
    if len(outputs) == 1 and not _is_record(returned):
        return {"output": next(iter(outputs.values()))}
    return outputs


_HINT = (
    "; expected a tensor, or a tuple or dict of tensors. What to do: wrap the module in one that returns its tensors "
    "alone"
)


def _named_tensors(value: Any, path: str) -> list[tuple[str, Tensor]]:
    if value is None:
        return []
    if isinstance(value, Tensor):
        return [(path or "output", value)]
    parts: Iterable[tuple[str, Any]]
    if is_mapping(value):
        parts = [(str(key), part) for key, part in value.items()]
    elif hasattr(value, "_fields"):
        parts = zip(value._fields, value, strict=True)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif is_list(value) or is_tuple(value):
        parts = [(f"output_{i}" if not path else str(i), part) for i, part in enumerate(value)]
    else:
        position = f" as '{path}'" if path else ""
        raise ExportError(f"forward returns a {type(value).__name__}{position}{_HINT}")
    return [named for key, part in parts for named in _named_tensors(part, f"{path}.{key}" if path else key)]


def _is_record(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "_fields") or dataclasses.is_dataclass(value)
