"""Commands that are ended from outside."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block as an error would, so that no half file stays: exit codes 130 and 143."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        print("mlpx: interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
