"""The servers that are measured, each started from the package that ``mlpx package`` makes for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.served.closed import GRPC
from benchmarks.served.targets import OURS, WHOLE
from tests.servers.running import free_ports, running

_ROOT = Path(__file__).resolve().parents[2]


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

    def asked(self, kind: str, model: str) -> tuple[str, str]:
        """Address and path for requests of a kind."""
        return (self.grpc if kind == GRPC else self.rest), self.path(model)


Launching = Callable[[Path, Path, str, int, int], Launch]
"""From environment, package, model, REST port and gRPC port."""


def _ours(*options: str) -> Launching:
    def launch(environment: Path, package: Path, model: str, rest: int, grpc: int) -> Launch:
        ports = ["--port", str(rest), "--grpc-port", str(grpc), "--no-grpc"]
        return Launch([sys.executable, "-m", "mlpx", "serve", package, *ports, "--threads", "1", *options], cwd=_ROOT)

    return launch


@dataclass(frozen=True)
class Peer:
    """Another server."""

    environment: str
    target: str
    """Of ``mlpx package``."""
    backend: str | None
    launch: Launching


PEERS: dict[str, Peer] = {}
LAUNCHES: dict[str, Launching] = {
    OURS: _ours(),
    WHOLE: _ours("--no-coalescing"),
    **{name: peer.launch for name, peer in PEERS.items()},
}


@contextmanager
def served(name: str, environment: Path, package: Path, model: str, log: Path) -> Iterator[Server]:
    """A server of ``LAUNCHES``, once its model is ready. Raises AssertionError: it does not start."""
    rest, grpc = free_ports(2)
    launch = LAUNCHES[name](environment, package, model, rest, grpc)
    ready = f"http://127.0.0.1:{rest}/v2/models/{model}/ready"
    with running(launch.command, ready=ready, log=log, env=launch.env, cwd=launch.cwd, patience=120) as process:
        yield Server(f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}", process.pid)
