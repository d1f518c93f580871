"""What a training framework is to the reader of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .facts import Run
from .folder import RunFolder


@dataclass(frozen=True)
class Framework:
    """A framework: how its runs are recognised, and read."""

    name: str
    layout: str
    """What lies in a run's folder, for messages."""
    checkpoints: Callable[[Path], list[Path]]
    """The checkpoints of a run in this folder, that to be taken last; none if it is no run of this framework."""
    read: Callable[[RunFolder], Run]
    alone: bool = False
    """Whether nothing beside the checkpoint says what it is: then a checkpoint that is given by its path is no run."""
    chosen: Callable[[Sequence[Path]], str] = lambda _: "the newest"
    """What the last of the checkpoints is."""
