"""Which calls wake the threads of the pool: those of a tight loop or of a busy caller. The bits are always the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Thread
from time import process_time_ns, thread_time_ns

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from export import export
from runtime import Session
from runtime.session.pace import Pace
from runtime.session.scheduling import threads_that_never_preempt
from runtime.session.settings import Settings, resolve
from tests.support.cases import BLOCKS, WIDTHS, network, normal, relu_network
from tests.support.repeats import examples

US = 1000


class Caller:
    """A thread whose clocks a test moves, and which of its calls were made alone (A) or together (T)."""

    def __init__(self, spin_us: int = 50, *, wake_if_busy: bool = True):
        self.now = self.cpu = 10**9
        self.made = ""
        self.pace = Pace(spin_us, lambda: self.now, lambda: self.cpu)
        self.run = self.pace.choosing(lambda: self.call("A"), lambda: self.call("T"), wake_if_busy=wake_if_busy)

    def call(self, how: str) -> None:
        self.made += how
        self.busy(70)

    def busy(self, us: int) -> None:
        self.now, self.cpu = self.now + us * US, self.cpu + us * US

    def sleep(self, us: int) -> None:
        self.now += us * US

    def loop(self, calls: int, wait: Callable[[int], None], us: int) -> str:
        """How so many calls are made with this wait after each."""
        start = len(self.made)
        for _ in range(calls):
            self.run()
            wait(us)
        return self.made[start:]


@pytest.mark.parametrize("us", [300, 1000, 2000, 10_000, 100_000])
def test_a_caller_that_sleeps_wakes_nobody(us: int) -> None:
    caller = Caller()
    assert caller.loop(20, caller.sleep, us) == "A" * 20


@pytest.mark.parametrize("us", [0, 20, 50])
def test_a_tight_loop_uses_the_threads_after_a_few_calls(us: int) -> None:
    caller = Caller()
    assert caller.loop(20, caller.busy, us) == "AAAA" + "T" * 16
    caller.sleep(2000)
    assert caller.loop(10, caller.busy, us) == "AAAA" + "T" * 6


@pytest.mark.parametrize("burst", [2, 3, 4])
def test_a_short_burst_wakes_nobody(burst: int) -> None:
    caller = Caller()
    for _ in range(5):
        caller.loop(burst, caller.busy, 1)
        caller.sleep(2000)
    assert caller.made == "A" * 5 * burst


@pytest.mark.parametrize("us", [100, 300, 1000, 5000])
def test_a_busy_caller_wakes_the_threads_where_the_call_is_worth_it(us: int) -> None:
    worth, small = Caller(), Caller(wake_if_busy=False)
    assert worth.loop(20, worth.busy, us) == "AAAA" + "T" * 16
    assert small.loop(20, small.busy, us) == "A" * 20


def test_a_short_sleep_counts_as_busy() -> None:
    caller = Caller()
    assert caller.loop(20, caller.sleep, 150) == "AAAA" + "T" * 16


def test_threads_that_spin_for_longer_are_awake_for_longer() -> None:
    caller = Caller(spin_us=3000)
    assert caller.loop(20, caller.sleep, 2000) == "AAAA" + "T" * 16
    assert caller.loop(20, caller.sleep, 4000) == "T" + "A" * 19


def limits(settings: Settings, multiply_adds: int, widest: int | None) -> tuple[int, int, int]:
    """Rows from which a call uses two threads that are awake, asleep, and asleep after the caller slept too."""
    found = resolve(settings, multiply_adds, 2, widest)
    return found.whole_from, found.busy_from, found.idle_from


def test_the_rule() -> None:
    small, medium, large = (sum(a * b for a, b in pairwise(WIDTHS[name])) for name in ("small", "medium", "large"))
    assert limits(Settings(), small, 256) == (7, 17, 17)
    assert limits(Settings(), medium, 1024) == (1, 1, 5)
    assert limits(Settings(), medium, 5000) == (1, 1, 1)  # its activations may be divided, and have other bits then
    assert limits(Settings(), medium, None) == (1, 1, 1)
    assert limits(Settings(), large, 4096) == (1, 1, 1)  # a second session would hold its weights again
    assert resolve(Settings(), large, 2, 4096).spin_us == 0
    assert resolve(Settings(spin_us=7), large, 2, 4096).spin_us == 7
    for threads in (1, 2):
        assert limits(Settings(threads=threads), medium, 1024) == (1, 1, 1)


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, module = relu_network("medium")
    return export(module, tmp_path_factory.mktemp("pace") / "medium.onnx", spec=spec).path


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Caller:
    """A caller whose clocks every session opened by the test reads, on a machine of two cores."""
    caller = Caller()
    monkeypatch.setattr("runtime.session.buffers.Pace", lambda spin: Pace(spin, lambda: caller.now, lambda: caller.cpu))
    monkeypatch.setattr("runtime.session.session.usable_cores", lambda: 2)
    return caller


def help_of_others(session: Session, x: np.ndarray, wait: Callable[[], None]) -> float:
    """Processor time of other threads over this one's, in 200 calls; the first ones open and bind what they need."""
    out = session.predict(x)
    for _ in range(8):
        session.predict_into(x, out)
        wait()
    all_before, own_before = process_time_ns(), thread_time_ns()
    for _ in range(200):
        session.predict_into(x, out)
        wait()
    own = thread_time_ns() - own_before
    return (process_time_ns() - all_before - own) / own


