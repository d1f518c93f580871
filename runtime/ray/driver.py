"""The process that speaks to Ray, apart from the user's: ``python -m runtime.ray.driver``.

It reads one line of JSON, what to do, and writes lines of JSON: the cluster, a receipt per part, an error. Ray's own
words go to its standard error. It ends when its standard input does, and with it the cluster that it started. Whatever
happens to Ray, a bounded wait for the next line is all that the user's process needs.
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

from .worker import Job, told

_STORE_FLOOR = 1 << 27


def main() -> None:
    """Do what standard input says."""
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
        _say(out, told(error))


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)  # Ray makes it an orderly exit


def _say(out: TextIO, record: dict[str, Any]) -> None:
    out.write(json.dumps(record) + "\n")


def _connect(ray: Any, task: dict[str, Any]) -> None:
    quiet = {"configure_logging": False, "log_to_driver": False}
    if task["address"] != "local":
        try:
            ray.init(address=task["address"], **quiet)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            hint = "ray start --head starts one; or leave --address out, for one on this machine"
            raise ClusterError(f"no Ray cluster at '{task['address']}': {reason}. What to do: {hint}") from None
        return
    ray.init(
        address="local",
        num_cpus=task["workers"] * task["work"]["threads"],
        num_gpus=0 if task["work"]["device"] == "cpu" else None,
        include_dashboard=False,
        object_store_memory=_STORE_FLOOR + 2 * Path(task["file"]).stat().st_size,
        _temp_dir=task["temporary"],
        **quiet,
    )


def _run(ray: Any, task: dict[str, Any], out: TextIO) -> None:
    work, found = task["work"], ray.cluster_resources()
    workers, gpu = _workers(found, task["workers"], work["device"], work["threads"])
    _say(out, {"workers": workers, "gpu": gpu, "cpus": found.get("CPU", 0), "gpus": found.get("GPU", 0)})
    model = ray.put(Path(task["file"]).read_bytes())
    try:
        job = ray.remote(num_cpus=0)(Job).remote(work, [model], workers, gpu)
        while (receipt := ray.get(job.next.remote())) is not None:
            out.write(receipt + "\n")
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        if "No module named 'runtime'" in str(error):
            message = (
                f"the cluster's Python has no mlpx. What to do: pip install 'mlpx[cpu,ray]=={work['version']}' there"
            )
            raise ClusterError(message) from None
        raise ClusterError(f"the cluster gave up: {type(error).__name__}: {lines[-1] if lines else ''}") from None
    _say(out, {"done": True})


def _workers(found: dict[str, float], asked: int | None, device: str, threads: int) -> tuple[int, bool]:
    """How many workers, and whether each has a GPU. Raises ProviderError and ClusterError where they cannot be had."""
    cpus, gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise ProviderError("device 'cuda' was asked for, and the cluster has no GPU. What to do: --device cpu")
    gpu = device != "cpu" and gpus > 0
    most = min(gpus, cpus // threads) if gpu else cpus // threads
    if (asked or 1) > most:
        has = f"the cluster has {cpus} CPUs" + (f" and {gpus} GPUs" if gpu else "")
        raise ClusterError(
            f"{asked or 1} workers of {threads} CPUs{' and a GPU' if gpu else ''} were asked for, and {has}. "
            f"What to do: --workers {max(1, most)}" + (" and fewer --threads" if not most else "")
        )
    return asked or most, gpu


if __name__ == "__main__":
    main()
