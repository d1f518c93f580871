"""Repeats of a property: ``make test`` runs some of them, ``make test-all`` all.

Cases that repeat have the marker ``repeat``; ``examples`` does the same for drawn ones.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

EVERYTHING = "everything"
"""The Hypothesis profile of ``make test-all``."""


def examples(some: int, of: int) -> int:
    """How many examples to draw: ``some`` in ``make test``, all ``of`` them in ``make test-all``."""
    return of if settings.get_current_profile_name() == EVERYTHING else some


def but(first: Any, *others: Any) -> list[Any]:
    """Parameters of a test, all but the first of which repeat it."""
    return [first, *(pytest.param(other, marks=pytest.mark.repeat) for other in others)]
