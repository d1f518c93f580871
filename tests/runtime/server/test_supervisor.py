"""What the supervisor does about workers that fail, die or do not answer, without their processes."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime import InputError, OutputError
from runtime.server import supervisor as supervisor_module
from runtime.server import worker as worker_module
from runtime.server.logs import ForwardingHandler, Log
from runtime.server.options import Options
from runtime.server.refusals import NotReady
from runtime.server.supervisor import _bind, _Supervisor, _WorkerProcess
from runtime.server.worker import Sockets, _allow_many_files, _Worker
from runtime.server.worker_sync import Channel

OPTIONS = Options(Path("models"), workers=2)


def supervised(talk: Callable[[_Supervisor, list[_WorkerProcess]], Coroutine[Any, Any, None]]) -> None:
    """Run ``talk`` with a supervisor and its two workers, which have no processes."""

    async def run() -> None:
        with socket.socket() as rest:
            supervisor = _Supervisor(OPTIONS, Sockets(rest, None), lambda _: None)
            await talk(supervisor, supervisor._workers)

    asyncio.run(run())


class Other:
    """The channel to a worker, which answers with its name."""

    def __init__(self, name: str):
        self.name, self.told = name, list[Any]()

    async def ask(self, *message: Any) -> str:
        self.told.append(message)
        return self.name

    def tell(self, *message: Any) -> None:
        self.told.append(message)


def test_a_server_whose_workers_all_die_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "PAUSE_SECONDS", (0.0,))
    started: list[int] = []

    async def dies(worker: _WorkerProcess) -> Any:
        started.append(worker.number)
        return SimpleNamespace(pid=1, exitcode=9)

    async def talk(supervisor: _Supervisor, workers: list[_WorkerProcess]) -> None:
        monkeypatch.setattr(supervisor, "_run_process", dies)
        with pytest.raises(OutputError, match="no worker could be started: the last one ended with 9"):
            await supervisor._keep_running(workers[1])

    supervised(talk)
    assert started == [1] * 5


def test_a_worker_is_not_started_again_by_a_server_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "PAUSE_SECONDS", (60.0,))

    async def talk(supervisor: _Supervisor, workers: list[_WorkerProcess]) -> None:
        async def dies(_: _WorkerProcess) -> Any:
            asyncio.get_running_loop().call_later(0.01, supervisor._stop)
            return SimpleNamespace(pid=1, exitcode=9)

        monkeypatch.setattr(supervisor, "_run_process", dies)
        await supervisor._keep_running(workers[0])

    supervised(talk)


def test_a_worker_that_cannot_start_ends_a_server_that_was_never_ready(capfd: pytest.CaptureFixture[str]) -> None:
    async def talk(supervisor: _Supervisor, workers: list[_WorkerProcess]) -> None:
        await supervisor._answer(workers[0], "failed", "the folder is gone")
        assert isinstance(workers[0].error, InputError)
        assert str(workers[0].error) == "the folder is gone"
        supervisor._started = None
        await supervisor._answer(workers[1], "failed", "the folder is gone")
        assert workers[1].error is None

    supervised(talk)
    assert '"worker_failed"' in capfd.readouterr().err


def test_a_change_is_made_first_where_it_was_asked_and_a_worker_that_is_gone_cannot_make_it() -> None:
    async def talk(supervisor: _Supervisor, workers: list[_WorkerProcess]) -> None:
        with pytest.raises(NotReady, match="to load 'm' takes longer than 60 s; it may still be done"):
            await supervisor._answer(workers[0], "load", "m")
        one: Any = Other("one")
        workers[0].channel = one
        await supervisor._answer(workers[0], "unload", "m")
        assert one.told == [("unload", "m")]
        supervisor._refresh()
        assert one.told[1:] == [("refresh",)]

    supervised(talk)


def test_no_process_is_left_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[Any] = []
    process = SimpleNamespace(
        terminate=lambda: done.append("terminate"),
        kill=lambda: done.append("kill"),
        join=lambda *_: done.append("join"),
        is_alive=lambda: True,
        pid=7,
    )

    async def talk(supervisor: _Supervisor, workers: list[_WorkerProcess]) -> None:
        workers[1].process = process
        supervisor._end()

    supervised(talk)
    assert done == ["terminate", "join", "kill", "join"]
    assert '"worker_killed"' in capfd.readouterr().err


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "256.256.256.256.256:1"])
def test_a_host_that_is_none_cannot_be_bound(host: str) -> None:
    with pytest.raises(OutputError, match=rf"cannot bind {host}:0: .*What to do: give another port"):
        _bind(host, 0)


@pytest.mark.parametrize(
    ("error", "message", "logged"),
    [
        (ZeroDivisionError("of the loader"), "a worker ended with ZeroDivisionError: of the loader", True),
        (InputError("the folder is gone"), "the folder is gone", False),
    ],
)
def test_a_worker_that_cannot_start_says_why_and_a_defect_is_logged(
    error: Exception, message: str, logged: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []

    async def refresh(*_: Any) -> None:
        raise error

    async def heard(action: str, argument: Any) -> None:
        told.append((action, argument))

    async def run() -> None:
        ours, theirs = socket.socketpair()
        channel = await Channel.open(ours, heard)
        with socket.socket() as rest:
            assert await _Worker(OPTIONS, Log(), 0).run(Sockets(rest, None), theirs, frozenset()) == 1
        await channel.listen()
        await asyncio.sleep(0)

    monkeypatch.setattr(worker_module.Repository, "refresh", refresh)
    asyncio.run(run())
    assert told == [("failed", message)]
    assert ("ZeroDivisionError" in capfd.readouterr().err) == logged


def test_a_worker_may_open_as_many_files_as_the_system_lets_it() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        _allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_hung_up_is_not_in_the_log_of_libraries(capfd: pytest.CaptureFixture[str]) -> None:
    handler = ForwardingHandler(Log())
    for message in ("ASGI callable returned without completing response.", "something else"):
        handler.emit(logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, message, (), None))
    assert [line for line in capfd.readouterr().err.splitlines() if "without completing" in line] == []
