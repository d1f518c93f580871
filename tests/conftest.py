"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import choose, this_machine
from runtime.errors import ProviderError


def _why_no_cuda() -> str | None:
    try:
        choose("cuda", this_machine())
    except ProviderError as error:
        return str(error)
    return None


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)], scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Every provider that the machine has."""
    if request.param == "cuda" and (reason := _why_no_cuda()) is not None:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
