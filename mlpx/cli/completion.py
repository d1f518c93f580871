"""``mlpx completion``: the script that has a shell complete commands, options and their values."""

from typing import Annotated, Literal

from typer.completion import get_completion_script  # pyright: ignore[reportPrivateImportUsage] - it has no public one

from .options import Json
from .streams import write_output
from .terminal import print_json

VARIABLE = "_MLPX_COMPLETE"
"""The environment variable in which a shell's script says what it asks."""


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], "bash, zsh or fish."], as_json: Json = False) -> None:
    """Print what SHELL needs to complete commands: eval "$(mlpx completion bash)", mlpx completion fish | source."""
    script = get_completion_script(prog_name="mlpx", complete_var=VARIABLE, shell=shell)
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        write_output(script)
