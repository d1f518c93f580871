"""``mlpx serve`` as a process of its own, as users start it, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from builder import MLPSpec, assemble
from export import export
from runtime import Session
from tests.support import ROOT
from tests.support.policy import SHAPES, Policy

START_SECONDS = 120.0


@dataclass
class Server:
    """One that is running: ``url`` of REST, ``grpc`` as host:port, what it said of its models, what it serves."""

    process: subprocess.Popen[str]
    url: str
    grpc: str
    models: list[dict[str, str]]
    log_file: Path
    folder: Path

    @property
    def pid(self) -> int:
        """Of the supervisor; a worker's is in the log's events."""
        return self.process.pid

    def log(self) -> list[dict[str, Any]]:
        """The events so far; a line that is no JSON fails the test."""
        return [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Those of one kind."""
        return [event for event in self.log() if event["event"] == name]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal, wait for the end, and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def serving(folder: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """``mlpx serve FOLDER`` with further arguments, on free ports, until the block ends."""
    command = [sys.executable, "-m", "mlpx", "serve", folder, "--port", 0, "--grpc-port", 0, "--device", "cpu"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | dict(environment or {})
    with tempfile.TemporaryDirectory(prefix="mlpx-log-") as place:
        log = Path(place, "log")
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [*map(str, command), *map(str, arguments), "--json"],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                text=True,
                env=variables,
            )
        try:
            said = _said(process, log)
            grpc = (said["grpc"] or "//").partition("//")[2]
            yield Server(process, said["url"], grpc, said["models"], log, folder)
        finally:
            _end(process)


def _said(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """The object that the server prints when it takes requests."""
    assert process.stdout is not None
    descriptor, text = process.stdout.fileno(), b""
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(descriptor, 65_536)
            text += piece
            if not piece:
                break
            try:
                return json.loads(text)
            except ValueError:
                continue
    raise AssertionError(f"the server did not start: {text!r} {log.read_text(encoding='utf-8')[-4000:]}")


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What an answer that is an error says; fails where it is none, or has another shape."""
        assert self.status >= 400 and set(self.json) == {"error"}, (self.status, self.body[:500])
        return self.json["error"]


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | str | dict[str, Any] | None = None,
    *,
    context: ssl.SSLContext | None = None,
    **headers: str,
) -> Reply:
    """One request on a connection of its own; a dict is sent as JSON, underscores in header names are hyphens."""
    place = urlsplit(url)
    kind = {"context": context} if place.scheme == "https" else {}
    make: Any = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = make(place.hostname, place.port, timeout=60, **kind)
    try:
        content = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, content, {name.replace("_", "-"): held for name, held in headers.items()})
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): held for name, held in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of a condition; fails where it does not come in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
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
