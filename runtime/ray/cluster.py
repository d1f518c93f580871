"""The driver's process, as the user's process sees it."""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.errors import ClusterError

_START, _CONNECT, _PROBE, _END = 120.0, 15.0, 5.0, 20.0
"""Seconds that are waited at most: for a local cluster, for another, for its port, for an orderly end."""


@contextmanager
def messages(task: dict[str, Any], address: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What the driver says, the cluster first, then a receipt per part; at the end of the block it is gone.

    A local cluster is bound to the loopback address, has a token of its own, no dashboard and sends no usage reports;
    its temporary folder goes with it. Raises ClusterError: nothing answers at ``address``, or the driver died.
    """
    if address != "local":
        _probe(address)
    temporary = Path(tempfile.mkdtemp(prefix="mlpx-ray-", dir=_short()))
    log = temporary / "driver.log"
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime.ray.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(address),
            start_new_session=True,  # so that Ctrl-C reaches it through us alone, after the results are safe
        )
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    try:
        assert process.stdin is not None
        whole = task | {"address": address, "temporary": str(temporary / "ray")}
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(whole).encode() + b"\n")
            process.stdin.flush()
        yield _records(process, lines, log, address)
    finally:
        _end(process)
        _remove(temporary)


def _records(
    process: subprocess.Popen[bytes], lines: queue.Queue[bytes | None], log: Path, address: str
) -> Iterator[dict[str, Any]]:
    wait: float | None = _START if address == "local" else _CONNECT
    while True:
        try:
            line = lines.get(timeout=wait)
        except queue.Empty:
            process.kill()  # deaf to anything less while it connects
            if address == "local":
                raise ClusterError(f"Ray did not start on this machine within {wait:.0f} s") from None
            raise _unreachable(address, f"no Ray cluster answered within {wait:.0f} s") from None
        wait = None
        if line is None:
            last = [text for text in log.read_text(errors="replace").splitlines() if text.strip()][-1:]
            raise ClusterError(f"the process that speaks to Ray died: {''.join(last) or 'without a word'}")
        record = json.loads(line)
        if "done" in record:
            return
        yield record


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _probe(address: str) -> None:
    """Raise ClusterError where the address names a port at which nobody listens."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        hint = "give auto, local, host:port or ray://host:port"
        raise ClusterError(f"'{address}' is no address of a Ray cluster. What to do: {hint}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None


def _unreachable(address: str, reason: str) -> ClusterError:
    hint = "check the address and the port (6379 as a rule, 10001 for ray://), and that ray status answers there"
    return ClusterError(f"the Ray cluster at '{address}' cannot be reached: {reason}. What to do: {hint}")


def _environment(address: str) -> dict[str, str]:
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
    if address == "local":
        # Ray's switch for a cluster of one machine, which it then binds to the loopback address.
        found |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        found.pop("RAY_ADDRESS", None)
    return found


def _short() -> str:
    """A folder for temporary ones: Ray's sockets lie in it, and their paths may have 107 bytes."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 20 else "/tmp"


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END)
    with suppress(ProcessLookupError):  # the driver, if it hangs, and what Ray left of a local cluster
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _remove(folder: Path) -> None:
    """Ray's last processes still write their logs while they end."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
