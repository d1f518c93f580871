"""Commands in a process of their own, in a pipe or on a terminal of any width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from tests.support import ROOT
from tests.support.commands import Done

COMMANDS = ("build", "export", "recover", "verify", "bound", "inspect", "predict")
COMMANDS += (
    "sign",
    "package",
    "push",
    "pull",
    "serve",
    "shadow",
    "bench",
    "tune",
    "lab",
    "schema",
    "completion",
    "doctor",
)
INVOCATION = (sys.executable, "-m", "mlpx")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with the checkout importable, and changes."""
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "PYTHONIOENCODING", "PYTHONUTF8")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **changes}


def piped(*arguments: object, **changes: str) -> subprocess.CompletedProcess[bytes]:
    """How a command ends in a pipe, and the bytes that it prints."""
    line = [*INVOCATION, *map(os.fsencode, map(str, arguments))]
    return subprocess.run(line, env=environment(**changes), capture_output=True, stdin=subprocess.DEVNULL)


def on_terminal(columns: int, *arguments: object, **changes: str) -> Done:
    """How a command ends on a terminal, and what it prints there, standard error included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    line = [*INVOCATION, *map(str, arguments)]
    with subprocess.Popen(line, env=environment(**changes), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        printed = b""
        while chunk := _read(ours):
            printed += chunk
        os.close(ours)
    return Done(process.returncode, printed.decode().replace("\r\n", "\n"), "")


def plain(text: str) -> str:
    """A text without the codes of colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # a terminal that nobody has open any more
        return b""
