"""Requests that share a call: each gets its own rows, its own error, once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Session
from runtime.server.dynamic_batching import DynamicBatcher, measure_cost
from runtime.server.refusals import Busy, Late
from runtime.server.statistics import Statistics
from tests.support.serving import model

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session(model(tmp_path_factory.mktemp("coalescing") / "m.onnx"), "cpu", threads=1) as opened:
        yield opened


@dataclass(frozen=True)
class Step:
    """What a client does: submit rows that work or break the model, be in time or not, hang up, or wait a turn."""

    rows: int = 1
    kind: str = "good"
    turns: int = 0


STEPS = st.lists(
    st.builds(
        Step, st.integers(0, 9), st.sampled_from(["good", "good", "bad", "late", "cancelled"]), st.integers(0, 2)
    ),
    max_size=40,
)


class Broken(Exception):
    """The model's own error."""


def calls_of(session: Session, made: list[int]) -> Callable[[Arrays], Arrays]:
    """One call of the model; rows with NaN make it fail, as a model may that runs out of memory."""

    def run(feed: Arrays) -> Arrays:
        made.append(len(feed["x"]))
        if np.isnan(feed["x"]).any():
            raise Broken
        return {"y": session.predict(feed["x"])}

    return run


async def played(steps: list[Step], session: Session, seconds: float, most: int, limit: int) -> None:
    made: list[int] = []
    statistics = Statistics()
    run = calls_of(session, made)
    queue = DynamicBatcher(run, lambda _: seconds, statistics, max_batch=most, queue_rows=limit)
    rng = np.random.default_rng(0)
    waiting: list[tuple[Step, np.ndarray, asyncio.Future[Arrays]]] = []
    for step in steps:
        feed = rng.standard_normal((step.rows, 4), dtype=np.float32)
        if step.kind == "bad":
            feed = np.full_like(feed, np.nan)
        before = statistics.waiting
        try:
            future = queue.submit({"x": feed}, step.rows, 0.0 if step.kind == "late" else 60.0)
        except Busy:
            assert before
            assert before + step.rows > limit
        else:
            assert not before or before + step.rows <= limit
            if step.kind == "cancelled":
                future.cancel()
            waiting.append((step, feed, future))
        for _ in range(step.turns):
            await asyncio.sleep(0)
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(future for *_, future in waiting), return_exceptions=True)
    for (step, feed, _), answer in zip(waiting, found, strict=True):
        judge(step, feed, answer, session)
    queue.close()
    assert statistics.waiting == 0
    longest = max((step.rows for step in steps), default=0)
    assert all(rows <= max(most, longest) for rows in made)


