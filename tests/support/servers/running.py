"""A server as a process of its own: started, waited for, and stopped by its own id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_ports(count: int) -> list[int]:
    """That many loopback ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    ready: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    patience: float = 60,
    grace: float = 10,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, from the moment on when its URL ``ready`` answers 200.

    What it prints goes to ``log``. ``env`` is added to this process's variables, less PYTHONPATH, so that the server
    sees its own packages only. ``patience`` and ``grace`` are seconds: until it is ready, and from SIGTERM until its
    whole session is killed. Raises AssertionError with the end of the log: it ended, or was not ready in time.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as written:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=inherited | dict(env or {}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + patience
        while not _answers(ready):
            if process.poll() is not None:
                raise AssertionError(f"it ended with code {process.returncode} before it was ready:\n{_end(log)}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{ready} did not answer within {patience:g} s:\n{_end(log)}")
            time.sleep(0.05)
        yield process
    finally:
        _stop(process, grace)


def _answers(url: str) -> bool:
    try:
        with _direct.open(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]


def _stop(process: subprocess.Popen[bytes], grace: float) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    deadline = time.monotonic() + grace
    while (left := session(process.pid)) and time.monotonic() < deadline:  # what it left, or itself
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.05)
    process.wait()


def session(leader: int) -> list[int]:
    """The running processes of a session: also those that have made a group of their own, as Ray's workers do."""
    pids = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(ProcessLookupError, PermissionError, FileNotFoundError):
                ended = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX"
                if os.getsid(int(path.name)) == leader and not ended:
                    pids.append(int(path.name))
    return pids
