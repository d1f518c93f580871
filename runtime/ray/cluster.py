"""Starts the driver's process, reads its messages, and ends it."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.errors import ClusterError

_START, _CONNECT, _PROBE, _END = 120.0, 30.0, 5.0, 20.0
"""Timeouts in seconds: for a local cluster, for another, for its port, for an orderly end."""


@contextmanager
def driver_messages(task: dict[str, Any], address: str) -> Generator[Iterator[dict[str, Any]]]:
    """The driver's messages: the cluster first, then a receipt per part. The driver ends with the block.

    A local cluster is bound to the loopback address, has a token of its own, no dashboard, and sends no usage reports;
    its temporary folder is removed with it. Raises ClusterError: nothing answers at ``address``, or the driver died.
    """
    if address != "local":
        _probe(address)
    temporary = Path(tempfile.mkdtemp(prefix="mlpx-ray-", dir=_temporary_root()))
    log = temporary / "driver.log"
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime.ray.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(address),
            start_new_session=True,  # so that Ctrl-C reaches it only through this process
        )
    try:
        assert process.stdin is not None
        task = task | {"address": address, "temporary": str(temporary / "ray")}
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
        yield _read_messages(process, log, address)
    finally:
        _stop(process)
        _remove(temporary)


def _read_messages(process: subprocess.Popen[bytes], log: Path, address: str) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    wait = _START if address == "local" else _CONNECT
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        answered = selector.select(wait)
    if not answered:
        process.kill()  # while it connects, it ignores other signals
        if address == "local":
            raise ClusterError(f"Ray did not start on this machine within {wait:.0f} s")
        raise _unreachable(address, f"no Ray cluster answered within {wait:.0f} s")
    for line in process.stdout:
        message = json.loads(line)
        if "done" in message:
            return
        yield message
    last = [text for text in log.read_text(errors="replace").splitlines() if text.strip()][-1:]
    raise ClusterError(f"the process that connects to Ray died: {''.join(last) or 'without a message'}")


def _probe(address: str) -> None:
    """Raise ClusterError: the address is invalid, or nothing listens at its port."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        hint = "give auto, local, host:port or ray://host:port"
        raise ClusterError(f"'{address}' is not an address of a Ray cluster. What to do: {hint}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None


def _unreachable(address: str, reason: str) -> ClusterError:
    hint = "check the address and the port (usually 6379, 10001 for ray://), and that ray status answers there"
    return ClusterError(f"the Ray cluster at '{address}' cannot be reached: {reason}. What to do: {hint}")


def _environment(address: str) -> dict[str, str]:
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
    if address == "local":
        # Ray's switch for a cluster of one machine, bound to the loopback address
        environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        environment.pop("RAY_ADDRESS", None)
    return environment


def _temporary_root() -> str:
    """The folder for temporary ones, with a short path: the paths of Ray's sockets in it may have 107 bytes."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 20 else "/tmp"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END)
    with suppress(ProcessLookupError):  # the driver, if it hangs, and what is left of a local cluster
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _remove(folder: Path) -> None:
    """Remove a folder into which Ray's last processes still write logs while they end."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
