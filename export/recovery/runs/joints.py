"""The joints of a robot: their names as an option gives them, and what a configuration says by regular expressions.

An environment selects joints and gives values to them by expressions over their names (``.*_hip_.*: 0.25``). Which
joints there are, and in which order, is in the robot's own file, so without their names only what is the same for all
of them is known. Source: ``isaaclab/utils/string.py`` and ``mjlab/utils/string.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from builder.errors import RecoveryError
from builder.values import is_dict

from .facts import Fact, Joints
from .yaml_data import Entry

T = TypeVar("T")
ALL = ".*"
_PLAIN = re.compile(r"[\w-]+")
_SLOW = re.compile(r"\)\s*[*+{]|(\.[*+].*){6}")
"""Expressions whose matching may take very long: a repeated group, many repetitions."""
_LONGEST = 200


def joint_names(given: str | Sequence[str]) -> Fact[tuple[str, ...]]:
    """The names in ``hip,knee``, or in a text file with one in each line; in Python also a list of them.

    Raises RecoveryError: no names, or a name twice.
    """
    place = "--joints"
    if isinstance(given, str):
        path = Path(given)
        if _is_file(path):
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


def _is_file(path: Path) -> bool:
    """Whether there is such a file. A list of names may be longer than any file's name, which is an OSError."""
    try:
        return path.is_file()
    except OSError:
        return False


@dataclass(frozen=True)
class Group:
    """The joints that a term is about."""

    names: tuple[str, ...] | None = None
    """In their order in the term, where it is known."""
    count: int | None = None
    token: str = ALL
    """What is unknown, where the count is: groups with the same token have as many joints."""


def selected(expressions: Entry | None, preserve_order: bool, joints: Joints, every: str = ALL) -> Group:
    """The joints that a term selects; all of them without expressions.

    ``every`` is the token of all joints that can be selected. Raises RecoveryError: an expression matches none.
    """
    patterns = [ALL] if expressions is None else [_pattern(item) for item in _listed(expressions)]
    if joints is None or expressions is None:
        plain = all(_PLAIN.fullmatch(pattern) for pattern in patterns)
        if joints is not None:
            return Group(joints.value, len(joints.value))
        if plain and (preserve_order or len(patterns) == 1):
            return Group(tuple(patterns), len(patterns))
        return Group(None, len(patterns)) if plain else Group(token=every if patterns == [ALL] else " ".join(patterns))
    found = [[name for name in joints.value if re.fullmatch(pattern, name)] for pattern in patterns]
    missed = next((pattern for pattern, names in zip(patterns, found, strict=True) if not names), None)
    if missed is not None:
        listed = ", ".join(joints.value)
        raise expressions.error(f"'{missed}' matches none of the joints {listed}, which are from {joints.place}")
    named = dict.fromkeys(name for names in found for name in names)
    names = tuple(named) if preserve_order else tuple(name for name in joints.value if name in named)
    return Group(names, len(names))


def _listed(expressions: Entry) -> list[Entry]:
    return [expressions] if isinstance(expressions.value, str) else expressions.items()


def _pattern(entry: Entry) -> str:
    """A regular expression of a configuration. Raises RecoveryError: not one, or one that may take very long."""
    return _checked(entry.text(), entry)


def _checked(pattern: str, entry: Entry) -> str:
    if len(pattern) > _LONGEST or _SLOW.search(pattern):
        raise entry.error(f"the expression {pattern[:60]!r} is not matched: it could take very long")
    try:
        re.compile(pattern)
    except re.error as error:
        raise entry.error(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


def by_joint(
    entry: Entry | None, group: Group, default: T, convert: Callable[[Entry], T], first_match: bool = False
) -> list[T] | None:
    """A value for each joint of a group, or one for all; ``None`` if the names of the joints decide and are not known.

    ``entry`` is one value, or values by regular expressions; ``default`` is for joints that none of these match.
    ``first_match`` takes the first expression that the beginning of a name matches, as mjlab does; otherwise a name is
    matched as a whole, by one expression at most. Raises RecoveryError: not a value, or two expressions match.
    """
    if entry is None or entry.value is None:
        return [default]
    if not is_dict(entry.value):
        return [convert(entry)]
    values = {_checked(pattern, item): convert(item) for pattern, item in entry.mapping().items()}
    if group.names is None:
        everything = any(pattern in (ALL, "(.*)", ".+") for pattern in values)
        different = [*values.values()] if everything else [default, *values.values()]
        return different[:1] if all(value == different[0] for value in different) else None
    result: list[T] = []
    for name in group.names:
        matches = [pattern for pattern in values if (re.match if first_match else re.fullmatch)(pattern, name)]
        if len(matches) > 1 and not first_match:
            raise entry.error(f"'{name}' is matched by '{matches[0]}' and by '{matches[1]}'")
        result.append(values[matches[0]] if matches else default)
    return result


def spread(values: Sequence[T], count: int) -> list[T]:
    """One value for each of ``count`` joints."""
    return list(values) * count if len(values) == 1 else list(values)
