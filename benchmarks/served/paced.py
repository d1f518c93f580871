"""Open-loop load: requests at a fixed rate, whether the server keeps up or not, each timed from when it was due.

A process of its own: ``python -m benchmarks.served.paced ADDRESS RATE SECONDS CONNECTIONS FILE`` (FILE: one whole HTTP
request after the other, as a pickled list) prints JSON. It waits with ``select``, which keeps to microseconds where
event loops keep to milliseconds, and tells how late it was itself, so that a slow client is not taken for the server.
"""

from __future__ import annotations

import gc
import json
import pickle
import select
import socket
import sys
from collections import deque
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

_PATIENCE = 10.0
"""Seconds for the last answers."""


def http_request(path: str, headers: dict[str, str], content: bytes) -> bytes:
    """A whole request for a connection that is kept open."""
    lines = [f"POST {path} HTTP/1.1", "Host: loopback", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + content


def paced(address: str, requests: list[bytes], rate: float, seconds: float, connections: int) -> dict[str, float]:
    """Send ``rate`` requests per second; a request that finds no free connection waits, and its time counts.

    Returns: "p50" and "p99" from the due time, "late" (the 99th percentile of what the client itself was late by),
    all in seconds; "client", the share of a processor that the client took; "sent" and "failed".
    """
    host, _, port = address.partition(":")
    total, latencies, late, failed = int(rate * seconds), [], [], 0
    idle: deque[socket.socket] = deque()
    for _ in range(connections):
        idle.append(socket.create_connection((host, int(port))))
        idle[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    everyone = list(idle)
    busy: dict[socket.socket, tuple[float, bytes]] = {}
    due: deque[float] = deque()
    gc.disable()
    sent, cpu = 0, process_time()
    start = perf_counter() + 0.01
    while sent < total or due or busy:
        now = perf_counter()
        while sent < total and start + sent / rate <= now:
            due.append(start + sent / rate)
            late.append(now - due[-1])
            sent += 1
        while due and idle:
            free = idle.popleft()
            busy[free] = due.popleft(), b""
            free.sendall(requests[(len(latencies) + len(busy)) % len(requests)])
        until = start + sent / rate if sent < total else now + _PATIENCE
        ready = select.select(list(busy), [], [], max(0.0, until - perf_counter()))[0]
        if sent == total and not ready:
            break
        for connection in ready:
            at, answer = busy[connection]
            piece = connection.recv(1 << 20)
            status = _status(answer + piece)
            if piece and status is None:
                busy[connection] = at, answer + piece
                continue
            del busy[connection]
            latencies.append(perf_counter() - at)
            failed += status != 200
            if piece:
                idle.append(connection)
    spent, cpu = perf_counter() - start, process_time() - cpu
    for connection in everyone:
        connection.close()
    p50, p99 = np.quantile(latencies, [0.5, 0.99])
    figures = {"p50": p50, "p99": p99, "late": np.quantile(late, 0.99), "client": cpu / spent}
    return {**{k: float(v) for k, v in figures.items()}, "sent": sent, "failed": failed + sent - len(latencies)}


def _status(answer: bytes) -> int | None:
    """The status of an answer that is all there."""
    head, end, rest = answer.partition(b"\r\n\r\n")
    if not end:
        return None
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return None if len(rest) < int(length) else int(head[9:12])


if __name__ == "__main__":
    address, rate, seconds, connections, file = sys.argv[1:]
    requests = pickle.loads(Path(file).read_bytes())
    print(json.dumps(paced(address, requests, float(rate), float(seconds), int(connections))))
