"""Rendering: Zensical, strictly, in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .folders import SiteError

HERE = Path(__file__).resolve().parent


def render(work: Path) -> Path:
    """Render ``work/pages`` into ``work/site``, which is given back.

    Raises SiteError: a link or an anchor leads nowhere, or a name of the reference is not found.
    """
    shutil.copy(HERE / "zensical.toml", work)
    shutil.copytree(HERE / "assets", work / "pages" / "assets", dirs_exist_ok=True)
    shutil.rmtree(work / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise SiteError(f"the pages cannot be rendered:\n{done.stdout}{done.stderr}")
    return work / "site"
