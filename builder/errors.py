"""The errors of specs, weights and recovery, and suggestions for misspelt names."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One problem in a spec: its place and how to correct it.

    Examples:
        >>> from builder import SpecError
        >>> from mlpx import MLPSpec
        >>> try:
        ...     MLPSpec(name="and", input={"features": 2}, blocks=[{"linear": 1}, "sigmod"])
        ... except SpecError as error:
        ...     error.problems[0].path
        ('blocks', 1)
    """

    path: KeyPath
    message: str
    line: int | None = None

    def __str__(self) -> str:
        location = [f"line {self.line}"] if self.line is not None else []
        if self.path:
            location.append(format_path(self.path))
        return f"{', '.join(location)}: {self.message}" if location else self.message


class SpecError(ValueError):
    """A spec cannot be read or does not describe a network. ``problems`` lists every problem.

    Examples:
        >>> from mlpx import MLPSpec
        >>> MLPSpec(name="and", input={"features": 2}, blocks=[{"linear": 1}, "sigmod"])
        Traceback (most recent call last):
        builder.errors.SpecError: spec: blocks[1]: ... did you mean 'sigmoid'? ...
    """

    def __init__(self, problems: Sequence[Problem], source: str = "spec"):
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        lines = [str(problem) for problem in self.problems]
        text = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems", *lines])
        super().__init__(f"{source}: {text}")


class WeightsError(ValueError):
    """A weights file is refused, damaged, or does not match the module.

    Examples:
        >>> from torch import nn
        >>> from mlpx import load_weights
        >>> load_weights(nn.Linear(3, 1), "weights.safetensors")
        Traceback (most recent call last):
        builder.errors.WeightsError: weights.safetensors: the tensors do not match the module...
    """


class RecoveryError(ValueError):
    """No dense network can be recovered from a file, or more than one can.

    Examples:
        >>> from export import read_checkpoint
        >>> read_checkpoint("weights.safetensors")
        Traceback (most recent call last):
        builder.errors.RecoveryError: weights.safetensors: ...
    """


class WeightsWarning(UserWarning):
    """A weights file matches the module, but its constants differ from the spec's.

    Examples:
        >>> import warnings
        >>> from builder import WeightsWarning
        >>> from mlpx import MLPSpec, assemble, load_weights
        >>> blocks = [{"standardize": {"mean": 0, "std": 1}}, {"linear": 8}, "relu", {"linear": 2}, "softmax"]
        >>> module = assemble(MLPSpec(name="comfort", input={"features": 2}, blocks=blocks))
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always", WeightsWarning)
        ...     load_weights(module, "weights.safetensors")
        >>> print(caught[0].message)
        weights.safetensors: 0.mean differs from the spec's by up to 50; the weights file's is used
    """


def format_path(path: KeyPath) -> str:
    """``blocks[2].linear`` for ``("blocks", 2, "linear")``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def suggestion(name: str, known: Sequence[str], what: str, shown: Sequence[str] | None = None) -> str:
    """``did you mean 'relu'? The blocks are: …``: the closest of ``known``, if one is close, and all of ``shown``."""
    names = {known_name.lower(): known_name for known_name in reversed(known)}
    closest = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    guess = f"did you mean '{names[closest[0]]}'? " if closest else ""
    return f"{guess}The {what} are: {', '.join(shown if shown is not None else known)}"
