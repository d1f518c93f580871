"""The names of a robot's joints, as an option gives them, and what is said of joints by regular expressions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builder.errors import RecoveryError

from .facts import Fact


def joint_names(given: str | Sequence[str]) -> Fact[tuple[str, ...]]:
    """The names in ``hip,knee``, or in a text file with one in each line; in Python also a list of them.

    Raises RecoveryError: no names, or a name twice.
    """
    place = "--joints"
    if isinstance(given, str):
        path = Path(given)
        if path.is_file():
            try:
                given = path.read_text(encoding="utf-8").replace("\n", ",")
            except (OSError, UnicodeDecodeError) as error:
                raise RecoveryError(f"--joints {path}: cannot be read: {error}") from None
            place = str(path)
        given = [name.strip().removeprefix("- ").strip("'\"") for name in given.split(",")]
    names = tuple(name for name in given if name)
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice is not None:
        problem = "no names in it" if not names else f"'{twice}' appears twice"
        hint = "give the joints in the order of the simulation: --joints hip,knee, or a file with one name in each line"
        raise RecoveryError(f"{place}: {problem}. What to do: {hint}")
    return Fact(names, place)
