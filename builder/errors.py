"""The errors of specs, weights and recovery, and suggestions for misspelt names."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One problem in a spec: its place and how to correct it."""

    path: KeyPath
    message: str
    line: int | None = None

    def __str__(self) -> str:
        location = [f"line {self.line}"] if self.line is not None else []
        if self.path:
            location.append(format_path(self.path))
        return f"{', '.join(location)}: {self.message}" if location else self.message


class SpecError(ValueError):
    """A spec cannot be read or does not describe a network. ``problems`` lists every problem."""

    def __init__(self, problems: Sequence[Problem], source: str = "spec"):
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        lines = [str(problem) for problem in self.problems]
        text = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems", *lines])
        super().__init__(f"{source}: {text}")


class WeightsError(ValueError):
    """A weights file is refused, damaged, or does not match the module."""


class RecoveryError(ValueError):
    """No dense network can be recovered from a file, or more than one can."""


class WeightsWarning(UserWarning):
    """A weights file matches the module, but its constants differ from the spec's."""


def format_path(path: KeyPath) -> str:
    """``blocks[2].linear`` for ``("blocks", 2, "linear")``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def suggestion(name: str, known: Sequence[str], what: str, shown: Sequence[str] | None = None) -> str:
    """``did you mean 'relu'? The blocks are: …``: the closest of ``known``, if one is close, and all of ``shown``."""
    names = {known_name.lower(): known_name for known_name in reversed(known)}
    closest = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    guess = f"did you mean '{names[closest[0]]}'? " if closest else ""
    return f"{guess}The {what} are: {', '.join(shown if shown is not None else known)}"
