"""The servers that are measured: ``mlpx serve``, and others, each started from the package that is made for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.served.closed import GRPC
from benchmarks.served.targets import KSERVE, MLSERVER, OURS, RAY, TRITON, WHOLE
from tests.support.servers.environments import variables
from tests.support.servers.install import ENVIRONMENTS
from tests.support.servers.running import free_ports, running
from tests.support.servers.triton import triton

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 120.0


@dataclass(frozen=True)
class Server:
    """A server that runs; addresses are host:port."""

    rest: str
    grpc: str = ""
    session: int = 0
    """The id of its process and of its session; of ours only."""

    @staticmethod
    def path(model: str) -> str:
        """Where a model is asked."""
        return f"/v2/models/{model}/infer"

    def asked(self, kind: str, model: str) -> tuple[str, str]:
        """Address and path for requests of a kind."""
        return (self.grpc if kind == GRPC else self.rest), self.path(model)


Command = Callable[[Path, Path, str, tuple[int, int, int]], list[str | Path]]
"""What starts a server in the folder of a package, from its environment, the package, the model's name and ports."""


@dataclass(frozen=True)
class Peer:
    """Another server, its environment in ``.servers`` and what ``mlpx package`` is to make."""

    environment: str
    target: str
    backend: str
    command: Command | None = None


def _ours(*options: str) -> Command:
    def command(_environment: Path, package: Path, _model: str, ports: tuple[int, int, int]) -> list[str | Path]:
        rest, grpc, _ = map(str, ports)
        places = ["--port", rest, "--grpc-port", grpc]
        return [sys.executable, "-m", "mlpx", "serve", package, "--device", "cpu", *places, "--threads", "1", *options]

    return command


def _mlserver(environment: Path, package: Path, _model: str, ports: tuple[int, int, int]) -> list[str | Path]:
    file = package / "settings.json"
    places = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    file.write_text(json.dumps(json.loads(file.read_text()) | places))
    return [environment / "bin" / "mlserver", "start", "."]


def _kserve(environment: Path, package: Path, model: str, ports: tuple[int, int, int]) -> list[str | Path]:
    places = [f"--http_port={ports[0]}", f"--grpc_port={ports[1]}"]
    return [environment / "bin" / "python", package / "model" / "kserve_model.py", f"--model_name={model}", *places]


def _ray(environment: Path, package: Path, _model: str, ports: tuple[int, int, int]) -> list[str | Path]:
    """One replica, as the others have one worker."""
    file = package / "serve.yaml"
    config = yaml.safe_load(file.read_text())
    config["http_options"]["port"] = ports[0]
    config["applications"][0]["deployments"][0]["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    file.write_text(yaml.safe_dump(config))
    return [environment / "bin" / "serve", "run", "serve.yaml", "--app-dir", "."]


PEERS = {
    TRITON: Peer("triton", "triton", "python"),
    MLSERVER: Peer("mlserver", "mlserver", "onnxruntime", _mlserver),
    KSERVE: Peer("kserve", "kserve", "custom", _kserve),
    RAY: Peer("ray-serve", "ray-serve", "onnxruntime", _ray),
}
_OURS = {OURS: _ours(), WHOLE: _ours("--no-coalescing")}


@contextmanager
def served(name: str, package: Path, model: str, log: Path) -> Iterator[Server]:
    """A server with the package of a model, once that is ready. Raises AssertionError: it does not start."""
    peer = PEERS.get(name)
    if name == TRITON:
        with triton(package / "models", log) as at:
            yield Server(at.http, at.grpc)
        return
    rest, grpc, more = free_ports(3)
    environment = Path() if peer is None else ENVIRONMENTS / peer.environment
    command = _OURS[name] if peer is None else peer.command
    assert command is not None
    with running(
        command(environment, package, model, (rest, grpc, more)),
        ready=f"http://127.0.0.1:{rest}/v2/models/{model}/ready",
        log=log,
        env={} if peer is None else variables(environment) | {"RAY_USAGE_STATS_ENABLED": "0"},
        cwd=_ROOT if peer is None else package,
        patience=_PATIENCE,
    ) as process:
        yield Server(f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}", process.pid)
