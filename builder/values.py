"""Tests of what a value of a document, or of a file, is; type checkers know its content as any values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeIs


def is_list(value: object) -> TypeIs[list[Any]]:
    """Whether ``value`` is a list."""
    return isinstance(value, list)


def is_dict(value: object) -> TypeIs[dict[Any, Any]]:
    """Whether ``value`` is a dictionary."""
    return isinstance(value, dict)


def is_tuple(value: object) -> TypeIs[tuple[Any, ...]]:
    """Whether ``value`` is a tuple."""
    return isinstance(value, tuple)


def is_mapping(value: object) -> TypeIs[Mapping[Any, Any]]:
    """Whether ``value`` is a mapping."""
    return isinstance(value, Mapping)
