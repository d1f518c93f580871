"""Triton itself, whose binary comes in the wheel of nvidia-pytriton, with its Python backend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .environments import environment, variables
from .running import free_ports, running


@dataclass(frozen=True)
class Addresses:
    """Where a server listens, as "127.0.0.1:8000"."""

    http: str
    grpc: str
    metrics: str


@contextmanager
def triton(repository: Path, log: Path, *options: str) -> Iterator[Addresses]:
    """A Triton that serves a model repository, with further options. Skips where it is not installed."""
    folder = environment("triton")
    (packages,) = (folder / "lib").glob("python3.*/site-packages")
    server = packages / "pytriton" / "tritonserver"
    http, grpc, metrics = free_ports(3)
    libraries = os.pathsep.join([str(server / "lib"), str(packages / "nvidia_pytriton.libs")])
    with running(
        [
            server / "bin" / "tritonserver",
            f"--model-repository={repository}",
            f"--backend-directory={server / 'backends'}",
            *("--http-address=127.0.0.1", f"--http-port={http}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={metrics}"),
            *options,
        ],
        ready=f"http://127.0.0.1:{http}/v2/health/ready",
        log=log,
        env=variables(folder) | {"PYTHONPATH": str(packages), "LD_LIBRARY_PATH": libraries},
    ):
        yield Addresses(*(f"127.0.0.1:{port}" for port in (http, grpc, metrics)))
