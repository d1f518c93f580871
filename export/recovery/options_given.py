"""Which options of a recovery were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def used_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given; an epsilon of 0 is one, and equals False."""
    return {key: value for key, value in options.items() if value is not None and value is not False and value != ()}


def flags(options: Iterable[str]) -> str:
    """The options of the command with these names."""
    return ", ".join(f"--{key.replace('_', '-')}" for key in options)
