"""MLflow in its own environment: a tracking server with its registry, its commands, and Python there."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import ROOT

from .environments import environment, variables
from .running import free_ports, running


class MlflowError(Exception):
    """What a piece of code raised there; ``kind`` is the name of its class."""

    def __init__(self, kind: str, words: str):
        super().__init__(f"{kind}: {words}")
        self.kind, self.words = kind, words


class Mlflow:
    """Python in MLflow's environment, with a tracking server."""

    def __init__(self, uri: str, process: subprocess.Popen[str]):
        self.uri, self._process = uri, process

    def __call__(self, code: str, **names: Any) -> Any:
        """What a piece of code names ``result``. Raises MlflowError: what the piece raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"code": textwrap.dedent(code), "names": names}, default=str) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise MlflowError(answer["error"], answer["words"])
        return answer["result"]


def settings(uri: str) -> dict[str, str]:
    """The variables of a process that uses MLflow: mlpx from this folder, and no second tries at a dead server."""
    return {
        **variables(environment("mlflow")),
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """A tracking server with its registry on SQLite, which keeps the files itself; gives its address."""
    command = [environment("mlflow") / "bin" / "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    (port,) = free_ports(1)
    kept = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", folder / "artifacts"]
    uri = f"http://127.0.0.1:{port}"
    env = settings(uri) | {"_MLFLOW_SERVER_SERVE_ARTIFACTS": "true"}
    with running(
        [*command, "--port", str(port), *kept], ready=f"{uri}/health", log=folder / "server.log", env=env, cwd=folder
    ):
        yield uri


@contextmanager
def python(uri: str, folder: Path, **env: str) -> Iterator[Mlflow]:
    """Python with MLflow, in a folder of its own."""
    program = [str(environment("mlflow") / "bin" / "python"), "-m", "tests.support.servers.mlflow_worker"]
    with (
        open(folder / "python.log", "w") as log,
        subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env=os.environ | settings(uri) | env,
        ) as process,
    ):
        try:
            yield Mlflow(uri, process)
        finally:
            process.kill()


def shell(uri: str, command: str, *, cwd: Path) -> str:
    """What a command of a shell prints, as ``mlflow models predict …``."""
    env: Mapping[str, str] = os.environ | settings(uri)
    done = subprocess.run(
        ["bash", "-c", command], env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(uri: str, model: str, folder: Path) -> Iterator[str]:
    """``mlflow models serve`` of a model; gives the URL of its predictions."""
    (port,) = free_ports(1)
    serve = [environment("mlflow") / "bin" / "mlflow", "models", "serve", "--env-manager", "local", "-m", model]
    ready, log = f"http://127.0.0.1:{port}/ping", folder / "serve.log"
    with running([*serve, "--port", str(port)], ready=ready, log=log, env=settings(uri), cwd=folder):
        yield f"http://127.0.0.1:{port}/invocations"
