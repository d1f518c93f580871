"""``mlpx completion``: the script that has a shell complete commands, options and their values; and its answers."""

import os
from typing import Annotated, Any, Literal

from typer.completion import (
    completion_init,  # pyright: ignore[reportPrivateImportUsage] - typer itself only installs scripts
    get_completion_script,  # pyright: ignore[reportPrivateImportUsage]
    shell_complete,
)
from typer.main import get_command

from .options import Json
from .streams import write_output
from .terminal import print_json

VARIABLE = "_MLPX_COMPLETE"
"""The environment variable in which a shell's script says what it asks."""


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], "The shell."], as_json: Json = False) -> None:
    """Print the script that has SHELL complete commands, options and values; see docs/completion.md."""
    script = get_completion_script(prog_name="mlpx", complete_var=VARIABLE, shell=shell)
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        write_output(script)


def answer() -> int:
    """Answer the script of a shell, on standard output; the exit code."""
    from .app import app

    completion_init()
    command: Any = get_command(app)
    return shell_complete(command, {}, "mlpx", VARIABLE, os.environ[VARIABLE])
