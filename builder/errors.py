"""What can be wrong with a spec or with a weights file, and what was most likely meant."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a spec: where it stands, and what to do about it."""

    path: Path
    message: str
    line: int | None = None

    def __str__(self) -> str:
        places = [f"line {self.line}"] if self.line is not None else []
        if self.path:
            places.append(dotted(self.path))
        return f"{', '.join(places)}: {self.message}" if places else self.message


class SpecError(ValueError):
    """A spec that cannot be read or does not describe a network. ``problems`` lists all that was found."""

    def __init__(self, problems: Sequence[Problem], source: str = "spec"):
        self.problems = tuple(problems)
        self.source = source
        lines = [str(problem) for problem in self.problems]
        text = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems", *lines])
        super().__init__(f"{source}: {text}")


class WeightsError(ValueError):
    """A weights file that is refused, damaged, or does not fit the module."""


class RecoveryError(ValueError):
    """A file from which no dense network can be read back, or that leaves open what the network is."""


class WeightsWarning(UserWarning):
    """A weights file that fits, but says something else than the spec does."""


def dotted(path: Path) -> str:
    """A key's path as a person writes it: ``("blocks", 2, "linear")`` is ``blocks[2].linear``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def suggestion(name: str, known: Sequence[str], what: str, shown: Sequence[str] | None = None) -> str:
    """``did you mean 'relu'? The blocks are: …``: the nearest of ``known``, if one is near, and all of ``shown``."""
    spellings = {spelling.lower(): spelling for spelling in reversed(known)}
    near = get_close_matches(name.lower(), spellings, n=1, cutoff=0.6)
    guess = f"did you mean '{spellings[near[0]]}'? " if near else ""
    return f"{guess}The {what} are: {', '.join(shown if shown is not None else known)}"
