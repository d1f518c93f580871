"""The names of a module's inputs and outputs in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import fx

from .errors import ExportError


def input_names(parameters: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """As asked; else "input" for the only one, or the names of the forward's parameters. Raises ExportError."""
    return _checked(("input",) if len(parameters) == 1 else tuple(parameters), asked, "input")


def output_names(returned: Any, asked: Sequence[str]) -> dict[str, fx.Node]:
    """What a forward returns by name: as asked; else "output" for the only one, the keys of a dict, the fields of a
    named tuple or dataclass, or output_0, output_1 and so on. Raises ExportError: anything else that is returned.
    """
    if isinstance(returned, fx.Node) and is_record(returned):
        fields = getattr(returned.target, "_fields", None) or [f.name for f in dataclasses.fields(_kind(returned))]
        returned = dict(zip(fields, returned.args, strict=False)) | returned.kwargs
    if isinstance(returned, dict):
        own, values = [str(key) for key in returned], list(returned.values())
    elif isinstance(returned, list | tuple):
        own, values = [f"output_{i}" for i in range(len(returned))], list(returned)
    else:
        own, values = ["output"], [returned]
    own = ["output"] if len(own) == 1 and not isinstance(returned, dict) else own
    for name, value in zip(own, values, strict=True):
        if not isinstance(value, fx.Node):
            kind = "nothing" if value is None else f"a {type(value).__name__}"
            message = f"forward returns {kind} as '{name}'; expected a tensor, or a tuple or dict of tensors"
            raise ExportError(f"{message}. What to do: wrap the module in one that returns its tensors alone")
    if not own:
        raise ExportError("forward returns no tensor")
    return dict(zip(_checked(tuple(own), asked, "output"), values, strict=True))


def tensors_of(returned: Any) -> Sequence[Any]:
    """What a forward returned, in the order of the names that ``output_names`` gives."""
    if isinstance(returned, dict):
        return list(returned.values())
    if dataclasses.is_dataclass(returned):
        return [getattr(returned, field.name) for field in dataclasses.fields(returned)]
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def is_record(node: fx.Node) -> bool:
    """Whether a call puts tensors into a named tuple or a dataclass, as fx records them."""
    return isinstance(node.target, type) and (hasattr(node.target, "_fields") or dataclasses.is_dataclass(node.target))


def _kind(node: fx.Node) -> Any:
    return node.target


def _checked(own: tuple[str, ...], asked: Sequence[str], what: str) -> tuple[str, ...]:
    names = tuple(asked) or own
    if len(names) != len(own):
        raise ExportError(
            f"{len(names)} names are given for the {what}s, and the module has {len(own)}: {', '.join(own)}"
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not all(names):
        raise ExportError(
            f"every {what} needs a name of its own (--{what}-name); given are: {', '.join(map(repr, names))}"
        )
    return names
