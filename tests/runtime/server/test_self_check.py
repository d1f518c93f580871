"""A server is ready only while its proved models answer the rows of their certificates as was proved."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.server.dynamic_batching import DynamicBatcher
from runtime.server.logs import Log
from runtime.server.metrics import format_metrics
from runtime.server.options import Options
from runtime.server.refusals import Busy, NotReady
from runtime.server.repository import Repository
from runtime.server.self_check import check
from tests.support.onnx_drafts import fixed_batch
from tests.support.servers.planted import FAULTS
from tests.support.servers.planting import turned
from tests.support.serving import model
from tests.support.stress.models import Proved, copied, proved

Talk = Callable[[Repository, Callable[[], list[dict[str, Any]]]], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


def within(folder: Path, talk: Talk, **options: Any) -> None:
    """Run ``talk`` with the loaded models of a folder, and with what gives the log so far."""

    async def run() -> None:
        stream = io.StringIO()
        repository = Repository(Options(folder, device="cpu", **options), Log(stream=stream))
        await repository.refresh()
        await talk(repository, lambda: [json.loads(line) for line in stream.getvalue().splitlines()])
        repository.close()

    asyncio.run(run())


def metric(repository: Repository, name: str) -> dict[str, float]:
    """The values of a metric by what stands between its braces."""
    lines = [line for line in format_metrics(repository.statistics(), repository).splitlines() if line.startswith(name)]
    return {line[len(name) :].partition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def changes(log: list[dict[str, Any]]) -> list[str]:
    return [entry["event"] for entry in log if entry["event"] in ("model_wrong", "model_right")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_readiness_at_the_next_check_and_its_end_restores_it(arm: Proved, plan: Path, fault: str) -> None:
    async def talk(repository: Repository, log: Callable[[], list[dict[str, Any]]]) -> None:
        assert repository.ready
        assert metric(repository, "mlpx_model_right") == {'{model="arm",version="1"}': 1}
        with turned(plan, fault):
            for _ in range(3):
                await repository.verify()
            assert not repository.ready
            with pytest.raises(NotReady, match=r"version 1 of the model 'arm' does not compute what was proved: "):
                repository.require_ready("arm")
            assert repository.find("arm") is repository.find("arm", "1")  # it still answers
            (entry,) = repository.index()
            assert entry["state"] == "NOT_READY"
            assert repository.index(ready=True) == []
            assert metric(repository, "mlpx_model_right") == {'{model="arm",version="1"}': 0}
            assert metric(repository, "mlpx_ready") == {"": 0}
            assert changes(log()) == ["model_wrong"]
            (told,) = (entry for entry in log() if entry["event"] == "model_wrong")
            assert (told["model"], told["version"]) == ("arm", "1")
            assert "(row " in told["reason"] or f"nearer to what {fault} gives" in told["reason"]
        for _ in range(2):
            await repository.verify()
        assert repository.ready
        repository.require_ready("arm", "1")
        assert changes(log()) == ["model_wrong", "model_right"]
        checks = metric(repository, "mlpx_self_checks_total")
        assert {key.partition('result="')[2][:5]: value for key, value in checks.items()} == {"right": 3, "wrong": 3}

    within(arm.file.parent, talk)


def test_answers_that_are_exchanged_between_requests_are_found(arm: Proved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request alone is right, whatever its rows: the check sends several together, as clients do."""

    async def talk(repository: Repository, log: Callable[[], list[dict[str, Any]]]) -> None:
        call = DynamicBatcher._call  # where the rows of a shared call are given back to its requests
        with monkeypatch.context() as exchanged:
            exchanged.setattr(DynamicBatcher, "_call", lambda self, batch: call(self, batch)[::-1])
            await repository.verify()
        (told,) = (entry for entry in log() if entry["event"] == "model_wrong")
        assert told["reason"].endswith("; rows sent at the same time (arrays)")
        assert not repository.ready
        await repository.verify()
        assert repository.ready

    within(arm.file.parent, talk)


def test_a_model_that_is_unloaded_meanwhile_is_not_asked(arm: Proved, tmp_path: Path) -> None:
    for name in ("a", "b"):
        copied(arm, tmp_path / "models" / name)
        for path in (tmp_path / "models" / name).iterdir():
            path.rename(path.with_name(path.name.replace("arm", name)))

    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        second = repository.find("b")
        checking = asyncio.create_task(repository.verify())
        await asyncio.sleep(0)
        await repository.unload("b")
        await checking
        assert repository.find("a").statistics.checks == {"right": 2}
        assert second.statistics.checks == {"right": 1}

    within(tmp_path / "models", talk)


def test_without_coalescing_no_requests_share_a_call(arm: Proved, plan: Path) -> None:
    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        before = repository.find("arm").statistics.runs.count
        await repository.verify()
        assert repository.find("arm").statistics.runs.count == before + 2
        with turned(plan, "a stale file"):
            await repository.verify()
        assert not repository.ready

    within(arm.file.parent, talk, coalesce=False)


