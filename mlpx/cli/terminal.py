"""How commands talk to a terminal or a pipe: results, notes, progress, and being ended from outside."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from time import perf_counter
from types import FrameType
from typing import Any

from mlpx.exit_codes import INTERRUPTED, TERMINATED

from .streams import fit, is_utf8, write_beside, write_output


def note(*lines: str) -> None:
    """Print lines beside the result, on standard error."""
    for line in lines:
        write_beside(fit(line, sys.stderr))


def note_left_out_last(notes: Sequence[str]) -> None:
    """Print the notes of a recovery on standard error; what was left out of the network is a warning, and last."""
    loud = [line for line in notes if " LEFT OUT" in line]
    note(*(f"note: {line}" for line in notes if line not in loud))
    note(*(f"warning: {line}" for line in loud))


def print_line(*lines: str, hang: int = 4) -> None:
    """Print lines of the result; what a terminal has no room for goes on in the next, after ``hang`` spaces."""
    for line in lines:
        write_output(fit(line, sys.stdout, hang))


def print_field(label: str, *lines: object) -> None:
    """Print lines of the result under a label."""
    for line in lines:
        print_line(f"{label:<9} {line}", hang=10)


def print_command(label: str, *lines: str) -> None:
    """Print commands to copy under a label: never in several lines each, which a shell would take for several."""
    for line in lines:
        write_output(f"{label:<9} {line}")


def print_json(record: object) -> None:
    """Print the result for machines, on standard output: in ASCII, unless its encoding has every character."""
    write_output(json.dumps(record, indent=2, ensure_ascii=not is_utf8(sys.stdout), default=_plain))


def _plain(value: Any) -> object:
    """A pydantic model, a dataclass, a path or the like as JSON has it."""
    if hasattr(value, "model_dump_json"):
        return json.loads(value.model_dump_json())
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def print_aligned(rows: Sequence[Sequence[object]]) -> None:
    """Print rows as columns of equal width, numbers to the right."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    hang = 6 if len(widths) > 2 else 4 + widths[0]  # a label and its text: under the text
    for row, cells in zip(texts, rows, strict=True):
        padded = [t.rjust(w) if isinstance(c, int) else t.ljust(w) for t, w, c in zip(row, widths, cells, strict=True)]
        print_line(f"  {'  '.join(padded)}".rstrip(), hang=hang)


def format_duration(seconds: float) -> str:
    """To three digits, in microseconds or milliseconds."""
    value, unit = (seconds * 1e6, "µs") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def format_rate(rows: int, seconds: float) -> str:
    """Rows per second."""
    return f"{rows / max(seconds, 1e-9):,.0f} rows/s"


class Progress:
    """A progress bar on a terminal that can move its cursor, and nothing elsewhere."""

    def __init__(self, bar: Any = None, text: str = ""):
        self._bar, self._start = bar, perf_counter()
        self._task = None if bar is None else bar.add_task(text, total=None)

    def show(self, text: str, done: float, total: float | None) -> None:
        """Show what is being done, and how much of it is done."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=done, total=total)

    def show_rows(self, rows: int, share: float) -> None:
        """Show the rows scored so far, and their share of all rows, 0 to 1; 0 where that is not known."""
        rate = format_rate(rows, perf_counter() - self._start)
        self.show(f"scoring {rows:,} rows, {rate}", share, 1.0 if share else None)


@contextmanager
def long_run(text: str = "") -> Generator[Progress]:
    """Work that takes a while: with a progress bar, and ended by Ctrl-C and SIGTERM as by an error.

    So no partial file stays. The exit codes are 130 and 143.
    """
    in_main = threading.current_thread() is threading.main_thread()  # which alone may set handlers

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    previous = signal.signal(signal.SIGTERM, end) if in_main else None
    try:
        with _progress(text) as progress:
            yield progress
    except KeyboardInterrupt:
        note("mlpx: interrupted; nothing was written")
        raise SystemExit(INTERRUPTED) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, previous)


@contextmanager
def _progress(text: str) -> Generator[Progress]:
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Progress()
        return
    from rich import progress
    from rich.console import Console

    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TimeRemainingColumn()
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:  # work is timed
        yield Progress(bar, text)
