"""Clients on the same machine: Unix sockets, and tensors in shared memory through Triton's own client."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, shared_memory

from runtime.model.port import Port, Vocabulary
from runtime.server.messages import parse_request
from runtime.server.refusals import Malformed, TooLarge
from runtime.server.shared_memory import Place, Regions
from runtime.server.signature import signature_of
from tests.support.commands import Run
from tests.support.serving import PATIENCE, Server, expected, model, rows, serving, until

pytestmark = pytest.mark.server
VALUES = rows(5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("local")
    model(folder / "m" / "m.onnx")
    with serving(folder, "--shared-memory", "--workers", 2, "--uds", folder / "socket") as server:
        yield server
        assert not server.unexpected()
    assert not (folder / "socket").exists()


@contextmanager
def region(name: str, size: int) -> Iterator[Any]:
    handle = shared_memory.create_shared_memory_region(name, f"/mlpx-test-{name}", size)
    try:
        yield handle
    finally:
        shared_memory.destroy_shared_memory_region(handle)


CLIENTS: dict[str, Any] = {"rest": tritonclient.http, "grpc": tritonclient.grpc}


@contextmanager
def connected(way: str, server: Server) -> Iterator[Any]:
    place = server.grpc if way == "grpc" else server.url.removeprefix("http://")
    with CLIENTS[way].InferenceServerClient(place) as client:
        yield client


@pytest.mark.parametrize("way", CLIENTS)
def test_tensors_in_shared_memory(way: str, server: Server) -> None:
    wanted, kinds = expected(server.folder / "m" / "m.onnx", x=VALUES)["y"], CLIENTS[way]
    with region(f"in-{way}", VALUES.nbytes) as inputs, region(f"out-{way}", 8 + wanted.nbytes) as outputs:
        shared_memory.set_shared_memory_region(inputs, [VALUES])
        with connected(way, server) as client:
            client.register_system_shared_memory("in", f"/mlpx-test-in-{way}", VALUES.nbytes)
            client.register_system_shared_memory("out", f"/mlpx-test-out-{way}", 8 + wanted.nbytes)
            assert {each["name"] for each in status(client, way)} == {"in", "out"}
            x, y = kinds.InferInput("x", VALUES.shape, "FP32"), kinds.InferRequestedOutput("y")
            x.set_shared_memory("in", VALUES.nbytes)
            y.set_shared_memory("out", wanted.nbytes, 8)
            for _ in range(20):  # by both workers
                outputs_before = shared_memory.get_contents_as_numpy(outputs, np.float32, [2 + wanted.size])
                outputs_before[:] = 0
                client.infer("m", [x], outputs=[y])
                found = shared_memory.get_contents_as_numpy(outputs, np.float32, [2 + wanted.size])
                assert found[2:].reshape(wanted.shape) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
                assert not found[:2].any()
            assert client.infer("m", [x]).as_numpy("y") == pytest.approx(wanted, rel=1e-5, abs=1e-6)
            for place, size, offset in (("in", VALUES.nbytes - 4, 0), ("in", VALUES.nbytes, 4), ("no", 80, 0)):
                x.set_shared_memory(place, size, offset)
                with pytest.raises(InferenceServerException, match=r"shared memory|of the region"):
                    client.infer("m", [x])
            x.set_data_from_numpy(VALUES)
            y.set_shared_memory("out", 4)
            with pytest.raises(InferenceServerException, match="its place in shared memory 4"):
                client.infer("m", [x], outputs=[y])
            client.unregister_system_shared_memory("in")
            assert {each["name"] for each in status(client, way)} == {"out"}
            client.unregister_system_shared_memory()
            assert not status(client, way)


def status(client: Any, way: str) -> list[dict[str, Any]]:
    if way == "rest":
        return client.get_system_shared_memory_status()
    return [*client.get_system_shared_memory_status(as_json=True).get("regions", {}).values()]


def test_memory_that_becomes_shorter_is_an_error_and_not_the_end(server: Server) -> None:
    with region("short", 1 << 16) as handle, connected("rest", server) as client:
        del handle
        client.register_system_shared_memory("short", "/mlpx-test-short", 1 << 16)
        with Path("/dev/shm/mlpx-test-short").open("r+b") as file:
            file.truncate(8)
        x = tritonclient.http.InferInput("x", VALUES.shape, "FP32")
        x.set_shared_memory("short", VALUES.nbytes)
        with pytest.raises(InferenceServerException, match="has become shorter"):
            client.infer("m", [x])
        client.unregister_system_shared_memory()
        assert client.is_server_ready()


def test_a_region_whose_memory_is_gone_keeps_no_other_from_a_worker_that_starts_again(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    x = tritonclient.http.InferInput("x", VALUES.shape, "FP32")
    x.set_shared_memory("kept", VALUES.nbytes)

    def infer() -> Any:
        with connected("rest", server) as client, suppress(InferenceServerException, OSError):
            return client.infer("m", [x])

    with serving(tmp_path, "--shared-memory") as server, region("kept", VALUES.nbytes) as kept:
        shared_memory.set_shared_memory_region(kept, [VALUES])
        with region("gone", 8), connected("rest", server) as client:
            client.register_system_shared_memory("gone", "/mlpx-test-gone", 8)
            client.register_system_shared_memory("kept", "/mlpx-test-kept", VALUES.nbytes)
        assert infer() is not None
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: server.workers() not in ([worker], []), "another worker")
        until(infer, "an answer by the region that is still there")


def test_an_output_that_cannot_be_written_is_said() -> None:
    regions = Regions(True, 2**20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with region("limited", 16) as handle:
        del handle
        regions.register("r", "/mlpx-test-limited", 0, 16)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12, limits[1]))
        try:
            with pytest.raises(Malformed, match=r"cannot be written: File too large"):
                regions.write(Place("r", 4, 12), b"1234", "y")
            with pytest.raises(Malformed, match=r"took 4 of 8 bytes"):
                regions.write(Place("r", 8, 8), b"12345678", "y")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        regions.unregister(None)


def test_texts_in_shared_memory_are_no_larger_than_a_body() -> None:
    city = Port("x", ("batch", 1), ("city",), dtype="int64", categories=(Vocabulary(("Oslo", "Rome")),))
    signature = signature_of((city,), (Port("y", ("batch", 1)),), 20)
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 2**30}
    entry = {"name": "x", "datatype": "BYTES", "shape": [1, 1], "parameters": place}
    body = json.dumps({"inputs": [entry]}).encode()
    regions = Regions(True, 2**20)
    with region("texts", 2**30) as handle:
        del handle
        regions.register("r", "/mlpx-test-texts", 0, 2**30)
        with pytest.raises(TooLarge, match="1,048,576 of texts"):
            parse_request(body, None, signature, regions)
        regions.unregister(None)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"key": "/mlpx-none", "offset": 0, "byte_size": 4}, "cannot be opened"),
        ({"key": "/../../etc/passwd", "byte_size": 4}, "is not the name"),
        ({"key": "..", "byte_size": 4}, "is not the name"),
        ({"key": 3, "byte_size": 4}, "is not the name"),
        ({"key": "/x", "byte_size": -4}, "numbers of bytes are expected"),
        ({"key": "/x", "byte_size": 2**70}, "numbers of bytes are expected"),
        ({"key": "/x"}, "numbers of bytes are expected"),
    ],
)
def test_what_cannot_be_registered(record: dict[str, Any], words: str, server: Server) -> None:
    path = "/v2/systemsharedmemory/region/r/register"
    assert words in server.ask("POST", path, json.dumps(record)).error


def test_without_the_option_nothing_is_shared(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path) as server:
        reply = server.ask("POST", "/v2/systemsharedmemory/region/r/register", b'{"key": "/x", "byte_size": 4}')
        assert (reply.status, "--shared-memory" in reply.error) == (403, True)
        assert "system_shared_memory" not in server.ask("GET", "/v2").json["extensions"]


def test_unix_sockets_serve_both_protocols(server: Server) -> None:
    path = server.folder / "socket"
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(path))
    for _ in range(2):
        connection.request("GET", "/v2/models/m")
        assert json.loads(connection.getresponse().read())["name"] == "m"
    connection.close()
    with tritonclient.grpc.InferenceServerClient(f"unix:{path}.grpc") as client:
        x = tritonclient.grpc.InferInput("x", VALUES.shape, "FP32")
        x.set_data_from_numpy(VALUES)
        wanted = expected(server.folder / "m" / "m.onnx", x=VALUES)["y"]
        answer: Any = client.infer("m", [x])
        assert answer.as_numpy("y") == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_a_path_that_is_taken_is_said_and_an_abandoned_socket_is_replaced(
    server: Server, tmp_path: Path, run: Run
) -> None:
    model(tmp_path / "m.onnx")
    file = tmp_path / "file"
    file.write_text("mine")
    for path, words in ((file, "no socket"), (server.folder / "socket", "a server listens there")):
        done = run("serve", tmp_path, "--port", 0, "--no-grpc", "--uds", path)
        assert (done.code, words in " ".join(done.err.split())) == (3, True)
    assert file.read_text() == "mine"
    abandoned = tmp_path / "abandoned"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(abandoned))
    with serving(tmp_path, "--uds", abandoned), socket.socket(socket.AF_UNIX) as end:
        end.connect(str(abandoned))
