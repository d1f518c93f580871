"""Closed-loop load: each client sends its next request when it has its answer. wrk for REST, h2load for gRPC."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.served.bodies import HEAD, REST, Body, grpc_outputs, outputs_of

_SCRIPT = Path(__file__).with_name("load.lua")
GRPC = "gRPC"


@dataclass(frozen=True)
class Loaded:
    """What came of some seconds of load; times in seconds."""

    requests: int
    rate: float
    """Requests per second."""
    p50: float
    p99: float | None
    """None where the client does not tell it."""
    failed: int
    """Requests with another status than 200, or without an answer."""


def missing() -> str | None:
    """What the load needs that is not here, and what to do; None where all is."""
    absent = [name for name in ("wrk", "h2load") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found. What to do: apt-get install wrk nghttp2-client" if absent else None


def wrong(address: str, path: str, kind: str, bodies: Sequence[Body]) -> str | None:
    """Ask for every body once; what the first wrong answer was, None where all were right.

    ``address`` is host:port; ``kind`` "JSON", "binary" or "gRPC".
    """
    if kind == GRPC:
        return _wrong_grpc(address, bodies)
    connection = HTTPConnection(address, timeout=60)
    try:
        for body in bodies:
            headers, content = REST[kind](body)
            connection.request("POST", path, content, headers)
            response = connection.getresponse()
            answer, head = response.read(), response.getheader(HEAD)
            if response.status != 200:
                return f"status {response.status}: {answer[:200].decode(errors='replace')}"
            if reason := body.why_wrong(outputs_of(answer, None if head is None else int(head))):
                return reason
    finally:
        connection.close()
    return None


def _wrong_grpc(address: str, bodies: Sequence[Body]) -> str | None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for body in bodies:
            request = service_pb2.ModelInferRequest.FromString(body.grpc[5:])  # pyright: ignore[reportAttributeAccessIssue]
            try:
                answer = stub.ModelInfer(request, timeout=60)
            except grpc.RpcError as error:
                return str(error.details() if isinstance(error, grpc.Call) else error)
            if reason := body.why_wrong(grpc_outputs(answer)):
                return reason
    return None


def load(address: str, path: str, kind: str, bodies: Sequence[Body], clients: int, seconds: float) -> Loaded:
    """Load a server for some seconds. Raises RuntimeError: the client failed."""
    if kind == GRPC:
        return _h2load(address, bodies[0], clients, seconds)
    with tempfile.TemporaryDirectory(prefix="mlpx-load-") as folder:
        headers, files = {}, []
        for i, body in enumerate(bodies):
            headers, content = REST[kind](body)
            files.append(_written(Path(folder) / f"{i}.body", content))
        names = _written(Path(folder) / "headers", "\n".join(f"{k}: {v}" for k, v in headers.items()).encode())
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", _SCRIPT]
        printed = _output([*command, f"http://{address}{path}", "--", names, *files])
    figures = json.loads(printed.strip().splitlines()[-1])
    requests, failed = figures["requests"], figures["refused"] + figures["broken"]
    return Loaded(requests, requests / (figures["micros"] / 1e6), figures["p50"] / 1e6, figures["p99"] / 1e6, failed)


def _h2load(address: str, body: Body, clients: int, seconds: float) -> Loaded:
    """h2load tells a mean and no quantiles: the times of all requests are in its log."""
    with tempfile.TemporaryDirectory(prefix="mlpx-load-") as folder:
        content, log = _written(Path(folder) / "body", body.grpc), Path(folder) / "log"
        head = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        command = ["h2load", "-t1", f"-c{clients}", "-m1", f"-D{seconds:.0f}", "--warm-up-time=1", *head, "-d", content]
        url = f"http://{address}/inference.GRPCInferenceService/ModelInfer"
        printed = _output([*command, f"--log-file={log}", url])
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    micros = sorted(int(line[2]) for line in lines if line[1] == "200")
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", printed)
    counts = re.search(r"(\d+) failed, (\d+) errored", printed)
    if rate is None or counts is None or not micros:
        raise RuntimeError(f"h2load printed something unexpected: {printed[-300:]}")
    p50, p99 = (micros[min(len(micros) - 1, round(q * len(micros)))] / 1e6 for q in (0.5, 0.99))
    return Loaded(len(micros), float(rate[1]), p50, p99, int(counts[1]))


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _output(command: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with code {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return done.stdout
