"""``mlpx verify --every``: a check that is repeated until SIGTERM, with what it found for probes and Prometheus."""

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter

from mlpx.exit_codes import INTERRUPTED, TERMINATED

from .terminal import print_line

if TYPE_CHECKING:
    from runtime import Finding
    from runtime.monitor.monitor import Monitor, Turn, Verdict

_UNITS = {"s": 1, "m": 60, "h": 3600}
_LONGEST = 31 * 24 * 3600
_RETRY = 15.0
"""Seconds after which a check that could not be carried out is tried again, as while a server starts."""


@dataclass
class RepeatOptions:
    """Whether the check is repeated, and what tells others of it."""

    every: Annotated[
        str | None,
        "INTERVAL",
        "Repeat the check by the certificate, of the file or of the --url, every 30s, 10m or 1h until SIGTERM.",
    ] = None
    metrics: Annotated[
        str | None,
        "PORT",
        "With --every: answer /ready, /health and /metrics on 127.0.0.1:PORT; ADDRESS:PORT for another address.",
    ] = None

    @property
    def seconds(self) -> float:
        """The interval. Raises BadParameter."""
        match = re.fullmatch(r"([0-9]{1,7})([smh])", self.every or "")
        seconds = int(match[1]) * _UNITS[match[2]] if match else 0
        if not 0 < seconds <= _LONGEST:
            raise BadParameter(f"--every takes an interval such as 30s, 10m or 1h, up to 31 days, not '{self.every}'")
        return seconds

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the endpoint; None without. Raises BadParameter."""
        return metrics_address(self.metrics)


def metrics_address(text: str | None) -> tuple[str, int] | None:
    """Host and port of --metrics; None without. Raises BadParameter."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise BadParameter(f"--metrics takes PORT or ADDRESS:PORT, 0 for a free port, not '{text}'")
    return host, int(port)


def repeat(
    check: Callable[[], "Verdict"],
    subject: str,
    options: RepeatOptions,
    as_json: bool,
    wait: Callable[[float], bool] | None = None,
) -> None:
    """Check in turns, ``options.every`` apart, until SIGTERM or Ctrl-C.

    ``wait`` waits for so many seconds, and ends it by returning True; by default it is ``pause``.

    A check that fails or cannot be carried out is printed and does not end it; the latter is tried again soon. Raises
    BadParameter, and OutputError: the address of ``options.metrics`` cannot be listened on.
    """
    from runtime.monitor.endpoint import endpoint
    from runtime.monitor.monitor import Monitor

    seconds, address = options.seconds, options.address
    monitor = Monitor(lambda: _checked(check), seconds)
    with _ended_by_signals(), endpoint(monitor, *address) if address is not None else nullcontext() as url:
        if as_json:
            print_line(json.dumps({"watching": subject, "every": seconds, "url": url}))
        else:
            print_line(f"watching  {subject}, every {options.every}{f'; {url}/metrics and /ready' if url else ''}")
        _take_turns(monitor, subject, seconds, as_json, wait or pause)


@dataclass(frozen=True)
class _Refused:
    """The verdict where a file is not the certificate's, or is not proved."""

    findings: tuple["Finding", ...]
    causes: tuple[str, ...] = ()
    proved: bool = False


def _checked(check: Callable[[], "Verdict"]) -> "Verdict":
    from export.errors import ProofError
    from runtime import Finding

    try:
        return check()
    except ProofError as error:
        return _Refused((Finding("file", str(error)),))


def pause(seconds: float) -> bool:
    """Wait between two turns. False: there is another one; only a signal ends them."""
    time.sleep(seconds)
    return False


def _take_turns(monitor: "Monitor", subject: str, seconds: float, as_json: bool, wait: Callable[[float], bool]) -> None:
    before = None
    while True:
        turn = monitor.turn()
        if as_json:
            print_line(json.dumps(_record(turn, subject), default=str))
        elif (turn.result, turn.words) != before or turn.result == "failed":  # what goes on as it was is not news
            stamp = datetime.fromtimestamp(turn.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            print_line(*(f"{stamp} {turn.result:<6} {subject}{words}" for words in _lines(turn)))
        before = turn.result, turn.words
        if wait(min(seconds, _RETRY) if turn.result == "error" else seconds):
            return


def _lines(turn: "Turn") -> list[str]:
    return [f": {words}" for words in turn.words] or [f", in {turn.seconds:.2f} s"]


def _record(turn: "Turn", subject: str) -> dict[str, Any]:
    report: Any = turn.report
    record = {"subject": subject, "result": turn.result, "at": turn.at, "seconds": turn.seconds}
    return record | {"words": turn.words, "report": None if report is None else asdict(report)}


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """SIGTERM and Ctrl-C end the block, and with it the command, as what was asked for: with exit code 0."""
    in_main = threading.current_thread() is threading.main_thread()  # which alone may set handlers

    def end(_number: int, _frame: object) -> None:
        raise _Ended

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)} if in_main else {}
    try:
        yield
    except (_Ended, KeyboardInterrupt):
        return
    except SystemExit as ended:  # of a long run inside the block, which has handlers of its own
        if ended.code not in (INTERRUPTED, TERMINATED):
            raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Ended(BaseException):
    """A signal came. No ``except Exception`` of a check stops it."""
