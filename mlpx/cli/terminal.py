"""How commands talk to a terminal or a pipe: results, notes, progress, and being ended from outside."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from time import perf_counter
from types import FrameType
from typing import Any

from mlpx.exit_codes import INTERRUPTED, TERMINATED


def note(*lines: str) -> None:
    """Print lines beside the result, on standard error."""
    for line in lines:
        print(line, file=sys.stderr)


def print_field(label: str, *lines: object) -> None:
    """Print lines of the result under a label."""
    for line in lines:
        print(f"{label:<9} {line}", flush=True)


def print_json(record: object) -> None:
    """Print the result for machines, on standard output."""
    print(json.dumps(record, indent=2, ensure_ascii=False, default=_plain), flush=True)


def _plain(value: Any) -> object:
    """A pydantic model, a dataclass, a path or the like as JSON has it."""
    if hasattr(value, "model_dump_json"):
        return json.loads(value.model_dump_json())
    return asdict(value) if is_dataclass(type(value)) else str(value)


def print_aligned(rows: Sequence[Sequence[object]]) -> None:
    """Print rows as columns of equal width, numbers to the right."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row, cells in zip(texts, rows, strict=True):
        padded = [t.rjust(w) if isinstance(c, int) else t.ljust(w) for t, w, c in zip(row, widths, cells, strict=True)]
        print(f"  {'  '.join(padded)}".rstrip())


def format_duration(seconds: float) -> str:
    """To three digits, in microseconds or milliseconds."""
    value, unit = (seconds * 1e6, "µs") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def format_rate(rows: int, seconds: float) -> str:
    """Rows per second."""
    return f"{rows / max(seconds, 1e-9):,.0f} rows/s"


class Progress:
    """A progress bar on a terminal, and nothing in a pipe."""

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
def long_run(text: str = "") -> Iterator[Progress]:
    """Work that takes a while: with a progress bar, and ended by Ctrl-C and SIGTERM as by an error.

    So no partial file stays. The exit codes are 130 and 143.
    """
    in_main = threading.current_thread() is threading.main_thread()  # which alone may set handlers

    def end(number: int, frame: FrameType | None) -> None:
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
def _progress(text: str) -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich import progress
    from rich.console import Console

    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TimeRemainingColumn()
    options = {"console": Console(stderr=True), "transient": True, "refresh_per_second": 2}  # some of the work is timed
    with progress.Progress(*columns, **options) as bar:
        yield Progress(bar, text)
