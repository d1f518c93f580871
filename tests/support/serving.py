"""``mlpx serve`` as a process of its own, as users start it, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch

from builder import MLPSpec, assemble
from export import export
from runtime import Session
from tests.support import ROOT
from tests.support.policy import SHAPES, Policy

PATIENCE = 60.0
"""Seconds until something that must come is given up."""


class Reply(NamedTuple):
    """An HTTP answer; header names in lower case."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What an answer that is an error says; fails where it is none, or has another shape."""
        assert self.status >= 400, (self.status, self.body[:500])
        assert set(self.json) == {"error"}, (self.status, self.body[:500])
        return self.json["error"]


class Server:
    """One that is running: ``url`` of REST, ``grpc`` as host:port, what it said of its models, what it serves."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any], log_file: Path, folder: Path):
        self.process, self.log_file, self.folder, self._seen = process, log_file, folder, 0
        self.url: str = told["url"]
        self.grpc: str = (told["grpc"] or "//").partition("//")[2]
        self.models: list[dict[str, str]] = told["models"]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of REST."""
        place = urlsplit(self.url)
        assert place.hostname is not None
        assert place.port is not None
        return place.hostname, place.port

    @property
    def pid(self) -> int:
        """Of the supervisor; a worker's is in the log's events."""
        return self.process.pid

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What it logged so far, or that of one kind; a line that is no JSON fails the test."""
        return [event for event in map(json.loads, self._lines()) if name in (None, event["event"])]

    def _lines(self) -> list[str]:
        """The log, but for a line that is being written."""
        return self.log_file.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()

    def unexpected(self) -> list[str]:
        """Lines of the log that tell of a defect, since the last time that this was asked."""
        lines = self._lines()
        new, self._seen = lines[self._seen :], len(lines)
        return [line for line in new if not line.startswith("{") or _is_defect(json.loads(line))]

    def workers(self) -> list[int]:
        """The process ids of those that answer, from its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [pid for pid in map(int, children) if b"spawn_main" in _command(pid)]

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own."""
        return ask(self.url, method, path, body, **(headers or {}))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def _is_defect(record: dict[str, Any]) -> bool:
    """Failures, dead workers, and what a library calls an error."""
    return record["event"] in ("failure", "worker_died") or record.get("level") in ("ERROR", "CRITICAL")


def _command(pid: int) -> bytes:
    """The command line of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def serving(
    folder: Path,
    *options: object,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str | Path] = ("-m", "mlpx"),
) -> Iterator[Server]:
    """``mlpx serve FOLDER`` with more options, on free ports, until the block ends; every process of it is gone then.

    It serves on the CPU unless the options have another ``--device``. ``program`` is what Python runs.
    """
    command = [sys.executable, *program, "serve", folder, "--port", 0, "--grpc-port", 0, "--device", "cpu"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="mlpx-log-") as place:
        log = Path(place, "log")
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [*map(str, command), *map(str, options), "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | dict(environment or {}),
                start_new_session=True,
            )
        try:
            yield Server(process, _told(process, log), log, folder)
        finally:
            _end(process)


def _told(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """The object that the server prints when it takes requests."""
    assert process.stdout is not None
    text, late = "", Timer(2 * PATIENCE, process.kill)
    late.start()
    for line in process.stdout:
        text += line
        if line == "}\n":
            break
    late.cancel()
    assert text.endswith("}\n"), f"the server did not start: {text!r} {log.read_text(encoding='utf-8')[-4000:]}"
    return json.loads(text)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def read(response: http.client.HTTPResponse) -> Reply:
    """An answer as a whole."""
    body = response.read()
    return Reply(response.status, body, {name.lower(): value for name, value in response.getheaders()})


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | str | dict[str, Any] | None = None,
    *,
    context: Any = None,  # an ssl.SSLContext
    **headers: str,
) -> Reply:
    """One request on a connection of its own; a dict is sent as JSON, underscores in header names are hyphens."""
    place = urlsplit(url)
    kind = {"context": context} if place.scheme == "https" else {}
    make: Any = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = make(place.hostname, place.port, timeout=PATIENCE, **kind)
    try:
        content = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, content, {name.replace("_", "-"): held for name, held in headers.items()})
        return read(connection.getresponse())
    finally:
        connection.close()


def until(condition: Callable[[], Any], what: str = "what must come") -> Any:
    """The first true value of a condition; fails where it does not come in time."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.01)
    return found


def model(file: Path, *, features: int = 4, outputs: int = 3, seed: int = 0, blocks: list[Any] | None = None) -> Path:
    """A small network with input ``x`` [batch, features] and output ``y`` [batch, outputs], written without a proof."""
    file.parent.mkdir(parents=True, exist_ok=True)
    hidden = [{"linear": 8}, "relu"] if blocks is None else blocks
    parts = {"input": {"name": "x", "features": features}, "output": {"name": "y"}}
    spec = MLPSpec(name="m", blocks=[*hidden, {"linear": outputs}], **parts)
    export(assemble(spec, seed=seed).eval(), file, spec=spec)
    return file


def policy(file: Path) -> Path:
    """A network of two inputs and two outputs, written without a proof."""
    torch.manual_seed(0)
    export(Policy(), file, input_shape=SHAPES)
    return file


def models(folder: Path) -> Path:
    """What most tests serve: ``one``, ``several`` with two inputs and outputs, and ``many`` with versions 2 and 10."""
    model(folder / "one.onnx")
    policy(folder / "several.onnx")
    for version in (2, 10):
        model(folder / "many" / str(version) / "model.onnx", seed=version)
    return folder


def rows(count: int, width: int = 4, seed: int = 0) -> np.ndarray:
    """Standard normal float32 rows."""
    return np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)


def expected(file: Path, **feed: np.ndarray) -> dict[str, np.ndarray]:
    """What a session of its own answers."""
    with Session(file, "cpu") as session:
        return session.run(feed)
