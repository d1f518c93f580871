"""Logs on standard error, with request ids and without any payload: a line for people on a terminal, else JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TextIO

_PER_SECOND = 100


class Log:
    """Writes events; ``requests``: log every request, and not only those that fail.

    Of those that fail at most 100 per second are written, and the others counted: a flood of bad requests must not
    become a flood of lines.
    """

    def __init__(self, *, requests: bool = False, stream: TextIO | None = None):
        self.requests = requests
        self._stream = sys.stderr if stream is None else stream
        self._pid = os.getpid()
        self._for_people = self._stream.isatty()
        self._second, self._written, self._left_out = 0, 0, 0

    def event(self, event: str, **fields: Any) -> None:
        """Write one event."""
        now = datetime.now(UTC)
        if self._for_people:
            line = f"{now.astimezone():%H:%M:%S} {_words(event, fields)}"
        else:
            stamp = now.isoformat(timespec="milliseconds")
            line = json.dumps({"time": stamp, "event": event, "pid": self._pid, **fields}, default=str)
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads the log any more; the server goes on
            return

    def request(
        self, identity: str, protocol: str, operation: str, status: object, seconds: float, **fields: Any
    ) -> None:
        """Log a request that was answered."""
        if not self.requests and not self._may_write():
            return
        record = {"request": identity, "protocol": protocol, "what": operation, "status": status}
        self.event("request", **record, ms=round(seconds * 1e3, 3), **fields)

    def _may_write(self) -> bool:
        second = int(monotonic())
        if second != self._second:
            left_out, self._left_out = self._left_out, 0
            self._second, self._written = second, 0
            if left_out:
                self.event("requests_left_out", count=left_out)
        self._written += 1
        self._left_out += self._written > _PER_SECOND
        return self._written <= _PER_SECOND

    def failure(self, identity: str, error: BaseException) -> None:
        """Log the cause of an "internal error"."""
        trace = "".join(traceback.format_exception(error))
        self.event("failure", request=identity, error=f"{type(error).__name__}: {error}", trace=trace)


def _words(event: str, fields: dict[str, Any]) -> str:
    """``model loaded: model digits, version 1, proved yes``; a trace comes in lines of its own.

    What a client sent cannot control the terminal.
    """
    trace = fields.pop("trace", "")
    words = [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in fields.items() if value is not None]
    line = f"{event.replace('_', ' ')}{': ' if words else ''}{', '.join(words)}"
    return "\n".join([_printable(line), *(_printable(each) for each in trace.splitlines())])


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


_HANG_UP = "ASGI callable returned without completing response."
"""uvicorn's message for a client that hung up while it was answered: the request is logged with the status 499."""


class ForwardingHandler(logging.Handler):
    """Writes the warnings and errors of libraries to the log."""

    def __init__(self, log: Log):
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as an event; one of a client that hung up is left out."""
        if record.getMessage() == _HANG_UP:
            return
        error = record.exc_info[1] if record.exc_info else None
        fields = {} if error is None else {"error": f"{type(error).__name__}: {error}"}
        self._log.event("library", logger=record.name, level=record.levelname, message=record.getMessage(), **fields)
