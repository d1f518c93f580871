"""Rendering: Zensical, strictly, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .folders import ROOT, SiteError

HERE = Path(__file__).resolve().parent


def render(work: Path, *, version: str | None = None) -> Path:
    """Render ``work/pages`` into ``work/site``, which is given back; ``version`` goes into the addresses of its pages.

    Raises SiteError: a link or an anchor leads nowhere, or a name of the reference is not found.
    """
    settings = (HERE / "zensical.toml").read_text(encoding="utf-8").replace('"ROOT"', json.dumps(str(ROOT)))
    if version is None:  # no list of versions lies beside it, which the selector would ask for
        settings = settings.replace('version = { provider = "mike" }\n', "")
    (work / "zensical.toml").write_text(settings, encoding="utf-8")
    shutil.copytree(HERE / "assets", work / "pages" / "assets", dirs_exist_ok=True)
    shutil.rmtree(work / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    environment = os.environ | ({"MIKE_DOCS_VERSION": version} if version else {})
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
        if "--strict" in said:  # its own traceback says nothing
            said = said.partition("Traceback")[0]
        raise SiteError(f"the pages cannot be rendered:\n{said}")
    return work / "site"
