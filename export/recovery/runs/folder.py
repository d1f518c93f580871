"""The folder of a run: its checkpoints and the files beside them. Pickles are never opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from builder.errors import RecoveryError
from export.recovery.checkpoint_file import Contents, archive_records, read_contents
from export.recovery.recovered import refusals_of

from .sb3_archive import is_archive, policy_contents
from .yaml_data import Entry, read_yaml


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, and the checkpoint in it that is recovered."""

    path: Path
    checkpoint: Path

    def has(self, name: str) -> bool:
        """Whether there is such a file; ``name`` is relative to the folder."""
        return (self.path / name).is_file()

    def yaml(self, name: str) -> Entry | None:
        """The values of a YAML file; None if neither it nor a pickle in its place is there.

        Raises RecoveryError: see ``read_yaml``; or there is only a pickle, which is not opened.
        """
        if self.has(name):
            return read_yaml(self.path / name, name)
        pickle = str(Path(name).with_suffix(".pkl"))
        if self.has(pickle):
            message = f"{name} is missing; {pickle} is a pickle, which can run code when it is read, so it is not read"
            hint = f"copy {name} from the training machine, or write it there from the configuration (dump_yaml)"
            raise RecoveryError(f"{message}. What to do: {hint}")
        return None

    @cached_property
    def contents(self) -> Contents:
        """The tensors of the checkpoint, by name. Raises RecoveryError."""
        with refusals_of(self.checkpoint):
            if is_archive(self.checkpoint):
                return policy_contents(self.checkpoint)
            return read_contents(self.checkpoint, archive_records(self.checkpoint))


def numbered(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose names are ``pattern`` with one number in its group, by that number."""
    if not folder.is_dir():
        return []
    found = {path: match[1] for path in folder.iterdir() if (match := re.fullmatch(pattern, path.name))}
    return sorted((path for path in found if path.is_file()), key=lambda path: (int(found[path]), path.name))


def last_by(checkpoints: Sequence[Path], pattern: str) -> str:
    """What the last of the checkpoints is: the newest, if they have numbers as in ``numbered``, or the last by name."""
    counted = [re.fullmatch(pattern, path.name) is not None for path in checkpoints]
    if counted[-1]:
        return "the newest"
    return "the last by name, after those with numbers," if any(counted) else "the last by name"


def choice_note(checkpoint: Path, checkpoints: Sequence[Path], folder: Path, chosen: str) -> str:
    """Which checkpoint is taken, and of how many; ``chosen`` is what the last of them is."""
    name, last = (path.relative_to(folder).as_posix() for path in (checkpoint, checkpoints[-1]))
    if checkpoint != checkpoints[-1]:
        return f"checkpoint {name}, as it was given; {chosen} is {last}"
    if len(checkpoints) == 1:
        return f"checkpoint {name}: the only one"
    return f"checkpoint {name}: {chosen} of {len(checkpoints)}; another is recovered by its path instead of the folder"
