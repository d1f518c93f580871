"""Either what a call gives or the error that it raises: properties hold of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def outcome(errors: type[E] | tuple[type[E], ...], call: Callable[..., T], *arguments: Any, **options: Any) -> T | E:
    """What the call gives, or the error of these types that it raises."""
    try:
        return call(*arguments, **options)
    except errors as error:
        return error
