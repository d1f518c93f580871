"""Folders that a command may replace: empty ones, and those that hold nothing but what the same command wrote."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import TargetError


def refuse_foreign(
    folder: Path, manifest: str | None, what: str, *, replace: bool = False, source: Path | None = None
) -> None:
    """Raise TargetError for a folder that holds something that would be lost.

    ``manifest`` is the name of the JSON file in which the command lists the ``files`` that it wrote, None for a
    command that replaces nothing; ``what`` it wrote, such as "package"; ``source`` is a file that it reads, which must
    not be in the folder.
    """
    folder = folder.resolve()
    if not folder.exists():
        return
    if not folder.is_dir():
        raise TargetError(f"{folder} is a file. What to do: name another folder with -o")
    holds_source = source is not None and source.resolve().is_relative_to(folder)
    if holds_source or Path.cwd().is_relative_to(folder):
        inside = source.name if source is not None and holds_source else "the current folder"
        message = f"{inside} is in {folder}, which the {what} would replace"
        raise TargetError(f"{message}. What to do: name another folder with -o")
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    if not present:
        return
    if manifest is None or not replace:
        hint = "choose another folder with -o"
        hint += f", or replace the {what} in it with --replace (replace=True)" if manifest is not None else ""
        raise TargetError(f"{folder} is not empty. What to do: {hint}")
    try:
        written = set(json.loads((folder / manifest).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        written = set[str]()
    if foreign := sorted(present - written - {manifest}):
        message = f"{folder} holds files that no {what} of mlpx brought: {', '.join(foreign[:5])}"
        raise TargetError(f"{message}. What to do: move them away, or choose another folder with -o")
