"""Commands that run code of the user's have a process of their own, and end with the code that it reports.

Such code may end its process with 0 (``os._exit``), or crash it. What was not reported did not happen: the process that
the user started waits, runs nothing itself, and exits with 0 only if the command says so at its end. The same command
line is run again, with the descriptors of two pipes in the environment: for the report, and one that is closed when the
first process dies, which ends the second.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from mlpx.exit_codes import INTERRUPTED, MACHINE_LACKS, WRONG_USE

from .streams import fit, write_beside

SUPERVISED = ("build", "export", "recover", "verify", "bound")
"""The commands that prove something, or run code of a module or of an archive."""
_VARIABLE = "MLPX_REPORT"
_GRACE = 10
"""Seconds from Ctrl-C until a process that has not ended is killed; a second Ctrl-C kills it at once."""
_HINT = "so nothing is proved. What to do: look in the module's code, and in what it calls, for what ends the process"


def is_supervised() -> bool:
    """Whether the command that this process was started for needs a process of its own.

    Not in a program that calls ``main`` with arguments of its own, nor under a debugger.
    """
    arguments = sys.argv[1:]
    own = bool(arguments) and sys.orig_argv[-len(arguments) :] == arguments
    return own and arguments[0] in SUPERVISED and _VARIABLE not in os.environ and sys.gettrace() is None


def supervise() -> int:
    """Run the command in a process of its own, pass signals on to it, and return its exit code."""
    import subprocess

    (report, reporting), (lifeline, held) = os.pipe(), os.pipe()
    for descriptor in (reporting, lifeline):
        os.set_inheritable(descriptor, True)
    environment = os.environ | {_VARIABLE: f"{_handle(reporting)},{_handle(lifeline)}"}
    received: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process is None:
            return
        if number == getattr(signal, "SIGALRM", None) or received.count(signal.SIGINT) > 1:
            process.kill()
        elif sys.platform != "win32":  # whose console tells both
            process.send_signal(number)
            if number == signal.SIGINT:
                signal.alarm(_GRACE)

    for name in ("SIGINT", "SIGTERM", "SIGALRM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        process = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment, close_fds=False)
    except OSError as error:
        write_beside(fit(f"mlpx: no process can be started for this command: {error}", sys.stderr))
        return MACHINE_LACKS
    for number in received:  # before there was a process
        process.send_signal(number)
    ended = process.wait()
    os.write(reporting, b".")  # so that reading never waits
    reported, complete, _ = os.read(report, 64).partition(b"\n")
    os.close(held)
    if complete:
        return int(reported)
    if signal.SIGINT in received:
        return INTERRUPTED
    if ended < 0 and -ended in received:
        signal.signal(-ended, signal.SIG_DFL)
        os.kill(os.getpid(), -ended)
    how = f"the process of this command {_format_end(ended)} before the command was done"
    write_beside(fit(f"mlpx: {how}, {_HINT}", sys.stderr))
    return WRONG_USE


def _format_end(ended: int) -> str:
    if ended >= 0:
        return f"ended with exit code {ended}"
    name = signal.Signals(-ended).name if -ended in {*signal.Signals} else f"signal {-ended}"
    return f"was ended by {name}{', as when memory runs out,' if name == 'SIGKILL' else ''}"


def reporter() -> Callable[[int], None]:
    """What tells the waiting process the exit code; nothing where there is none."""
    descriptors = os.environ.pop(_VARIABLE, None)
    if descriptors is None:
        return lambda _code: None
    reporting, lifeline = map(_descriptor, descriptors.split(","))
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    return lambda code: _send(reporting, code)


def _send(descriptor: int, code: int) -> None:
    os.write(descriptor, b"%d\n" % code)


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """A terminal interrupts both processes, and the first passes it on: the second time it would disturb the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with(lifeline: int) -> None:
    """Wait for the end of the process that waits, which holds the other end of the pipe, and end this one."""
    os.read(lifeline, 1)
    os._exit(WRONG_USE)


def _handle(descriptor: int) -> int:
    """What another process knows a descriptor by."""
    if sys.platform != "win32":
        return descriptor
    import msvcrt

    return msvcrt.get_osfhandle(descriptor)


def _descriptor(handle: str) -> int:
    """The descriptor of a ``_handle``, which no further process inherits."""
    descriptor = int(handle)
    if sys.platform == "win32":
        import msvcrt

        descriptor = msvcrt.open_osfhandle(descriptor, 0)
    os.set_inheritable(descriptor, False)
    return descriptor
