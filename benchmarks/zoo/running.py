"""Every package in processes of its own, with a time limit for every step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from select import select
from typing import Any

from benchmarks.zoo.entries import PLACE, Entry
from benchmarks.zoo.exporters import Outcome

ROOT = Path(__file__).resolve().parent.parent.parent
WORKER = ["-m", "benchmarks.zoo.worker"]
ENVIRONMENT = {"DDE_BACKEND": "pytorch", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg"}
"""What packages want to know before they are imported."""


def versions() -> dict[str, str]:
    """Of the packages in ``.zoo``, by their names in lower case with dashes."""
    found = distributions(path=[str(PLACE)])
    return {each.name.lower().replace("_", "-"): each.version for each in found if each.name}


def tried(package: str, entries: Sequence[Entry], steps: Sequence[str], limit: float) -> list[dict[str, Any]]:
    """One record for each network, in their order; a step that crashes or takes too long is said in its record."""
    records: dict[str, dict[str, Any]] = {entry.name: {"package": package, "network": entry.name} for entry in entries}
    left = {entry.name: ["build", *steps] for entry in entries}
    while left:
        ended = _worked(package, left, limit, partial(_noted, records, left))
        left = {name: steps for name, steps in left.items() if steps}
        if left:  # the step that was under way is the first that is left
            ended = ended or Outcome("crashed", message="the process ended by itself")
            name, (step, *_) = next(iter(left.items()))
            if step == "build":
                records[name]["failed"], left[name] = f"{ended.outcome} {ended.message}".strip(), []
            else:
                records[name][step] = ended.plain()
                left[name].pop(0)
            left = {name: steps for name, steps in left.items() if steps}
    return list(records.values())


def _noted(records: dict[str, dict[str, Any]], left: dict[str, list[str]], event: dict[str, Any]) -> None:
    name, step = event["network"], event["step"]
    if "failed" in event:
        records[name]["failed"] = event["failed"]
        left[name].clear()
    elif "result" in event:
        records[name] |= event["result"] if step == "build" else {step: event["result"]}
        left[name].remove(step)


def _worked(
    package: str, left: dict[str, list[str]], limit: float, note: Callable[[dict[str, Any]], None]
) -> Outcome | None:
    """Run a worker to its end, or to that of a step that crashes or takes too long: what came of that step."""
    asked = json.dumps({"package": package, "networks": left})
    command = [sys.executable, *WORKER, asked]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        pending = b""
        while select([process.stdout], [], [], limit)[0]:
            if not (some := os.read(process.stdout.fileno(), 1 << 16)):
                return None if process.wait() == 0 else Outcome("crashed", message=_status(process.returncode))
            *lines, pending = (pending + some).split(b"\n")
            for line in lines:
                note(json.loads(line))
        os.killpg(process.pid, signal.SIGKILL)
        return Outcome("time limit", limit)


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
