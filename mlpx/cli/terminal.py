"""How commands talk to a terminal or a pipe: results, notes, progress, and being ended from outside."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from types import FrameType
from typing import Any

INTERRUPTED, TERMINATED = 130, 143


def note(*lines: str) -> None:
    """What is said beside the result, on standard error."""
    for line in lines:
        print(line, file=sys.stderr)


def tell(label: str, *lines: object) -> None:
    """Lines of the result under a label."""
    for line in lines:
        print(f"{label:<9} {line}", flush=True)


def print_json(record: object) -> None:
    """The result for machines, on standard output."""
    print(json.dumps(record, indent=2, ensure_ascii=False, default=_plain), flush=True)


def _plain(value: Any) -> object:
    """A model of pydantic, a dataclass, a path or the like, as JSON has it."""
    if hasattr(value, "model_dump_json"):
        return json.loads(value.model_dump_json())
    return asdict(value) if is_dataclass(type(value)) else str(value)


def print_aligned(rows: Sequence[Sequence[object]]) -> None:
    """Rows as columns of equal width; numbers to the right."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row, cells in zip(texts, rows, strict=True):
        padded = [t.rjust(w) if isinstance(c, int) else t.ljust(w) for t, w, c in zip(row, widths, cells, strict=True)]
        print(f"  {'  '.join(padded)}".rstrip())


def duration(seconds: float) -> str:
    """To three digits, in microseconds or milliseconds."""
    value, unit = (seconds * 1e6, "µs") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


Progress = Callable[..., None]
"""Told how much is done, of how much (None: that is not known), and what, in words."""


@contextmanager
def long_run(words: str = "") -> Iterator[Progress]:
    """Work that takes a while: with a bar on a terminal, and ended by Ctrl-C and SIGTERM as by an error.

    So no half file stays. The exit codes are 130 and 143.
    """
    in_main = threading.current_thread() is threading.main_thread()  # which alone may set handlers

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end) if in_main else None
    try:
        with _bar(words) as progress:
            yield progress
    except KeyboardInterrupt:
        note("mlpx: interrupted; nothing was written")
        raise SystemExit(INTERRUPTED) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _bar(words: str) -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield lambda done, total, words=None: None
        return
    from rich import progress
    from rich.console import Console

    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TimeRemainingColumn()
    shown = {"console": Console(stderr=True), "transient": True, "refresh_per_second": 2}  # seldom: some work is timed
    with progress.Progress(*columns, **shown) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total, words=None: bar.update(task, description=words, completed=done, total=total)
