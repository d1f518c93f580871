"""The servers that packages are for, each with its packages, started as a package's README or image starts it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from export import Package, package, publish
from tests.support.cases import network, randomised
from tests.support.onnx_drafts import fixed_batch
from tests.support.servers.asking import Live, policy, words
from tests.support.servers.environments import environment, variables
from tests.support.servers.running import free_ports, running, session
from tests.support.servers.triton import triton

Model = Callable[[Path], Path]
"""Writes a proved file into a folder."""
Change = Callable[[Package], None]
"""What a test does to a package before its server starts."""


def _unchanged(_: Package) -> None:
    """Leave a package as it is."""


@contextmanager
def _kserve(
    folder: Path, change: Change = _unchanged, model: Model = policy, **options: Any
) -> Iterator[dict[str, Live]]:
    """The server of backend "custom"."""
    server = environment("kserve")
    made = package(model(folder), "kserve", folder / "package", backend="custom", max_batch=64, **options)
    change(made)
    http, grpc = free_ports(2)
    live = Live(made, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", f"127.0.0.1:{http}/metrics")
    image = (made.folder / "Dockerfile").read_text()
    python, script, *arguments = json.loads(image.partition("CMD ")[2])
    start = [server / "bin" / python, made.folder / script.lstrip("/"), *arguments]
    ports = [f"--http_port={http}", f"--grpc_port={grpc}"]
    ready = f"http://{live.http}/v2/health/ready"
    with running([*start, *ports], ready=ready, log=folder / "log", env=variables(server), cwd=folder):
        yield {live.name: live}


@contextmanager
def _mlserver(
    folder: Path, change: Change = _unchanged, model: Model = policy, **options: Any
) -> Iterator[dict[str, Live]]:
    server = environment("mlserver")
    made = package(model(folder), "mlserver", folder / "package", max_batch=64, **options)
    change(made)
    http, grpc, metrics = free_ports(3)
    settings = made.folder / "settings.json"
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | ports))
    live = Live(made, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", f"127.0.0.1:{metrics}/metrics")
    start, ready = [server / "bin" / "mlserver", "start", "."], f"{live.url}/ready"
    with running(start, ready=ready, log=folder / "log", env=variables(server), cwd=made.folder):
        yield {live.name: live}


@contextmanager
def _ray_serve(
    folder: Path, change: Change = _unchanged, model: Model = policy, **options: Any
) -> Iterator[dict[str, Live]]:
    server = environment("ray-serve")
    made = package(model(folder), "ray-serve", folder / "package", max_batch=64, **options)
    change(made)
    (http,) = free_ports(1)
    config = made.folder / "serve.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["http_options"]["port"] = http
    config.write_text(yaml.safe_dump(settings))
    live = Live(made, f"127.0.0.1:{http}")
    start, ready = [server / "bin" / "serve", "run", "serve.yaml", "--app-dir", "."], f"{live.url}/ready"
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        env = variables(server) | {"RAY_TMPDIR": sockets, "RAY_USAGE_STATS_ENABLED": "0"}
        env["RAY_metrics_report_interval_ms"] = "200"
        with running(start, ready=ready, log=folder / "log", env=env, cwd=made.folder, patience=150) as process:
            (told,) = json.loads(Path(sockets, "ray", "prom_metrics_service_discovery.json").read_text())
            yield {live.name: replace(live, metrics=f"{told['targets'][0]}/metrics")}
        assert session(process.pid) == []


@contextmanager
def _triton(folder: Path) -> Iterator[dict[str, Live]]:
    """Its Python backend: plain, of several inputs with external data, of a fixed batch, of words, and of any width."""
    environment("triton")
    spec, module = network([{"linear": 32}, "relu", {"linear": 3}])
    publish(randomised(module, 1), folder / "plain.onnx", spec=spec, page=False)
    options: dict[str, dict[str, Any]] = {
        "policy": {"path": policy(folder), "max_batch": 64, "delay_us": 30_000},
        "plain": {"path": folder / "plain.onnx", "max_batch": 64, "delay_us": 30_000},
        "fixed": {"path": fixed_batch(folder, 12)},
        "words": {"path": words(folder), "max_batch": 64},
        "loose": {"path": folder / "plain.onnx", "delay_us": 100_000},
    }
    packages = {
        name: package(target="triton", folder=folder / name, name=name, backend="python", **settings)
        for name, settings in options.items()
    }
    _let_any_width_by(packages["loose"].folder / "models" / "loose" / "config.pbtxt")
    repository = folder / "repository"
    repository.mkdir()
    for name, made in packages.items():
        (repository / name).symlink_to(made.folder / "models" / name)
    with triton(repository, folder / "triton.log") as at:
        yield {name: Live(made, at.http, at.grpc) for name, made in packages.items()}


def _let_any_width_by(config: Path) -> None:
    """So that a request reaches the model, in a batch with others, whose width it cannot take."""
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("dims: [ 7 ]", "dims: [ -1 ]\n  allow_ragged_batch: true", 1), encoding="utf-8")


@contextmanager
def _triton_alone(folder: Path, change: Change = _unchanged, **options: Any) -> Iterator[dict[str, Live]]:
    """Its Python backend with one model."""
    environment("triton")
    made = package(policy(folder), "triton", folder / "package", backend="python", max_batch=64, **options)
    change(made)
    with triton(made.folder / "models", folder / "triton.log") as at:
        yield {"policy": Live(made, at.http, at.grpc, f"{at.metrics}/metrics")}


ALONE: dict[str, Callable[..., AbstractContextManager[dict[str, Live]]]] = {
    "kserve": _kserve,
    "mlserver": _mlserver,
    "ray-serve": _ray_serve,
    "triton": _triton_alone,
}
"""Each server with one model: of a folder, with a ``Change`` of the package and its options."""
SERVERS: dict[str, Callable[[Path], AbstractContextManager[dict[str, Live]]]] = {
    "kserve": _kserve,
    "kserve-words": partial(_kserve, model=words),
    "mlserver": _mlserver,
    "mlserver-words": partial(_mlserver, model=words),
    "ray-serve": _ray_serve,
    "triton": _triton,
}
"""Each gives its models by their names, until it ends. Skips where the server is not installed."""
