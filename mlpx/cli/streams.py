"""Standard output and standard error as commands write to them: of any encoding and width, open or closed."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from textwrap import wrap
from typing import TextIO


def prepare_streams() -> None:
    r"""Make standard output and standard error ready for any text.

    A character that a stream's encoding lacks, or a byte of a file's name that is no text, is written as its escape
    (``\u2192``). What goes to a stream that was closed (``>&-``) is discarded; its descriptor is taken, since the next
    file to be opened would be given it, and with it what a library prints.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook's is not
            stream.reconfigure(errors="backslashreplace")


def is_utf8(stream: TextIO) -> bool:
    """Whether the stream can hold every character."""
    return stream.encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def write_output(text: str = "") -> None:
    """Write a text and a line's end to standard output; without a text, what it still holds.

    Raises BrokenPipeError, if the reader of a pipe has gone, and OutputError.
    """
    try:
        print(text, end="\n" if text else "", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(sys.stdout)
        hint = "make room, or send the output to another place"
        message = f"standard output cannot be written: {error.strerror or error}. What to do: {hint}"
        from runtime.errors import OutputError  # here, since a broken installation has no runtime

        raise OutputError(message) from None


def write_beside(text: str) -> None:
    """Write a text and a line's end to standard error. That it cannot be written does not end a command."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send nowhere what the stream still holds, and all that follows.

    Python would try once more to write it at its end, and exit with 120.
    """
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    except OSError:
        return


def fit(line: str, stream: TextIO, hang: int = 2) -> str:
    """``line`` as a terminal shows it without a break inside a word; as it is in a pipe or a file.

    The parts of a line that is too long begin with ``hang`` spaces, from the second on.
    """
    width = _columns(stream)
    if width is None:
        return line
    parts = line.split("\n")
    return "\n".join(part if len(part) <= width else wrapped(part, width, min(hang, width // 3)) for part in parts)


def wrapped(text: str, width: int, hang: int = 0) -> str:
    """``text`` in lines of at most ``width``, broken between words, the second and further ones indented."""
    lines = wrap(text, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _columns(stream: TextIO) -> int | None:
    """How wide the terminal is; None for what is no terminal."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None  # 0: the terminal does not say
    except OSError:
        return None
