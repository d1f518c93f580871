"""Checks of a model whose queue is long, short or stands still, and of a file that replaces another one then."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.server import dynamic_batching, self_check
from runtime.server.handlers import Handlers
from runtime.server.loaded_model import LoadedModel
from runtime.server.logs import Log
from runtime.server.metrics import format_metrics
from runtime.server.options import Options
from runtime.server.refusals import Busy, NotReady
from runtime.server.repository import Repository
from tests.support.servers.planting import turn, turned
from tests.support.stress.models import Proved, copied, proved

Events = Callable[[], list[str]]
PATIENCE = 60


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


@pytest.fixture
def arm(published: Proved, tmp_path: Path) -> Proved:
    return copied(published, tmp_path / "models")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """All calls are on threads, and those of one model wait for it; it is open at first."""
    gate, plain = threading.Event(), dynamic_batching.DynamicBatcher._call

    def call(self: Any, batch: list[Any]) -> Any:
        if self is getattr(gate, "of", None):
            gate.wait(PATIENCE)
        return plain(self, batch)

    monkeypatch.setattr(dynamic_batching.DynamicBatcher, "_call", call)
    monkeypatch.setattr(dynamic_batching, "INLINE_SECONDS", -1.0)
    gate.set()
    yield gate
    gate.set()


def close(gate: threading.Event, model: LoadedModel) -> None:
    """Have the calls of one model hang."""
    gate.of = model._batcher  # type: ignore[attr-defined]
    gate.clear()


def within(folder: Path, talk: Callable[[Repository, Events], Awaitable[None]], **options: Any) -> None:
    """Run ``talk`` with the loaded models of a folder, and with what gives the log's changes of models so far."""

    async def run() -> None:
        stream = io.StringIO()
        repository = Repository(Options(folder, device="cpu", **options), Log(stream=stream))
        await repository.refresh()
        async with asyncio.timeout(PATIENCE):
            await talk(repository, lambda: [json.loads(line)["event"] for line in stream.getvalue().splitlines()])
        repository.close()

    asyncio.run(run())


def test_a_model_that_hangs_in_a_request_is_not_right(
    arm: Proved, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of requests ends the check before its own patience does."""

    async def talk(repository: Repository, _events: Events) -> None:
        loaded = repository.find("arm")
        rows = arm.answers.inputs["input"][:1]
        assert repository.ready
        monkeypatch.setattr(self_check, "_PATIENCE", 0.1)
        close(gate, loaded)
        hanging = loaded.infer({"input": rows}, 1, None)
        while repository.ready:
            await repository.verify()
        assert loaded.fault == "a call of the model has not ended within 0.1 s"
        gate.set()
        await hanging
        monkeypatch.setattr(self_check, "_PATIENCE", PATIENCE)
        await repository.verify()
        assert repository.ready

    within(arm.file.parent, talk, timeout=0.001)


def test_a_full_queue_of_the_old_file_does_not_let_a_wrong_one_in(
    arm: Proved, plan: Path, gate: threading.Event
) -> None:
    async def talk(repository: Repository, _events: Events) -> None:
        old, rows = repository.find("arm"), arm.answers.inputs["input"]
        close(gate, old)
        called = old.infer({"input": rows}, len(rows), None)
        await asyncio.sleep(0)
        waiting = old.infer({"input": rows}, len(rows), None)
        with pytest.raises(Busy, match=f"{len(rows)} rows wait for this model, and its queue holds 70"):
            old.infer({"input": rows}, len(rows), None)
        turn(plan, "float16")
        arm.file.touch()
        await repository.refresh()
        assert repository.find("arm") is old
        turn(plan, "")
        gate.set()
        await asyncio.gather(called, waiting)
        assert old.statistics.waiting == 0

    within(arm.file.parent, talk, queue_rows=70)


@pytest.mark.parametrize("rows", [1, 7])
def test_a_short_queue_is_asked_in_several_turns(arm: Proved, rows: int) -> None:
    async def talk(repository: Repository, _events: Events) -> None:
        await repository.verify()
        assert repository.find("arm").statistics.checks == {"right": 2}

    within(arm.file.parent, talk, queue_rows=rows)


def test_a_model_that_could_not_be_asked_is_not_called_right(arm: Proved, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> Any:
        raise Busy("the queue is full")

    async def talk(repository: Repository, _events: Events) -> None:
        metrics = format_metrics(repository.statistics(), repository)
        assert 'mlpx_self_checks_total{model="arm",version="1",result="not asked"} 1' in metrics
        assert "mlpx_model_right{" not in metrics

    monkeypatch.setattr(LoadedModel, "infer", busy)
    within(arm.file.parent, talk)


def test_the_log_says_what_the_models_in_service_are(arm: Proved, plan: Path) -> None:
    """A new file that is refused was never in service; one that takes the place of a wrong one ends its fault."""

    async def talk(repository: Repository, events: Events) -> None:
        with turned(plan, "float16"):
            arm.file.touch()
            await repository.refresh()
            assert events() == ["model_loaded", "model_refused"]
            await repository.verify()
            arm.file.touch()
            await repository.refresh()
            assert events()[2:] == ["model_wrong", "model_loaded"]
        await repository.load("arm")
        assert events()[4:] == ["model_right", "model_loaded"]

    within(arm.file.parent, talk)


def test_a_model_that_a_client_unloaded_is_not_the_reason(arm: Proved, plan: Path) -> None:
    other = arm.file.with_name("other.onnx")
    other.write_bytes(arm.file.read_bytes())

    async def talk(repository: Repository, _events: Events) -> None:
        request: Any = None
        ready = Handlers(repository, repository.options, request).ready
        await repository.unload("other")
        await ready(request, {})
        with turned(plan, "float16"):
            await repository.verify()
        with pytest.raises(NotReady, match=r"^not what was proved: arm 1: 'output': "):
            await ready(request, {})

    within(arm.file.parent, talk)


def test_a_file_without_a_proof_does_not_inherit_a_fault(arm: Proved, plan: Path) -> None:
    async def talk(repository: Repository, _events: Events) -> None:
        with turned(plan, "float16"):
            await repository.verify()
            assert not repository.ready
            arm.file.with_suffix(".parity.json").unlink()
            await repository.refresh()
        assert not repository.find("arm").proved
        assert repository.ready

    within(arm.file.parent, talk)