def test_a_model_that_is_wrong_at_its_start_is_loaded_and_not_ready(arm: Proved, plan: Path) -> None:
    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        assert not repository.ready
        assert repository.find("arm").fault
        (plan / "fault").write_text("")
        await repository.verify()
        assert repository.ready

    (plan / "fault").write_text("TF32")
    within(arm.file.parent, talk)


def test_a_new_file_that_is_wrong_does_not_replace_one_that_is_right(arm: Proved, plan: Path, tmp_path: Path) -> None:
    own = copied(arm, tmp_path / "models")

    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        old = repository.find("arm")
        with turned(plan, "float16"):
            own.file.touch()
            await repository.refresh()
        (entry,) = repository.index()
        assert repository.find("arm") is old
        assert "the new file does not compute here what was proved: 'output'" in entry["reason"]
        assert repository.ready
        assert metric(repository, "mlpx_model_right") == {'{model="arm",version="1"}': 1}
        calls = old.statistics.runs.count
        own.file.touch()
        await repository.refresh()
        assert repository.find("arm") is not old
        assert repository.find("arm").statistics.runs.count > calls  # counters never go back

    within(own.file.parent, talk)


def test_a_new_file_that_is_right_replaces_one_that_is_wrong(arm: Proved, plan: Path, tmp_path: Path) -> None:
    own = copied(arm, tmp_path / "models")

    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        with turned(plan, "float16"):
            await repository.verify()
        assert not repository.ready
        await repository.load("arm")
        assert repository.ready
        assert metric(repository, "mlpx_model_right") == {'{model="arm",version="1"}': 1}

    within(own.file.parent, talk)


def test_without_an_interval_nothing_is_checked(arm: Proved, plan: Path) -> None:
    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        assert repository.ready
        assert repository.find("arm").statistics.checks == {}
        assert metric(repository, "mlpx_model_right") == {}

    (plan / "fault").write_text("another version")
    within(arm.file.parent, talk, verify_every=0)


def test_a_model_without_a_certificate_is_not_checked(tmp_path: Path) -> None:
    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        await repository.verify()
        assert repository.ready
        assert repository.find("one").statistics.checks == {}

    within(model(tmp_path / "one.onnx").parent, talk)


def test_a_fixed_batch_is_asked_whole(tmp_path: Path) -> None:
    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        loaded = repository.find("fixed")
        assert loaded.statistics.checks == {"right": 1}
        assert set(loaded.statistics.batches) == {12}

    within(fixed_batch(tmp_path, 12).parent, talk)


def test_no_request_has_more_rows_than_the_server_takes(arm: Proved) -> None:
    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        loaded = repository.find("arm")
        assert loaded.statistics.checks == {"right": 1}
        assert max(loaded.statistics.batches) == 5

    within(arm.file.parent, talk, max_rows=5, max_batch=5)


@pytest.fixture
def loaded(arm: Proved, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], dict[str, Any]]:
    """What came of a check of a model that was right, and raises an error now: its counts, and its fault."""

    def ask(error: Exception) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
            loaded = repository.find("arm")

            def infer(*_: Any) -> Any:
                raise error

            monkeypatch.setattr(loaded, "infer", infer)
            await check(loaded, Log(stream=io.StringIO()))
            found.update(loaded.statistics.checks, fault=loaded.fault)

        within(arm.file.parent, talk)
        return found

    return ask


def test_a_busy_queue_says_nothing_of_the_model(loaded: Callable[[Exception], dict[str, Any]]) -> None:
    assert loaded(Busy("the queue is full")) == {"right": 1, "not asked": 1, "fault": ""}


def test_a_model_that_fails_is_not_right(loaded: Callable[[Exception], dict[str, Any]]) -> None:
    found = loaded(RuntimeError("out of memory"))
    assert (found["right"], found["wrong"]) == (1, 1)
    assert found["fault"] == "no answer to the rows of the certificate: RuntimeError: out of memory"


def test_a_model_that_hangs_is_not_right(loaded: Callable[[Exception], dict[str, Any]]) -> None:
    found = loaded(TimeoutError())
    assert found["fault"] == "no answer to the rows of the certificate within 60 s"


def test_the_answers_of_requests_are_not_changed(arm: Proved) -> None:
    """The rows of a check share calls with the rows of clients, and each gets its own."""

    async def talk(repository: Repository, _log: Callable[[], list[dict[str, Any]]]) -> None:
        loaded = repository.find("arm")
        rows = arm.answers.inputs["input"]
        checking = asyncio.create_task(repository.verify())
        answers: list[np.ndarray] = []
        while not checking.done():
            outputs = await loaded.infer({"input": rows[:3]}, 3, None)
            answers.append(outputs["output"])
        assert answers
        for values in answers:
            assert np.all(np.abs(values - arm.answers.exact["output"][:3]) <= arm.answers.bound["output"][:3])

    within(arm.file.parent, talk)
