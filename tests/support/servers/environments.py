"""The environments that real servers run in: one each, since their dependencies clash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .install import ENVIRONMENTS, READY


def environment(name: str) -> Path:
    """The folder of a server's environment: "triton", "mlserver", "kserve" or "ray-serve". Skips where it is none."""
    folder, reason = ENVIRONMENTS / name, ENVIRONMENTS / f"{name}.reason"
    if (folder / READY).is_file():
        return folder
    pytest.skip(reason.read_text(encoding="utf-8").strip() if reason.is_file() else f"no {name} here: make servers")


def variables(folder: Path) -> dict[str, str]:
    """What a process of an environment needs in its own: its ``bin`` before all others."""
    return {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}", "VIRTUAL_ENV": str(folder)}
