"""What do Unix sockets and shared memory save a client on the server's own machine?

One client, one request at a time, through plain sockets: the binary extension over TCP and over a Unix socket, and
tensors in shared memory over both, interleaved in rounds; medians by call. Every answer of shared memory is compared
with that over TCP. Run it with ``python -m benchmarks.local [--calls N] [--json FILE]``; it takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
from collections import defaultdict
from pathlib import Path
from time import perf_counter

import numpy as np
from tritonclient.utils import shared_memory

from benchmarks.machine import keep_to_two_cores, print_machine, write_results
from export import publish
from runtime import read_certificate
from runtime.timing.timer import quartiles
from tests.support.cases import relu_network
from tests.support.serving import ask, serving

_ROWS = (1, 32, 1024, 8192)
_ROUNDS = 5
_PATH = "/v2/models/small/infer"


def request(body: bytes, head: int | None) -> bytes:
    """A whole HTTP request."""
    lines = [f"POST {_PATH} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    if head is not None:
        lines.append(f"Inference-Header-Content-Length: {head}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def exchanged(end: socket.socket, content: bytes) -> bytes:
    """The body of the answer. Raises RuntimeError: it is an error."""
    end.sendall(content)
    answer = end.recv(1 << 20)
    while b"\r\n\r\n" not in answer:
        answer += end.recv(1 << 20)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    pieces, size = [body], len(body)
    while size < length:
        pieces.append(end.recv(1 << 20))
        size += len(pieces[-1])
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(b"".join(pieces)[:300].decode())
    return b"".join(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200, help="of each way in each round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_to_two_cores()
    print_machine()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="mlpx-local-") as place:
        spec, module = relu_network("small")
        file = Path(place) / "models" / "small.onnx"
        publish(module, file, spec=spec, device="cpu", page=False)
        answers = read_certificate(file.with_name("small.parity.json")).answers
        assert answers is not None
        (name,), (output,) = answers.inputs, answers.exact
        width = answers.exact[output].shape[1]
        with serving(file.parent, "--shared-memory", "--uds", Path(place) / "socket") as server:
            tcp = socket.create_connection(server.address)
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            unix = socket.socket(socket.AF_UNIX)
            unix.connect(str(Path(place) / "socket"))
            for rows in _ROWS:
                values = np.resize(answers.inputs[name].astype("f4"), (rows, answers.inputs[name].shape[1]))
                figures[f"{rows} rows"] = measured(server.url, tcp, unix, (name, output), values, width, options.calls)
            tcp.close()
            unix.close()
    for rows, ways in figures.items():
        print(rows, ", ".join(f"{way} {1e6 * seconds:,.0f} µs" for way, seconds in ways.items()))
    write_results(options.json, figures=figures)


def measured(
    url: str,
    tcp: socket.socket,
    unix: socket.socket,
    names: tuple[str, str],
    values: np.ndarray,
    width: int,
    calls: int,
) -> dict[str, float]:
    """The median seconds of each way."""
    size = len(values) * width * 4
    inputs, outputs = (
        shared_memory.create_shared_memory_region(f"r{i}", f"/mlpx-bench-{i}", each)
        for i, each in enumerate((values.nbytes, size))
    )
    try:
        for i, each in enumerate((values.nbytes, size)):
            record = {"key": f"/mlpx-bench-{i}", "offset": 0, "byte_size": each}
            assert ask(url, "POST", f"/v2/systemsharedmemory/region/r{i}/register", record).status == 200
        tensor = {"name": names[0], "shape": list(values.shape), "datatype": "FP32"}
        head = {"inputs": [tensor | {"parameters": {"binary_data_size": values.nbytes}}]}
        head["outputs"] = [{"name": names[1], "parameters": {"binary_data": True}}]
        text = json.dumps(head).encode()
        binary = request(text + values.tobytes(), len(text))
        places = [
            {"shared_memory_region": f"r{i}", "shared_memory_byte_size": each}
            for i, each in enumerate((values.nbytes, size))
        ]
        asked = {
            "inputs": [tensor | {"parameters": places[0]}],
            "outputs": [{"name": names[1], "parameters": places[1]}],
        }
        shared = request(json.dumps(asked).encode(), None)

        def by_memory(end: socket.socket) -> bytes:
            shared_memory.set_shared_memory_region(inputs, [values])
            exchanged(end, shared)
            return shared_memory.get_contents_as_numpy(outputs, np.float32, [len(values), width]).tobytes()

        ways = {
            "TCP": lambda: exchanged(tcp, binary),
            "Unix": lambda: exchanged(unix, binary),
            "TCP, shared memory": lambda: by_memory(tcp),
            "Unix, shared memory": lambda: by_memory(unix),
        }
        assert ways["TCP"]()[-size:] == ways["Unix, shared memory"]()
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(_ROUNDS):
            for way, call in ways.items():
                for _ in range(calls):
                    start = perf_counter()
                    call()
                    times[way].append(perf_counter() - start)
        ask(url, "POST", "/v2/systemsharedmemory/unregister", b"")
        return {way: quartiles(each).median for way, each in times.items()}
    finally:
        for region in (inputs, outputs):
            shared_memory.destroy_shared_memory_region(region)


if __name__ == "__main__":
    main()
