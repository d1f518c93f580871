"""The table of training frameworks whose runs are read, and which of them wrote a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import RecoveryError

from . import cleanrl, legged_gym, rl_games, rsl_rl, sb3, skrl
from .folder import RunFolder, choice_note
from .framework import Framework

_MOST_FOLDERS = 2_000
"""Folders that are looked through below one that is no run itself."""
_LISTED = 12


FRAMEWORKS: tuple[Framework, ...] = (
    rsl_rl.FRAMEWORK,
    legged_gym.FRAMEWORK,
    rl_games.FRAMEWORK,
    skrl.FRAMEWORK,
    sb3.FRAMEWORK,
    cleanrl.FRAMEWORK,
)
"""The frameworks whose runs are read: a file of this folder for each."""


@dataclass(frozen=True)
class Found:
    """A run that was recognised."""

    framework: Framework
    folder: RunFolder
    note: str
    """Which checkpoint it is, and where."""


def find_run(path: Path) -> Found | None:
    """The run in a folder, or the run that a checkpoint belongs to; ``None`` for a checkpoint of no known run.

    Raises RecoveryError: a folder that holds no run, or several, with a list of what was found.
    """
    if not path.is_dir():
        return next(_around(path), None)
    found = _matches(path)
    if not found:
        found = [run for folder in _below(path) for run in _matches(folder)]
    if len(found) == 1:
        return found[0]
    if found:
        runs = [f"{run.folder.path} ({run.framework.name})" for run in found]
        hint = "What to do: recover one of them, by its folder or by its checkpoint"
        raise RecoveryError(f"{path}: expected one run, found {len(found)}: {_listed(runs)}\n{hint}")
    raise RecoveryError(_no_run(path))


def _matches(folder: Path) -> list[Found]:
    """The runs that a folder is; more than one where two frameworks have written to it."""
    found: list[Found] = []
    for framework in FRAMEWORKS:
        if checkpoints := framework.checkpoints(folder):
            note = choice_note(checkpoints[-1], checkpoints, folder, framework.chosen(checkpoints))
            found.append(Found(framework, RunFolder(folder, checkpoints[-1]), note))
    return found


def _around(path: Path) -> Iterator[Found]:
    """The runs that a checkpoint belongs to."""
    path = path.absolute()  # a relative one has no parents above the working directory
    for folder in list(path.parents)[:2]:
        for framework in FRAMEWORKS:
            checkpoints = [] if framework.alone else framework.checkpoints(folder)
            if path in checkpoints:
                note = choice_note(path, checkpoints, folder, framework.chosen(checkpoints))
                yield Found(framework, RunFolder(folder, path), note)


def _below(path: Path) -> Iterator[Path]:
    """The folders below a folder, two levels deep."""
    count = 0
    for level in ("*", "*/*"):
        for folder in sorted(path.glob(level)):
            count += 1
            if count > _MOST_FOLDERS:
                return
            if folder.is_dir():
                yield folder


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "".join(f"\n  {line}" for line in [*lines[:_LISTED], *more])


def _no_run(path: Path) -> str:
    """The message on a folder that holds no known run: what it holds, and what is known."""
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    holds = f"it holds:{_listed(entries)}" if entries else "it is empty"
    known = _listed([f"{framework.name}: {framework.layout}" for framework in FRAMEWORKS])
    hint = "What to do: give the run's own folder, or recover the checkpoint by its path, with the options for it"
    return f"{path}: no training run that is known; {holds}\nknown runs:{known}\n{hint}"
