"""Words for what two contracts have: lists of names, constants and layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.model.port import Vocabulary

from .features import Interface
from .layers import Layer
from .steps import Step

_MOST = 6
"""Features that one line of words lists."""


def summary(step: Step) -> str:
    """Its constants, or the range of each where features have their own."""
    parts = [
        f"{role} {values.min()!s}" + (f" to {values.max()!s}" if values.min() != values.max() else "")
        for role, values in step.values.items()
    ]
    return ", ".join(parts)


def declaration(value: Any) -> str:
    """A unit, a range or the words of categories."""
    if not isinstance(value, Vocabulary):
        return str(value)
    return f"[{joined(value.words)}]" + ("" if value.unknown is None else f" with {value.unknown} for other words")


def label(interface: Interface, index: int | np.intp) -> str:
    """The name of a feature, or its index."""
    return interface.names[index] if interface.names is not None else str(index)


def chain(layers: Sequence[Layer]) -> str:
    """The layers in a row."""
    return ", ".join(map(str, layers))


def listed(names: Sequence[str]) -> str:
    """Names in quotes; ``none`` where there are none."""
    return joined([f"'{name}'" for name in names]) if names else "none"


def joined(parts: Sequence[str]) -> str:
    """The first of some parts, and how many more there are."""
    return ", ".join(parts[:_MOST]) + (f", and {len(parts) - _MOST:,} more" if len(parts) > _MOST else "")
