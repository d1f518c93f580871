"""What a forward returns: tensors by name, out of tuples, dicts, records and whatever is nested in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from export.errors import ExportError


def outputs_of(returned: Any) -> dict[str, Tensor]:
    """The tensors by name: "output" for the only one, the keys of a dict, the fields of a named tuple or dataclass, or
    output_0, output_1 and so on, joined by dots where they are nested. None is left out. Raises ExportError.
    """
    named = _named(returned, "")
    found = dict(named)
    if len(found) != len(named):
        twice = next(name for name, _ in named if [each for each, _ in named].count(name) > 1)
        raise ExportError(f"forward returns two outputs of the name '{twice}'. What to do: give each its own")
    if not found:
        kind = "nothing" if returned is None else f"a {type(returned).__name__} without a tensor"
        raise ExportError(f"forward returns {kind}{_HINT}")
    if len(found) == 1 and not _is_record(returned):
        return {"output": next(iter(found.values()))}
    return found


_HINT = "; expected a tensor, or a tuple or dict of tensors. What to do: wrap the module in one that returns its "
_HINT += "tensors alone"


def _named(value: Any, path: str) -> list[tuple[str, Tensor]]:
    if value is None:
        return []
    if isinstance(value, Tensor):
        return [(path or "output", value)]
    if isinstance(value, Mapping):
        parts = [(str(key), part) for key, part in value.items()]
    elif hasattr(value, "_fields"):
        parts = list(zip(value._fields, value, strict=True))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, list | tuple):
        parts = [(f"output_{i}" if not path else str(i), part) for i, part in enumerate(value)]
    else:
        where = f" as '{path}'" if path else ""
        raise ExportError(f"forward returns a {type(value).__name__}{where}{_HINT}")
    return [each for key, part in parts for each in _named(part, f"{path}.{key}" if path else key)]


def _is_record(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "_fields") or dataclasses.is_dataclass(value)
