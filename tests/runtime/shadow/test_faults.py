"""A new server that is slow, dead, wrong or odd: clients of the old one notice nothing."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from runtime.shadow import Outcome, Tally
from tests.support.commands import Run
from tests.support.live import Planted
from tests.support.shadowing import shadowing

pytestmark = pytest.mark.server
BODY = {
    "id": "1",
    "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}],
}


def server(**fields: Any) -> Planted:
    """One whose model answers the double of its input."""
    fields = {"answer": lambda rows: {"y": 2 * rows["x"]}, "inputs": [], "outputs": []} | fields
    return Planted(**fields)


def changed(**entry: Any) -> Any:
    """What changes the first output of an answer."""
    return lambda record: record | {"outputs": [record["outputs"][0] | entry, *record["outputs"][1:]]}


WRONG = {
    "another shape": ({"answer": lambda rows: {"y": rows["x"][:, :1]}}, "other", "FP32 [1, 2] of the old server"),
    "another name": ({"answer": lambda rows: {"z": rows["x"]}}, "other", "the outputs are 'y' of the old server"),
    "another datatype": ({"datatype": "FP64"}, "other", "FP64 [1, 2] of the new one"),
    "NaN": ({"answer": lambda rows: {"y": rows["x"] * np.nan}}, "beyond", "2 and nan"),
    "no JSON": ({"change": lambda _: b"<html>"}, "other", "cannot be read"),
    "no data": ({"change": changed(data=[])}, "other", "0 values came"),
    "a refusal": ({"status": lambda *_: 400}, "other", "the old server answers, the new one refuses with HTTP 400"),
    "an error": ({"status": lambda *_: 500}, "lost", "HTTP 500"),
    "no access": ({"status": lambda *_: 401}, "lost", "HTTP 401"),
    "busy": ({"status": lambda *_: 429}, "lost", "HTTP 429"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_new_server_does_is_told_and_the_old_answer_stays(name: str) -> None:
    fields, kind, words = WRONG[name]
    bounds = "--old-bound", 0.1, "--new-bound", 0.1
    with server().url() as old, server(**fields).url() as new, shadowing(old, new, *bounds) as shadow:
        reply = shadow.ask(BODY)
        assert reply.json["outputs"][0]["data"] == [2.0, 4.0]
        shadow.outcome(kind)
        code, told, _ = shadow.stop()
    assert [each["kind"] for each in told] == [kind]
    assert words in told[0]["words"]
    assert code == (kind in ("beyond", "other"))


def test_a_dead_and_a_silent_server_are_counted() -> None:
    with server().url() as old:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            silent = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with shadowing(old, silent, "--timeout", 0.2) as shadow:
                assert shadow.ask(BODY).status == 200
                shadow.outcome("late")
        with shadowing(old, silent) as shadow:
            assert shadow.ask(BODY).status == 200
            shadow.outcome("lost")
            _, told, _ = shadow.stop()
    assert "connection refused" in told[0]["words"]


def test_what_does_not_fit_in_the_queue_is_counted_and_answered() -> None:
    hanging = server(status=lambda *_: 0)
    few = "--queue", 2, "--parallel", 1
    with server().url() as old, hanging.url() as new, shadowing(old, new, *few) as shadow:
        for _ in range(8):
            assert shadow.ask(BODY).status == 200
        shadow.counted('left_out_total{reason="queue"}', 5)
        assert hanging.asked == 1


def test_larger_bodies_and_other_shares_are_left_out() -> None:
    with server().url() as old, server().url() as new:
        with shadowing(old, new, "--max-body", 10) as shadow:
            assert shadow.ask(BODY).status == 200
            shadow.counted('left_out_total{reason="size"}', 1)
        with shadowing(old, new, "--share", 0) as shadow:
            assert shadow.ask(BODY).status == 200
            shadow.counted('left_out_total{reason="share"}', 1)


def test_an_old_server_that_fails_is_passed_on_and_not_mirrored() -> None:
    new = server()
    with server(status=lambda *_: 503).url() as old, new.url() as new_url, shadowing(old, new_url) as shadow:
        assert shadow.ask(BODY).status == 503
        shadow.counted('left_out_total{reason="old"}', 1)
    assert new.asked == 0
    with shadowing(old, new_url) as shadow:  # nothing listens there any more
        reply = shadow.ask(BODY)
        assert reply.status == 502
        assert "cannot be reached" in reply.error


def test_the_clients_token_goes_to_the_old_server_only() -> None:
    seen: dict[str, list[str | None]] = {"old": [], "new": []}
    token = {"MLPX_TOKEN": "of-the-new"}
    with recording(seen["old"]) as old, recording(seen["new"]) as new, shadowing(old, new, **token) as shadow:
        assert shadow.ask(BODY, authorization="Bearer of-the-client").status == 200
        shadow.outcome("equal")
    assert seen["old"][0] == "Bearer of-the-client"
    assert set(seen["new"]) == {"Bearer of-the-new"}


@contextmanager
def recording(seen: list[str | None]) -> Iterator[str]:
    """A server that keeps what it is authorised by."""
    answer = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.0]}]}).encode()
    with raw(lambda request: seen.append(_header(request, b"authorization")) or _http(answer)) as url:
        yield url


def _header(request: bytes, name: bytes) -> str | None:
    lines = [line.split(b": ", 1) for line in request.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    return next((value.decode() for key, value in lines if key.lower() == name), None)


def _http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@contextmanager
def raw(answer: Any) -> Iterator[str]:
    """A server of bytes: each piece that comes is a request, and what ``answer`` makes of it is sent."""
    ended = Event()

    def serve(end: socket.socket) -> None:
        with suppress(OSError), end:
            while (piece := end.recv(1 << 20)) and not ended.is_set():
                while b"\r\n\r\n" not in piece or (b"POST" in piece and not piece.rstrip().endswith(b"}")):
                    piece += end.recv(1 << 20)
                end.sendall(answer(piece))

    def accept() -> None:
        with suppress(OSError):
            while not ended.is_set():
                Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()


def test_a_client_that_takes_nothing_does_not_keep_it_running() -> None:
    with raw(lambda _: _http(bytes(2**26))) as old, server().url() as new, shadowing(old, new, "--grace", 0) as shadow:
        host, port = shadow.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as end:
            end.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert end.recv(1) == b"H"
            assert shadow.stop()[0] == 0


def test_nohup_keeps_it_running_when_its_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as from nohup
    try:
        with server().url() as old, server().url() as new, shadowing(old, new) as shadow:
            shadow.process.send_signal(signal.SIGHUP)
            assert shadow.ask(BODY).status == 200
            shadow.outcome("equal")
            assert shadow.stop()[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_clients_that_ask_for_any_name_do_not_fill_the_counters() -> None:
    tally, joined = Tally(), Tally()
    for number in range(5000):
        tally.add(Outcome("refused", f"model{number}"))
    joined.join(tally)
    assert (joined.compared, len(joined.record()["models"])) == (5000, len(tally.models))
    assert len(tally.models) <= 1001


def test_wrong_options_are_said_before_anything_listens(run: Run) -> None:
    for arguments, words in (
        (("--old", "grpc://h:1", "--new", "http://h:2"), "not mirrored"),
        (("--old", "http://h:1", "--new", "http://h:1"), "the same server"),
        (("--old", "http://h:1", "--new", "http://h:2", "--old-bound", "1"), "give its URL"),
        (("--old", "http://h:1", "--new", "https://h:2", "--ca-file", "/none/ca.pem"), "/none/ca.pem"),
        (("--old", "ftp://h:1", "--new", "http://h:2"), "expected http"),
        (("--old", "http://h:1", "--new", "http://h:2", "--metrics", "x"), "--metrics takes PORT"),
        (("--old", "http://h:1/v2/models/m", "--new", "http://h:2", "--old-certificate", "no"), "cannot be read"),
    ):
        done = run("shadow", *arguments)
        assert done.code == 2
        assert words in " ".join(done.err.split())
