"""The servers that are measured, each started from the package that ``mlpx package`` makes for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.served.targets import OURS, WHOLE
from tests.servers.running import free_ports, running


@dataclass(frozen=True)
class Launch:
    """How a server is started."""

    command: list[str | Path]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True)
class Server:
    """A server that runs, at host:port."""

    rest: str
    grpc: str
    session: int
    """The id of its process and of its session."""

    @staticmethod
    def path(model: str) -> str:
        """Where a model is asked."""
        return f"/v2/models/{model}/infer"


Launching = Callable[[Path, Path, str, int, int], Launch]
"""From environment, package, model, REST port and gRPC port."""


def _ours(*options: str) -> Launching:
    def launch(environment: Path, package: Path, model: str, rest: int, grpc: int) -> Launch:
        ports = ["--port", str(rest), "--grpc-port", str(grpc)]
        return Launch([sys.executable, "-m", "mlpx", "serve", package, *ports, "--threads", "1", *options])

    return launch


LAUNCHES: dict[str, Launching] = {
    OURS: _ours(),
    WHOLE: _ours("--no-coalescing"),
}


@contextmanager
def served(name: str, environment: Path, package: Path, model: str, log: Path) -> Iterator[Server]:
    """A server of ``LAUNCHES``, from when it answers that the model is ready. Raises AssertionError: it does not start."""
    rest, grpc, more = free_ports(3)
    launch = LAUNCHES[name](environment, package, model, rest, grpc)
    ready = f"http://127.0.0.1:{rest}/v2/models/{model}/ready"
    with running(launch.command, ready=ready, log=log, env=launch.env, cwd=launch.cwd, patience=120) as process:
        yield Server(f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}", process.pid)
