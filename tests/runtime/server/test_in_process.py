"""A server's parts without sockets: what cannot be timed from outside, such as whoever hangs up just then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from runtime import ModelError
from runtime.server.bodies import Disconnected, HttpRequest, read_body
from runtime.server.http import close_slow_connections, protocol_class
from runtime.server.loaded_model import check_file, load_model
from runtime.server.logs import Log
from runtime.server.options import Options
from runtime.server.refusals import NotReady, TooLarge
from runtime.server.repository import Repository
from runtime.server.rest import Rest
from runtime.server.routes import document
from runtime.server.worker_sync import WorkerSync
from tests.support.serving import model

Talk = Callable[[Repository, Rest], Coroutine[Any, Any, None]]
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0, 1.0, 2.0, 3.0]}]}
).encode()
INFER = "/v2/models/one/infer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("in process") / "one.onnx").parent


def within(folder: Path, talk: Talk, **options: Any) -> None:
    """Run ``talk`` with the loaded models of a folder, and what answers for them."""

    async def run() -> None:
        chosen, log = Options(folder, device="cpu", **options), Log()
        repository = Repository(chosen, log)
        await repository.refresh()
        await talk(repository, Rest(repository, chosen, log, WorkerSync(repository, log)))
        repository.close()

    asyncio.run(run())


async def asked(rest: Rest, method: str, path: str, body: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of an answer."""
    sent: list[Mapping[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await rest({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), bytes(sent[1]["body"])


def test_a_server_that_stops_is_not_ready_and_lets_clients_go(folder: Path) -> None:
    async def talk(repository: Repository, rest: Rest) -> None:
        assert (await asked(rest, "GET", "/v2/health/ready"))[0] == 200
        repository.stopping = True
        status, headers, body = await asked(rest, "GET", "/v2/health/ready")
        assert status == 503
        assert headers[b"connection"] == b"close"
        assert json.loads(body) == {"error": "the server is shutting down"}

    within(folder, talk)


def test_a_version_that_is_not_loaded_says_why_and_goes_with_its_folder(tmp_path: Path) -> None:
    model(tmp_path / "many" / "1" / "model.onnx")
    (tmp_path / "many" / "2").mkdir()
    (tmp_path / "many" / "2" / "model.onnx").write_bytes(b"no model")
    model(tmp_path / "one.onnx")

    async def talk(repository: Repository, rest: Rest) -> None:
        with pytest.raises(NotReady, match=r"version 2 of the model 'many' is not loaded: .*not a whole ONNX file"):
            repository.find("many", "2")
        paths = document(repository, repository.options)["paths"]
        assert "/v2/models/many/versions/1" in paths
        assert "/v2/models/many/versions/2" not in paths
        await repository.load("one")
        (tmp_path / "many").rename(tmp_path / ".many")
        await repository.refresh()
        assert list(repository.models) == ["one"]
        assert (await asked(rest, "POST", INFER, BODY))[0] == 200

    within(tmp_path, talk)


def test_a_certificate_that_there_is_not(folder: Path) -> None:
    async def talk(_repository: Repository, rest: Rest) -> None:
        status, _, body = await asked(rest, "GET", "/v2/models/one/versions/1/certificate")
        assert status == 404
        assert json.loads(body) == {"error": "version 1 of 'one' has no certificate beside it"}

    within(folder, talk)


def test_without_coalescing_the_configuration_has_no_batching(folder: Path) -> None:
    async def talk(repository: Repository, _rest: Rest) -> None:
        assert "dynamic_batching" not in repository.find("one").config()

    within(folder, talk, coalesce=False)


def test_a_file_that_changes_while_it_is_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model(tmp_path / "one.onnx")

    def measure(*_: Any, **__: Any) -> Callable[[int], float]:
        file.write_bytes(b"another")
        return lambda _: 0.0

    monkeypatch.setattr("runtime.server.loaded_model.measure_cost", measure)
    options = Options(tmp_path, device="cpu")
    with pytest.raises(ModelError, match=r"one\.onnx was changed while it was loaded\. What to do: load it again"):
        load_model("one", "1", file, options, check_file(file, options))


def test_what_is_no_request_is_left_alone(folder: Path) -> None:
    async def talk(_repository: Repository, rest: Rest) -> None:
        async def never(*_: Any) -> Any:
            raise AssertionError

        await rest({"type": "lifespan"}, never, never)

    within(folder, talk)


@pytest.mark.parametrize(("words", "known"), [("the transport is closed", True), ("another", False)])
def test_whoever_hangs_up_before_the_answer_is_logged(
    words: str, known: bool, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def talk(_repository: Repository, rest: Rest) -> None:
        async def send(*_: Any) -> Any:
            raise RuntimeError(words)

        scope = {"type": "http", "method": "GET", "path": "/v2", "headers": []}
        if known:
            await rest(scope, send, send)
        else:
            with pytest.raises(RuntimeError, match="another"):
                await rest(scope, send, send)

    within(folder, talk)
    assert ('"status":499' in capfd.readouterr().err.replace(" ", "")) == known


@pytest.mark.parametrize("when", ["before", "just then", "never", "defect"])
def test_a_request_whose_client_goes_while_the_model_runs(
    when: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def talk(repository: Repository, rest: Rest) -> None:
        outputs: asyncio.Future[dict[str, np.ndarray]] = asyncio.get_running_loop().create_future()
        loaded = repository.find("one")
        monkeypatch.setattr(type(loaded), "infer", lambda *_: outputs)
        task = asyncio.create_task(asked(rest, "POST", INFER, BODY))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if when == "defect":
            outputs.set_exception(ZeroDivisionError("of the model"))
        elif when != "before":
            outputs.set_result({"y": np.ones((1, 3), np.float32)})
        if when in ("never", "defect"):
            status, _, body = await task
            assert status == (200 if when == "never" else 500)
            assert (b"internal error; the log of request" in body) == (when == "defect")
            return
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert outputs.cancelled() == (when == "before")

    within(folder, talk)
    assert ("of the model" in capfd.readouterr().err) == (when == "defect")


class Transport:
    """What a connection writes to."""

    def __init__(self) -> None:
        self.written, self.closing, self.aborted = b"", False, False

    def get_extra_info(self, _name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def connection_of(rest: Rest, options: Options) -> tuple[Any, Transport]:
    """A connection to the server that was just made."""
    config = uvicorn.Config(rest, log_config=None, lifespan="off", server_header=False, date_header=False)
    config.load()
    transport = Transport()
    protocol = protocol_class(options, rest)(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport


def request(*headers: str) -> bytes:
    lines = [f"POST {INFER} HTTP/1.1", "Host: localhost", f"Content-Length: {len(BODY)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + BODY


def test_a_request_that_asks_for_it_is_the_last_of_its_connection(folder: Path) -> None:
    async def talk(repository: Repository, rest: Rest) -> None:
        protocol, transport = connection_of(rest, repository.options)
        protocol.data_received(request("Connection: close"))
        while not transport.closing:
            await asyncio.sleep(0)
        assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in transport.written
        answer = transport.written
        protocol.data_received(request())
        protocol.refuse(408)
        assert transport.written == answer

    within(folder, talk)


def test_a_refused_request_does_not_send_the_one_before_it_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(repository: Repository, rest: Rest) -> None:
        given: list[bytes] = []
        monkeypatch.setattr(rest, "infer", lambda _model, _request, body, _respond: given.append(body))
        protocol, transport = connection_of(rest, repository.options)
        protocol.data_received(request() + request(f"X-Large: {'a' * 20_000}"))
        assert transport.written.startswith(b"HTTP/1.1 431 ")
        assert given == [BODY]

    within(folder, talk)


def test_a_client_that_does_not_take_its_answer_is_cut_off(folder: Path) -> None:
    slow, well = (SimpleNamespace(stalled=stalled, since=None, transport=Transport()) for stalled in (0.0, 25.0))
    both: Any = [slow, well]
    assert close_slow_connections(both, 31.0, Options(folder)) == 1
    assert (slow.transport.aborted, well.transport.aborted) == (True, False)


def read(limit: int, *pieces: bytes, end: str = "http.request", **headers: bytes) -> tuple[bytes, int]:
    """The body that comes in these pieces, and how many are left."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1] |= {"type": end, "more_body": False}

    async def receive() -> Mapping[str, Any]:
        return messages.pop(0)

    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    try:
        body = asyncio.run(read_body(HttpRequest("POST", INFER, named, receive, b"", 0.0), limit))
    except TooLarge as error:
        return str(error).encode(), len(messages)
    return body, len(messages)


def test_bodies_are_read_within_their_limit() -> None:
    assert read(9, b"abc", b"def") == (b"abcdef", 0)
    told = b"the body has more than 5 bytes, the most that this server takes"
    assert read(5, b"abc", b"def") == (told, 0)
    assert read(5, b"abcdef", b"g", b"h") == (told, 0), "the rest is read, so that the client reads the answer"
    told = b"the body has 6 bytes, and this server takes 5"
    assert read(5, b"abc", b"def", content_length=b"6") == (told, 0)
    assert read(5, b"abc", content_length=b"6", expect=b"100-continue") == (told, 1), "the client sends nothing"
    with pytest.raises(Disconnected):
        read(9, b"abc", b"", end="http.disconnect")
