"""``mlpx serve`` as a process of its own, on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support import ROOT

PATIENCE = 60.0
"""Seconds until something that must come is given up."""


def eventually(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until ``true()`` is; what it then is. Fails where it takes longer than ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < deadline, f"{what}: not within {patience:g} s"
        time.sleep(0.01)
    return found


class Service:
    """A server that runs: ``url`` and ``address`` (host, port), its log, its processes."""

    def __init__(self, process: subprocess.Popen[str], started: dict[str, Any], log: Path):
        self.process, self.started, self._log, self._seen = process, started, log, 0
        self.url: str = started["url"]
        split = urlsplit(self.url)
        assert split.hostname is not None and split.port is not None
        self.address = split.hostname, split.port

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it logged; with ``event`` only those."""
        lines = self._lines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if event in (None, record["event"])]

    def _lines(self) -> list[str]:
        """The log, but for a line that is being written."""
        return self._log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()

    def unexpected(self) -> list[str]:
        """Lines of the log that tell of a defect, since the last time that this was asked."""
        lines = self._lines()
        new, self._seen = lines[self._seen :], len(lines)
        return [line for line in new if not line.startswith("{") or _is_defect(json.loads(line))]

    def workers(self) -> list[int]:
        """The process ids of those that answer, from its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [pid for pid in map(int, children) if b"spawn_main" in _command(pid)]

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """One request on a connection of its own: status, body, headers in lower case."""
        connection = HTTPConnection(*self.address, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            return read(connection.getresponse())
        finally:
            connection.close()

    def stop(self) -> int:
        """Tell it to stop, and wait; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def _is_defect(record: dict[str, Any]) -> bool:
    """Failures, dead workers, and what a library calls an error."""
    return record["event"] in ("failure", "worker_died") or record.get("level") in ("ERROR", "CRITICAL")


def read(response: HTTPResponse) -> tuple[int, bytes, dict[str, str]]:
    """Status, body, headers in lower case."""
    body = response.read()
    return response.status, body, {name.lower(): value for name, value in response.getheaders()}


@contextmanager
def serving(folder: Path, log: Path, *options: object) -> Iterator[Service]:
    """``mlpx serve FOLDER`` with more options, until the end; every process of it is gone then."""
    command = [sys.executable, "-m", "mlpx", "serve", folder, "--port", "0", "--json", *options]
    if "--grpc-port" not in options:
        command.append("--no-grpc")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        told = line = ""
        while line != "}\n":
            line = process.stdout.readline()
            assert line, f"it ended with code {process.wait(PATIENCE)}: {log.read_text()[-2000:]}"
            told += line
        yield Service(process, json.loads(told), log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _command(pid: int) -> bytes:
    """The command line of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