def judge(step: Step, feed: np.ndarray, answer: Any, session: Session) -> None:
    if step.kind == "late":
        assert isinstance(answer, Late)
    elif step.kind == "cancelled":
        assert isinstance(answer, asyncio.CancelledError)
    elif step.kind == "bad" and step.rows:
        assert isinstance(answer, Broken)
    else:
        assert set(answer) == {"y"}
        assert answer["y"].shape == (step.rows, 3)
        np.testing.assert_allclose(answer["y"], session.predict(feed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["on the loop", "on the thread"])
@given(steps=STEPS, most=st.sampled_from([0, 1, 7, 1000]), limit=st.sampled_from([1, 20, 10_000]))
@settings(max_examples=80, deadline=None)
def test_each_request_gets_what_is_its_own(
    session: Session, seconds: float, steps: list[Step], most: int, limit: int
) -> None:
    asyncio.run(played(steps, session, seconds, most, limit))


def test_requests_of_one_turn_share_a_call_on_the_loop(session: Session) -> None:
    async def scenario() -> list[int]:
        made: list[int] = []
        queue = DynamicBatcher(calls_of(session, made), lambda _: 0.0, Statistics(), max_batch=100, queue_rows=999)
        ones = [queue.submit({"x": np.zeros((1, 4), np.float32)}, 1, 60.0) for _ in range(9)]
        await asyncio.gather(*ones)
        await queue.submit({"x": np.zeros((1, 4), np.float32)}, 1, 60.0)
        queue.close()
        return made

    assert asyncio.run(scenario()) == [9, 1]


class Gate:
    """A model that computes when it is let: calls wait for ``open``."""

    def __init__(self, session: Session):
        self._session, self.open, self.entered = session, threading.Event(), threading.Event()
        self.made: list[int] = []

    def run(self, feed: Arrays) -> Arrays:
        self.made.append(len(feed["x"]))
        self.entered.set()
        assert self.open.wait(60)
        return {"y": self._session.predict(feed["x"])}


@pytest.mark.parametrize("together", [True, False])
def test_requests_gather_while_the_thread_is_busy(session: Session, together: bool) -> None:
    gate = Gate(session)

    async def scenario() -> None:
        queue = DynamicBatcher(gate.run, lambda _: 1.0, Statistics(), max_batch=100 if together else 0, queue_rows=999)
        first = queue.submit({"x": np.zeros((2, 4), np.float32)}, 2, 60.0)
        await asyncio.to_thread(gate.entered.wait, 60)
        others = [queue.submit({"x": np.zeros((1, 4), np.float32)}, 1, 60.0) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(future.done() for future in [first, *others])
        gate.open.set()
        await asyncio.gather(first, *others)
        queue.close()

    asyncio.run(scenario())
    assert gate.made == ([2, 5] if together else [2, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("same_turn", [True, False], ids=["as the first call starts", "while it runs"])
def test_a_deadline_passes_while_the_thread_is_busy(session: Session, same_turn: bool) -> None:
    gate = Gate(session)

    async def scenario() -> None:
        queue = DynamicBatcher(gate.run, lambda _: 1.0, Statistics(), max_batch=0, queue_rows=999)
        x = {"x": np.zeros((1, 4), np.float32)}
        first = queue.submit(x, 1, 60.0)
        if not same_turn:
            await asyncio.to_thread(gate.entered.wait, 60)
        second, third = queue.submit(x, 1, 0.01), queue.submit(x, 1, 60.0)
        async with asyncio.timeout(30):
            with pytest.raises(Late):
                await second
        assert not first.done()
        assert not third.done()
        gate.open.set()
        await asyncio.gather(first, third)
        queue.close()

    asyncio.run(scenario())
    assert gate.made == [1, 1]  # what is too late is not computed


def test_what_waits_when_a_queue_is_closed_is_answered(session: Session) -> None:
    gate = Gate(session)

    async def scenario() -> None:
        queue = DynamicBatcher(gate.run, lambda _: 1.0, Statistics(), max_batch=100, queue_rows=999)
        x = {"x": np.zeros((1, 4), np.float32)}
        first = queue.submit(x, 1, 60.0)
        await asyncio.to_thread(gate.entered.wait, 60)
        second = queue.submit(x, 1, 60.0)
        queue.close()
        gate.open.set()
        await asyncio.gather(first, second)
        await queue.submit(x, 1, 60.0)  # of a client that found the model just before it was replaced

    asyncio.run(scenario())
    assert gate.made == [1, 1, 1]
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("mlpx-model") and not ended(thread)
    ]


def ended(thread: threading.Thread) -> bool:
    thread.join(60)
    return not thread.is_alive()


def test_the_cost_of_a_slow_model_is_measured_with_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = count(0.0, 2.0), list[int]()
    monkeypatch.setattr("runtime.server.dynamic_batching.perf_counter", lambda: next(clock))
    cost = measure_cost(made.append, divisible=True)
    assert made == [1, 64]
    assert cost(1) == cost(64) == 2


def test_whoever_hangs_up_during_a_call_is_left_out(session: Session) -> None:
    gate = Gate(session)

    async def scenario() -> None:
        queue = DynamicBatcher(gate.run, lambda _: 1.0, Statistics(), max_batch=100, queue_rows=999)
        gone = queue.submit({"x": np.zeros((2, 4), np.float32)}, 2, 60.0)
        await asyncio.to_thread(gate.entered.wait, 60)
        gone.cancel()
        gate.open.set()
        answer = await queue.submit({"x": np.zeros((1, 4), np.float32)}, 1, 60.0)
        assert answer["y"].shape == (1, 3)
        assert gone.cancelled()
        queue.close()

    asyncio.run(scenario())