@pytest.mark.parametrize(
    ("threads", "sleeping", "helped"),
    [(None, False, True), (None, True, False), (1, False, False), (2, False, True), (2, True, True)],
)
def test_who_helps(medium: Path, caller: Caller, threads: int | None, sleeping: bool, helped: bool) -> None:
    """By the rule as the calls come, and as requested where ``threads`` is set."""
    with Session(medium, "cpu", threads=threads) as session:
        share = help_of_others(session, normal(1, 784), lambda: caller.sleep(2000 if sleeping else 0))
    assert (share > 0.01) is helped, share


@settings(deadline=None, max_examples=examples(10, of=40))
@given(waits=st.lists(st.sampled_from([0, 10, 100, 400, 5000]), min_size=5, max_size=30), rows=st.integers(1, 5))
def test_the_bits_do_not_depend_on_how_calls_come(medium: Path, waits: list[int], rows: int) -> None:
    x = normal(rows, 784)
    caller = Caller()
    with pytest.MonkeyPatch.context() as patch, Session(medium, "cpu", threads=1) as one:
        patch.setattr("runtime.session.buffers.Pace", lambda spin: Pace(spin, lambda: caller.now, lambda: caller.cpu))
        patch.setattr("runtime.session.session.usable_cores", lambda: 2)
        with Session(medium, "cpu") as session:
            expected, out = one.predict(x), np.zeros((rows, 10), np.float32)
            for index, wait in enumerate(waits):
                (caller.sleep if index % 3 else caller.busy)(wait)
                np.testing.assert_array_equal(session.predict(x), expected)
                session.predict_into(x, out)
                np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("width", [585, 1024, 4096])
def test_one_thread_and_more_give_the_same_bits(width: int, block: str, tmp_path: Path) -> None:
    """What the rule relies on, for every block, up to the widest batch that it is for."""
    spec, module = network([{"linear": width}, BLOCKS[block], {"linear": 41}], 300)
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    with Session(path, "cpu", threads=1) as one, Session(path, "cpu", threads=3) as three:
        for rows in range(1, 4096 // width + 1):
            x = normal(rows, 300, seed=rows)
            np.testing.assert_array_equal(one.predict(x), three.predict(x))


def test_a_file_whose_bits_differ_keeps_its_threads(medium: Path, tmp_path: Path, caller: Caller) -> None:
    """Here because it adds noise; on another processor, because a kernel adds in another order on more threads."""
    model = onnx.load(str(medium))
    last = model.graph.node[-1]
    model.graph.node.append(helper.make_node("RandomNormalLike", ["before"], ["noise"]))
    model.graph.node.append(helper.make_node("Add", ["before", "noise"], [last.output[0]]))
    last.output[0] = "before"
    onnx.save(model, str(tmp_path / "m.onnx"))
    with Session(tmp_path / "m.onnx", "cpu") as session:
        assert session.settings.busy_from < session.settings.idle_from
        session.predict(normal(2, 784))  # a session's noise begins alike; now one of them is ahead
        assert help_of_others(session, normal(1, 784), lambda: caller.sleep(2000)) > 0.01


@pytest.mark.skipif(sys.platform != "linux", reason="a policy of Linux")
def test_threads_that_help_never_preempt(medium: Path) -> None:
    own = os.sched_getscheduler(0)
    found: list[int] = []
    with threads_that_never_preempt():
        thread = Thread(target=lambda: found.append(os.sched_getscheduler(0)))
        thread.start()
    thread.join()
    assert (found, os.sched_getscheduler(0)) == ([os.SCHED_BATCH], own)
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    with Session(medium, "cpu", threads=2):
        started = set(tasks.iterdir()) - before
        assert [os.sched_getscheduler(int(thread.name)) for thread in started] == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == own
