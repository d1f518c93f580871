"""The lines of a CSV file: its first one, and blocks of whole lines, whose quotes may hold line breaks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from runtime.errors import InputError

from .batches import BATCH_BYTES

_BLOCK = 2 * BATCH_BYTES
_WINDOW = 1 << 16
_LONGEST = 64 * _BLOCK
"""Bytes that a line may have."""
_FIRST_LINE = re.compile(rb'(?:[^"\n]++|"[^"]*+")*+\n')
"""A line break within quotes does not end it."""


def header(file: Any) -> tuple[bytes, int]:
    """The bytes of the first line, and the position after it."""
    size = _WINDOW
    while size <= _LONGEST:
        text = os.pread(file.fileno(), size, 0)
        line = _FIRST_LINE.match(text)
        if line is not None or len(text) < size:
            text = text if line is None else line[0]
            return text, len(text)
        size *= 2
    raise InputError(f"cannot be read as CSV: its first line does not end within {_LONGEST:,} bytes")


def blocks(file: Any, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """The bytes from ``start`` to ``end`` in blocks of whole lines, and the position after each.

    A line break within quotes does not end a line.
    """
    handle, size = file.fileno(), _BLOCK
    while start < end:
        stop = min(start + size, end)
        if stop < end:
            line_break = os.pread(handle, _WINDOW, stop).find(b"\n")
            stop = min(stop + (line_break + 1 if line_break >= 0 else _WINDOW), end)
        block = os.pread(handle, stop - start, start)
        if stop < end and (not block.endswith(b"\n") or (b'"' in block and block.count(b'"') % 2)):
            block = block[: _last_line_end(block)]
        if not block:
            size = 2 * (stop - start)
            if size > _LONGEST:
                hint = "look for a quotation mark that is not closed"
                raise InputError(f"cannot be read as CSV: a line does not end within {_LONGEST:,} bytes; {hint}")
            continue
        start, size = start + len(block), _BLOCK
        yield block, start


def _last_line_end(block: bytes) -> int:
    """The position after the last line break outside quotes; 0 without one."""
    end, quotes = len(block), block.count(b'"')
    while (line_break := block.rfind(b"\n", 0, end)) >= 0:
        quotes -= block.count(b'"', line_break, end)
        if quotes % 2 == 0:
            return line_break + 1
        end = line_break
    return 0


def end_of_text(file: Any, size: int) -> int:
    """The position after the last line that is not empty."""
    end = size
    while end:
        start = max(0, end - _WINDOW)
        text = len(os.pread(file.fileno(), end - start, start).rstrip(b"\r\n"))
        if text:
            line_break = os.pread(file.fileno(), 2, start + text)
            return min(size, start + text + (2 if line_break == b"\r\n" else 1))
        end = start
    return 0
