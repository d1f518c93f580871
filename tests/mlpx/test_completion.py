"""Completion by the shells themselves, with the script that the documents have a user load."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpx.cli.app import COMMANDS
from tests.mlpx.terminal import environment, piped
from tests.support.commands import Run

SECONDS = 30
"""The longest that a shell may take; the tests go on as soon as it has answered."""
Complete = Callable[[str], set[str]]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user in an empty folder, who has ``mlpx`` on the PATH."""
    program = tmp_path / "bin" / "mlpx"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mlpx "$@"\n')
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "rows.csv").touch()
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return environment(PATH=path, HOME=str(tmp_path), ZDOTDIR=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / "config"))


def needed(shell: str) -> str:
    """The shell's path. Skips the test, with the reason, where it is not there."""
    if (path := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not on the PATH")
    return path


def lines(home: dict[str, str], *command: str) -> set[str]:
    work = Path(home["HOME"]) / "work"
    done = subprocess.run(command, env=home, cwd=work, capture_output=True, text=True, timeout=SECONDS)
    assert done.stderr == ""
    return set(done.stdout.splitlines())


@pytest.fixture
def bash(home: dict[str, str]) -> Complete:
    """What bash completes, through the function that it calls at TAB."""
    shell = needed("bash")

    def complete(line: str) -> set[str]:
        words = line.split(" ")
        script = f"""
            eval "$(mlpx completion bash)"
            [[ "$(complete -p mlpx)" == "complete -o default -F "*" mlpx" ]] || echo "not registered"
            COMP_WORDS=({shlex.join(words[:-1])} {words[-1] or "''"}); COMP_CWORD={len(words) - 1}
            $(complete -p mlpx | sed 's/.*-F \\([^ ]*\\) mlpx/\\1/') mlpx
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        return lines(home, shell, "--norc", "-c", script) - {""}

    return complete


@pytest.fixture
def fish(home: dict[str, str]) -> Complete:
    """What fish completes, by its own ``complete -C``."""
    shell = needed("fish")

    def complete(line: str) -> set[str]:
        script = f"mlpx completion fish | source; complete -C {shlex.quote(line)}"
        return {each.partition("\t")[0] for each in lines(home, shell, "--no-config", "-c", script)}

    return complete


@pytest.fixture
def zsh(home: dict[str, str]) -> Complete:
    """What zsh shows at TAB on a terminal, where alone it completes."""
    shell = needed("zsh")

    def complete(line: str) -> set[str]:
        ours, theirs = pty.openpty()
        work = Path(home["HOME"]) / "work"
        changes = home | {"TERM": "dumb", "PS1": "", "COLUMNS": "300", "LINES": "100"}
        with subprocess.Popen(
            [shell, "-f", "-i", "+o", "prompt_sp"], env=changes, cwd=work, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            try:
                setup = 'autoload -U compinit; compinit -u; eval "$(mlpx completion zsh)"; LISTMAX=0'
                # Bracketed paste is switched on once the line editor reads keys, and no longer the terminal lines.
                _ask(ours, f"{setup}; print read''y\n", r"ready\b(.|\n)*\x1b\[\?2004h")
                # Ctrl-D lists what fits and changes nothing; the next key is taken when it has been listed.
                shown = _ask(ours, f"{line}\x04\x15print do''ne\n", r"done\b")
            finally:
                process.kill()
                os.close(ours)
        return set(re.findall(r"[\w.-]+", shown))

    return complete


def _ask(terminal: int, text: str, until: str) -> str:
    """What a terminal shows after ``text`` is typed, up to a line that the pattern matches."""
    os.write(terminal, text.encode())
    shown = b""
    while not re.search(rf"^{until}", shown.decode(errors="replace"), re.MULTILINE):
        ready, _, _ = select.select([terminal], [], [], SECONDS)
        assert ready, shown
        shown += os.read(terminal, 65536).replace(b"\r", b"")
    return shown.decode(errors="replace")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_values_and_files(shell: str, request: pytest.FixtureRequest) -> None:
    complete: Complete = request.getfixturevalue(shell)
    commands = {command.__name__ for command in COMMANDS}
    assert complete("mlpx ") & commands == commands
    assert complete("mlpx pull --re") >= {"--revision", "--require-signature", "--replace"}
    assert complete("mlpx package x.onnx --for tr") >= {"triton"}
    files = complete("mlpx predict net.onnx ro")
    assert files >= {"rows.csv"} or (shell == "bash" and not files)  # then bash completes names of files itself


def test_the_scripts_are_printed_whole_and_others_are_refused(run: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert f"_MLPX_COMPLETE=complete_{shell}" in (script := run("completion", shell).out)
        assert json.loads(run("completion", shell, "--json").out) == {"shell": shell, "script": script.rstrip("\n")}
    refused = run("completion", "csh")
    assert refused.code == 2
    assert "csh" in refused.err


def test_an_answer_is_quick_to_start_with_and_needs_no_heavy_package(root: Path) -> None:
    heavy = ("torch", "onnx", "onnxruntime", "polars", "pyarrow", "huggingface_hub")
    code = f"import sys, atexit; atexit.register(lambda: print([n for n in {heavy} if n in sys.modules]));"
    code += "from mlpx.cli import main; main()"
    changes = {"_MLPX_COMPLETE": "complete_bash", "COMP_WORDS": "mlpx pus", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**changes), cwd=root, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["push", "[]"]


def test_a_question_that_no_script_asks_is_an_error() -> None:
    done = piped(_MLPX_COMPLETE="nonsense")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
