"""The rows of the table without a peer: latency at half of the peak rate, and memory over many requests."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import in_process
from benchmarks.served.bodies import REST
from benchmarks.served.closed import load
from benchmarks.served.memory import processor_seconds, resident
from benchmarks.served.paced import http_request
from benchmarks.served.rounds import Effort, under
from benchmarks.served.running import Server
from benchmarks.served.subjects import Made
from benchmarks.served.targets import BINARY, MANY, MEMORY, OURS, PACE
from runtime.timing.timer import Ratio, quartiles

CONNECTIONS = 64
"""Of the open loop: so many that a request rarely waits for a free one."""
_SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Of the peak rate; the last one is the row's."""
Part = Callable[[Made, Effort, Path], tuple[Ratio | None, str, list[str]]]
"""A figure, or why there is none, and further lines to print."""
_MIB = 2**20


def pace(made: Made, effort: Effort, folder: Path) -> tuple[Ratio | None, str, list[str]]:
    """99th percentile over median at half of the peak rate."""
    ratios, lines = [], [f"{MANY.model}, {MANY.kind}, batch {MANY.batch}, open loop, {CONNECTIONS} connections"]
    for _ in range(effort.rounds):
        with made.served(OURS, MANY.model, folder / "server.log") as server:
            peak = under(server, MANY, made, effort.seconds)
            for share in _SHARES:
                rate, before = share * peak.rate, processor_seconds(server.session)
                figures = _open_loop(server, made, rate, effort.seconds)
                taken = (processor_seconds(server.session) - before) * rate / figures["sent"]
                if figures["failed"]:
                    return None, f"{figures['failed']:,.0f} of {figures['sent']:,.0f} requests failed", lines
                times = ", ".join(f"{key} {1e3 * figures[key]:.2f} ms" for key in ("p50", "p99", "late"))
                cores = f"of a core: the server {100 * taken:.0f} %, the client {100 * figures['client']:.0f} %"
                part = f"{rate:,.0f} /s, {share:.3g} of {peak.rate:,.0f}"
                lines.append(f"  {part}: {times} (the client's own, p99); {cores}")
                if share == _SHARES[-1]:
                    ratios.append(figures["p99"] / figures["p50"])
    return quartiles(ratios), "", lines


def _open_loop(server: Server, made: Made, rate: float, seconds: float) -> dict[str, float]:
    path = server.path(MANY.model)
    requests = [http_request(path, *REST[MANY.kind](body)) for body in made.bodies(MANY.model, MANY.batch)]
    with tempfile.TemporaryDirectory(prefix="mlpx-load-") as place:
        file = Path(place) / "requests"
        file.write_bytes(pickle.dumps(requests))
        arguments = [server.rest, rate, seconds, CONNECTIONS, file]
        return in_process("benchmarks.served.paced", *arguments)


def memory(made: Made, effort: Effort, folder: Path) -> tuple[Ratio | None, str, list[str]]:
    """Resident memory over many requests, JSON and binary in turn."""
    done, base, lines = 0, 0, ["resident memory of the server and its worker, JSON batch 1 and binary batch 32 in turn"]
    with made.served(OURS, MANY.model, folder / "server.log") as server:
        now = resident(server.session)
        lines.append(f"  {now / _MIB:.1f} MiB before the first request")
        while done < effort.requests:
            for case in (MANY, BINARY):
                address, path = server.asked(case.kind, case.model)
                loaded = load(address, path, case.kind, made.bodies(case.model, case.batch), case.clients, 5)
                if loaded.failed:
                    return None, f"{loaded.failed:,} of {loaded.requests:,} requests failed", lines
                done += loaded.requests
            now = resident(server.session)
            base = base or (now if done >= effort.requests / 10 else 0)
            lines.append(f"  {now / _MIB:.1f} MiB after {done:,} requests")
    return Ratio(now / base, now / base, now / base), "", lines


PARTS: dict[str, Part] = {PACE: pace, MEMORY: memory}
