"""What does ``mlpx shadow`` add to the old server's own latency?

Requests at a fixed rate (``benchmarks.served.paced``), timed from when each was due: to the old server itself and
through the proxy, in turn, in every round. The new server is the same model; one where nothing listens; and one that
takes connections and never answers. Where it is on this machine it runs only when the others leave it a processor
(SCHED_IDLE), since it would be on another one. "bare" is a relay in Python that reads nothing: what a hop costs at
least. Each round starts with the answers of the proxy compared byte for byte with the old server's.
Run it with ``python -m benchmarks.shadow [--quick] [--rounds N] [--json FILE]``; a full run takes about 6 minutes.
"""

from __future__ import annotations

import argparse
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.machine import in_process, keep_to_two_cores, print_machine, write_results
from benchmarks.served.bodies import REST
from benchmarks.served.paced import http_request
from benchmarks.served.subjects import Made, made
from benchmarks.served.targets import OURS
from runtime.timing.timer import Ratio, quartiles
from tests.support.servers.running import free_ports, running

WITHIN = 1.2
"""What p99 may be over the old server's alone."""
ALONE, BARE = "old alone", "bare relay"
_CONNECTIONS = 16
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Pace:
    """A model, how it is asked, and how often."""

    model: str
    kind: str
    batch: int
    rate: float

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.model}, {self.kind}, batch {self.batch}, {self.rate:g}/s"


PACES = (Pace("small", "JSON", 1, 500), Pace("small", "JSON", 32, 200), Pace("medium", "binary", 32, 100))
NEW = ("same model", "dead", "hangs")


def bare(port: int, old: int) -> None:
    """Pass bytes on, one event at a time."""
    import select

    listener, poll = socket.create_server(("127.0.0.1", port)), select.epoll()
    poll.register(listener, select.EPOLLIN)
    ends: dict[int, tuple[socket.socket, socket.socket]] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                pair = listener.accept()[0], socket.create_connection(("127.0.0.1", old))
                for end, other in (pair, pair[::-1]):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    poll.register(end, select.EPOLLIN)
                    ends[end.fileno()] = end, other
                continue
            end, other = ends.get(number, (None, None))
            if end is None or other is None:
                continue
            data = end.recv(1 << 18)
            if data:
                other.sendall(data)
                continue
            for each in (end, other):
                poll.unregister(each)
                ends.pop(each.fileno())
                each.close()
            break


@contextmanager
def _new(kind: str, subjects: Made, model: str, folder: Path) -> Iterator[int]:
    """The port of a new server of a kind."""
    if kind == "same model":
        with subjects.served(OURS, model, folder / "new.log") as server:
            for pid in [server.session, *_children(server.session)]:
                with suppress(OSError):
                    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
            yield int(server.rest.rpartition(":")[2])
        return
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        if kind == "dead":
            listener.close()
        yield port


def _children(pid: int) -> list[int]:
    """Processes and their threads."""
    own = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    started = [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]
    return own + [each for child in started for each in _children(child)]


@contextmanager
def _proxy(old: int, new: int, folder: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    sides = ["--old", f"http://127.0.0.1:{old}", "--new", f"http://127.0.0.1:{new}", "--port", port]
    with running(
        [sys.executable, "-m", "mlpx", "shadow", *map(str, sides), "--json"],
        ready=f"http://127.0.0.1:{port}/v2/health/ready",
        log=folder / "shadow.log",
        env={},
        cwd=_ROOT,
        patience=60.0,
    ):
        yield port


@contextmanager
def _bare(old: int) -> Iterator[int]:
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, "-c", f"from benchmarks.shadow import bare; bare({port}, {old})"])
    try:
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
        yield port
    finally:
        process.kill()
        process.wait()


def _bytes(port: int, path: str, headers: dict[str, str], content: bytes) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, content, headers)
    response = connection.getresponse()
    answer = b"%d " % response.status + response.read()
    connection.close()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works, not to measure")
    parser.add_argument("--only", default="", metavar="TEXT", help="the rows with this in their name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of every load in a round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    keep_to_two_cores()
    figures: dict[str, dict[str, list[dict[str, float]]]] = {}
    paces = [pace for pace in PACES if options.only in pace.name]
    with tempfile.TemporaryDirectory(prefix="mlpx-shadow-") as place:
        folder = Path(place)
        subjects = made(
            sorted({(OURS, pace.model) for pace in paces}), folder, lambda text: print(text, file=sys.stderr)
        )
        for pace in paces:
            figures[pace.name] = measured(pace, subjects, folder, rounds, seconds)
    print_machine()
    ratios: dict[str, dict[str, Ratio]] = {}
    for name, ways in figures.items():
        print(name)
        ratios[name] = {}
        for way, results in ways.items():
            p50, p99 = (quartiles([each[key] for each in results]).median for key in ("p50", "p99"))
            ratio = quartiles([ours["p99"] / alone["p99"] for ours, alone in zip(results, ways[ALONE], strict=True)])
            ratios[name][way] = ratio
            verdict = "" if way in (ALONE, BARE) else "met" if round(ratio.median, 2) <= WITHIN else "missed"
            spread = f"p99 over the old server's alone {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
            print(f"  {way:<28} p50 {1e3 * p50:6.2f} ms  p99 {1e3 * p99:6.2f} ms  {spread}  {verdict}".rstrip())
    write_results(options.json, quick=options.quick, figures=figures, ratios={k: str(v) for k, v in ratios.items()})


def measured(
    pace: Pace, subjects: Made, folder: Path, rounds: int, seconds: float
) -> dict[str, list[dict[str, float]]]:
    """The figures of each way, by round."""
    figures: dict[str, list[dict[str, float]]] = defaultdict(list)
    bodies, path = subjects.bodies(pace.model, pace.batch), f"/v2/models/{pace.model}/infer"
    sent = [REST[pace.kind](body) for body in bodies]
    requests = folder / "requests"
    requests.write_bytes(pickle.dumps([http_request(path, *each) for each in sent]))
    with ExitStack() as stack:
        server = stack.enter_context(subjects.served(OURS, pace.model, folder / "old.log"))
        old = int(server.rest.rpartition(":")[2])
        ways = {ALONE: old, BARE: stack.enter_context(_bare(old))}
        for kind in NEW:
            new = stack.enter_context(_new(kind, subjects, pace.model, folder))
            ways[f"shadow, new: {kind}"] = stack.enter_context(_proxy(old, new, folder))
        for port in ways.values():
            assert all(_bytes(port, path, *each) == _bytes(old, path, *each) for each in sent[:20])
        for _ in range(rounds):
            for way, port in ways.items():
                arguments = [f"127.0.0.1:{port}", pace.rate, seconds, _CONNECTIONS, requests]
                result = in_process("benchmarks.served.paced", *arguments)
                assert not result["failed"], f"{way}: {result}"
                figures[way].append(result)
    return figures


if __name__ == "__main__":
    main()
