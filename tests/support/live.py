"""A small V2 server with planted faults, and a certificate to verify it by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import numpy as np
from torch import nn

from builder import MLPSpec
from export import publish
from runtime import Certificate, read_certificate
from runtime.model.certificate import Answers
from tests.support.cases import network

Rows = Mapping[str, np.ndarray]
Answer = Callable[[Rows], Rows]
ROWS = 48
"""Of the certificate of ``case``: 12 of usual ones, and 36 that show single weights."""


def with_certificate(module: nn.Module, folder: Path, spec: MLPSpec | None = None) -> tuple[Certificate, Path]:
    """A module's file, and its certificate."""
    artifact, _ = publish(module, folder / "m.onnx", spec=spec, page=False)
    return read_certificate(folder / "m.parity.json"), artifact.path


@cache
def case() -> Certificate:
    """The certificate of a network of ten outputs, on which the precisions differ."""
    _, module = network([{"linear": 64}, "relu", {"linear": 64}, "relu", {"linear": 10}], features=32)
    with TemporaryDirectory() as folder:
        return with_certificate(module, Path(folder))[0]


@dataclass
class Planted:
    """A V2 server over HTTP with a fault, in its answers or in anything else that it sends."""

    answer: Answer
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    extensions: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=lambda: ["1"])
    datatype: str = "FP32"
    change: Callable[[dict[str, Any]], Any] = lambda record: record
    """What is done to an answer before it is sent; bytes are sent as they are."""
    status: Callable[[int, int], int] = lambda _, _number: 200
    """By the number of rows, and of requests for an answer so far."""
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = True
    metadata: Any = None
    """Instead of the model's."""
    missing: str | None = None
    """The end of a path where nothing is."""
    asked: int = 0
    waiting: Event = field(default_factory=Event)
    """Of status 0: no answer comes before the end of the test."""

    @contextmanager
    def url(self) -> Iterator[str]:
        """The URL of its model, while it serves."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v2/models/m"
        finally:
            self.waiting.set()
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(planted: Planted) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            if self.path.endswith("/v2"):
                self._send(200, {"name": "planted", "version": "1", "extensions": planted.extensions})
                return
            if planted.missing is not None and self.path.endswith(planted.missing):
                self._send(404, {})
                return
            if planted.metadata is not None:
                self._send(200, planted.metadata)
                return
            info = {"name": "m", "versions": planted.versions, "platform": "", "inputs": planted.inputs}
            self._send(200, info | {"outputs": planted.outputs})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("/index"):  # an extension of the protocol
                self._send(404, {})
                return
            rows = {row["name"]: np.array(row["data"], "f4").reshape(row["shape"]) for row in request["inputs"]}
            planted.asked += 1
            status = planted.status(len(next(iter(rows.values()))), planted.asked)
            if status == 0:
                planted.waiting.wait()
                return
            if status != 200:
                self._send(status, {"error": "planted"})
                return
            outputs = [
                {"name": name, "datatype": planted.datatype, "shape": list(y.shape), "data": y.ravel().tolist()}
                for name, y in planted.answer(rows).items()
            ]
            self._send(200, planted.change({"model_name": "m", "id": request["id"], "outputs": outputs}))

        def _send(self, status: int, record: Any) -> None:
            body = record if isinstance(record, bytes) else json.dumps(record).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | planted.headers).items():
                self.send_header(name, value)
            if not planted.keep_alive:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

    return Handler


def planted(answers: Answers, answer: Answer | None = None, **fields: Any) -> Planted:
    """A server of the certificate's interface; without ``answer`` it answers exactly."""

    def infos(table: Rows) -> list[dict[str, Any]]:
        return [{"name": n, "datatype": "FP32", "shape": [-1, *values.shape[1:]]} for n, values in table.items()]

    fields = {"inputs": infos(answers.inputs), "outputs": infos(answers.exact)} | fields
    return Planted(answer or known(answers, answers.exact), **fields)


def known(answers: Answers, table: Rows) -> Answer:
    """Answers rows of the certificate from a table of it, as float32."""
    (inputs,) = answers.inputs.values()
    index = {row.tobytes(): i for i, row in enumerate(inputs)}

    def answer(rows: Rows) -> Rows:
        (values,) = rows.values()
        numbers = [index[row.tobytes()] for row in values]
        return {name: table[name][numbers].astype("f4") for name in table}

    return answer
