"""How often a package's own code checks that its model answers as was proved."""

from __future__ import annotations

from export.errors import TargetError

from .target import Target

VERIFY_EVERY = 60.0
"""Seconds: a check takes about three calls of the model, which a minute later nobody notices."""
_LONGEST = 31 * 24 * 3600


def verify_interval(target: Target, backend: str | None, seconds: float | None) -> float | None:
    """The interval of checks; None where another's code runs the model. Raises TargetError."""
    own = backend is not None and backend in target.bundled
    if seconds is None:
        return VERIFY_EVERY if own else None
    if not own:
        named = f"{target.name}, backend {backend}," if backend else target.name
        hint = "leave --verify-every out; mlpx verify --url --every checks any server (verify/ in the package)"
        raise TargetError(f"{named} runs no code of mlpx that could check the model. What to do: {hint}")
    if not 0 <= seconds <= _LONGEST:
        hint = "--verify-every 60, or 0 for no checks"
        raise TargetError(f"--verify-every is 0 to {_LONGEST:,} seconds, not {seconds:g}. What to do: {hint}")
    return seconds
