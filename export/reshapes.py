"""``x.view(...)`` and ``x.reshape(...)`` as a flatten, the one change of shape that any number of rows survives."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .errors import ExportError
from .known import ROWS, Known

RESHAPES = {"view", "reshape", torch.reshape}


def reshaped(node: fx.Node, known: Known, path: str) -> tuple[dict[str, Any], list[Any]]:
    """The options of the flatten, and its input. Raises ExportError: any other change of shape."""
    source, *given = [*node.args, *node.kwargs.values()]
    sizes = list(given[0]) if len(given) == 1 and isinstance(given[0], list | tuple) else given
    found = [known.value(size) for size in sizes]
    first, last = found if len(found) == 2 else (None, None)
    rows = first is ROWS or (first == -1 and last != -1)
    if not rows or not isinstance(last, int) or isinstance(last, bool):
        words = ", ".join("the number of rows" if size is ROWS else str(size) for size in found)
        message = f"the shape ({words}) at '{path}'; expected (number of rows, features)"
        raise ExportError(f"{message}. What to do: x.flatten(1), or x.view(x.size(0), -1)")
    return {"start_dim": 1, "end_dim": -1, "features": None if last == -1 else last}, [source]
