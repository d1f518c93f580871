"""The answers to what a shell asks at the tab key, through the script of ``mlpx completion``."""

import os
from typing import Any

from typer.completion import (
    completion_init,  # pyright: ignore[reportPrivateImportUsage] - typer itself only installs scripts
    shell_complete,
)
from typer.main import get_command

from .app import app
from .completion import VARIABLE


def answer() -> int:
    """Answer the script of a shell, on standard output; the exit code."""
    completion_init()
    command: Any = get_command(app)
    return shell_complete(command, {}, "mlpx", VARIABLE, os.environ[VARIABLE])
