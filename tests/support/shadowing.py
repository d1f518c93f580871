"""``mlpx shadow`` as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.mlpx.terminal import environment
from tests.support.serving import PATIENCE, Reply, ask, until


class Shadow:
    """One that is running: the lines that it printed, and what it counted once it is stopped."""

    def __init__(self, process: subprocess.Popen[str], started: dict[str, Any]):
        self.process = process
        self.url: str = started["url"]
        self.metrics_url: str = started["metrics"] or ""

    def ask(self, body: Any = None, path: str = "/v2/models/m/infer", **headers: str) -> Reply:
        """A request through it: POST with a body, GET without."""
        return ask(self.url, "GET" if body is None else "POST", path, body, **headers)

    def metrics(self) -> dict[str, float]:
        """Its counters, by the name and the labels."""
        text = ask(self.metrics_url, "GET", "/metrics").body.decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def counted(self, name: str, least: float) -> None:
        """Wait for a counter."""
        until(lambda: self.metrics().get(f"mlpx_shadow_{name}", 0) >= least, name)

    def outcome(self, kind: str, least: int = 1, model: str = "m") -> None:
        """Wait for outcomes of a kind."""
        self.counted(f'outcomes_total{{model="{model}",outcome="{kind}"}}', least)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        """End it: the exit code, the outcomes that it told, and the summary."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE)
        *told, summary = map(json.loads, out.splitlines())
        return self.process.returncode, told, summary


@contextmanager
def shadowing(old: str, new: str, *options: object, **variables: str) -> Iterator[Shadow]:
    """``mlpx shadow`` with more options, on free ports, until the block ends."""
    command = [sys.executable, "-m", "mlpx", "shadow", "--old", old, "--new", new, "--port", 0, "--metrics", 0]
    process = subprocess.Popen(
        [*map(str, command), *map(str, options), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )
    assert process.stdout is not None
    try:
        yield Shadow(process, json.loads(process.stdout.readline() or "{}"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
