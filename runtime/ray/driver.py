"""The process that connects to Ray, separate from the user's: ``python -m runtime.ray.driver``.

It reads its task as one line of JSON, and writes lines of JSON: the cluster, a receipt per part, an error. Ray's own
output goes to standard error. It ends when its standard input does, and with it the cluster that it started. Whatever
happens to Ray, the user's process needs only a bounded wait for the next line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from runtime.errors import ClusterError, ProviderError
from runtime.extras import imported

from .worker import Job, error_record

_MIN_OBJECT_STORE = 1 << 27


def main() -> None:
    """Run the task that comes on standard input."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        ray = imported("ray", "--engine ray")
        _connect(ray, task)
        try:
            _run(ray, task, out)
        finally:
            ray.shutdown()
    except Exception as error:
        _write(out, error_record(error))


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)  # Ray turns it into an orderly exit


def _write(out: TextIO, record: dict[str, Any]) -> None:
    out.write(json.dumps(record) + "\n")


def _connect(ray: Any, task: dict[str, Any]) -> None:
    quiet = {"configure_logging": False, "log_to_driver": False}
    if task["address"] != "local":
        try:
            ray.init(address=task["address"], **quiet)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            hint = "start one with ray start --head, or leave out --address for one on this machine"
            raise ClusterError(f"no Ray cluster at '{task['address']}': {reason}. What to do: {hint}") from None
        return
    ray.init(
        address="local",
        num_cpus=task["workers"] * task["job"]["threads"],
        num_gpus=0 if task["job"]["device"] == "cpu" else None,
        include_dashboard=False,
        object_store_memory=_MIN_OBJECT_STORE + 2 * Path(task["file"]).stat().st_size,
        _temp_dir=task["temporary"],
        **quiet,
    )


def _run(ray: Any, task: dict[str, Any], out: TextIO) -> None:
    job, resources = task["job"], ray.cluster_resources()
    workers, gpu = _plan_workers(resources, task["workers"], job["device"], job["threads"])
    _write(out, {"workers": workers})
    model = ray.put(Path(task["file"]).read_bytes())
    try:
        actor = ray.remote(num_cpus=0)(Job).remote(job, [model], workers, gpu)
        while (receipt := ray.get(actor.next.remote())) is not None:
            out.write(receipt + "\n")
    except ray.exceptions.RayError as error:
        if "No module named 'runtime'" in str(error):
            hint = f"pip install 'mlpx[cpu,ray]=={job['version']}' there"
            raise ClusterError(f"the cluster's Python has no mlpx. What to do: {hint}") from None
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ClusterError(f"the cluster failed: {type(error).__name__}: {lines[-1] if lines else ''}") from None
    _write(out, {"done": True})


def _plan_workers(resources: dict[str, float], requested: int | None, device: str, threads: int) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU. Raises ProviderError and ClusterError: the cluster lacks them."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise ProviderError("device 'cuda' was asked for, and the cluster has no GPU. What to do: --device cpu")
    gpu = device != "cpu" and gpus > 0
    available = min(gpus, cpus // threads) if gpu else cpus // threads
    if (requested or 1) > available:
        wanted = f"{requested or 1} workers of {threads} CPUs{' and a GPU' if gpu else ''} were asked for"
        has = f"the cluster has {cpus} CPUs" + (f" and {gpus} GPUs" if gpu else "")
        hint = f"--workers {max(1, available)}" + ("" if available else " and fewer --threads")
        raise ClusterError(f"{wanted}, and {has}. What to do: {hint}")
    return requested or available, gpu


if __name__ == "__main__":
    main()
