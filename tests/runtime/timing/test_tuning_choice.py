"""What is worth measuring, and what counts as best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import InputError, Session
from runtime.session.settings import Settings, resolve
from runtime.session.tuning_file import Measured
from runtime.timing.accuracy import Difference, Gate, difference
from runtime.timing.candidates import Candidate, best, settings_to_try
from runtime.timing.measuring import measure
from runtime.timing.rows import spread
from tests.support.tuned import FEATURES, ill_conditioned

EXACT, INT8 = Path("m.onnx"), Path("m.int8-static.onnx")


def candidate(path: Path = EXACT, **settings: Any) -> Candidate:
    return Candidate("float32" if path == EXACT else "int8-static", path, Settings(**settings))


def measured(latency: float, cpu: float = 1e-4, threads: int = 1, rounds: tuple[float, ...] = ()) -> Measured:
    rounds = rounds or (latency,) * 4
    return Measured(Settings(), threads, latency, latency, latency, cpu, 9, rounds)


def test_the_lowest_median_wins() -> None:
    fast, slow = candidate(threads=2), candidate(threads=1)
    assert best({slow: measured(1.1e-4, cpu=1e-4), fast: measured(1e-4, cpu=9e-4, threads=2)}) == fast


def test_within_the_noise_the_exact_file_then_less_cpu_then_fewer_threads_then_the_rule() -> None:
    int8, busy, two, one, rule = (
        candidate(INT8),
        candidate(spin_us=1000),
        candidate(threads=2),
        candidate(threads=1),
        candidate(),
    )
    times = {int8: measured(1e-4, cpu=1e-5)}
    assert best(times | {busy: measured(1.2e-4)}) == int8
    for better, its_times in (
        (busy, measured(1.01e-4, cpu=2e-4)),
        (two, measured(1.01e-4, threads=2)),
        (one, measured(1.02e-4)),
        (rule, measured(1.02e-4)),
    ):
        times[better] = its_times
        assert best(times) == better


def test_a_noisy_machine_widens_what_counts_as_equal() -> None:
    int8, exact = candidate(INT8), candidate()
    noisy = measured(1.1e-4, rounds=(0.9e-4, 1.3e-4, 0.95e-4, 1.25e-4))
    assert best({int8: measured(1e-4), exact: noisy}) == exact
    assert best({int8: measured(1e-4), exact: measured(1.1e-4)}) == int8


@given(work=st.integers(1, 2**30), batch=st.integers(1, 2**20), cores=st.integers(1, 64), by_batch=st.booleans())
def test_the_search_is_small_and_sensible(work: int, batch: int, cores: int, by_batch: bool) -> None:
    found, left_out = settings_to_try(work, batch, cores, variant=by_batch, by_batch=by_batch)
    assert len(found) == len(set(found)) <= 16
    assert resolve(found[0], work, cores).workers == (1 if by_batch else resolve(Settings(), work, cores).workers)
    threads = {each.threads for each in found if each.threads is not None}
    assert max(threads, default=1) <= max(cores, 2)
    assert cores > 1 or threads <= {1}
    shared = batch >= resolve(Settings(), work, cores).shared_from
    if work * batch < 2**15 and not (shared and not by_batch):
        assert threads == {1}
        assert any("too few to share" in line for line in left_out)
    for each in found:
        real = resolve(each, work, cores)
        assert not by_batch or real.workers == 1, "rows that depend stay together"
        assert each.chunk_rows is None or each.chunk_rows <= batch
    if shared and not by_batch:
        assert any(resolve(each, work, cores).chunk_rows >= batch for each in found), "in one call"


def test_what_large_batches_get_does_not_change_with_the_tuning_of_small_ones() -> None:
    found, _ = settings_to_try(2**20, 1, 8)
    assert {resolve(each, 2**20, 8).workers for each in found} == {8}


def test_every_candidate_is_measured_in_every_round_and_the_rule_is_kept(tmp_path: Path) -> None:
    path = ill_conditioned(tmp_path)
    tried = [Candidate("float32", path, each) for each in (Settings(), Settings(threads=1), Settings(prepack=False))]
    done: list[tuple[int, int]] = []
    feed = {"input": np.ones((5, FEATURES), np.float32)}
    found, _ = measure(tried, feed, seconds=0.3, progress=lambda number, of: done.append((number, of)))
    rule = found[tried[0]]
    assert {len(one.rounds) for one in found.values()} == {len(rule.rounds)}
    assert done[-1] == (len(rule.rounds),) * 2
    assert all(one.calls >= 3 * len(one.rounds) and 0 < one.p50 <= one.p99 for one in found.values())
    assert all(one.settings == each.settings for each, one in found.items())


def test_a_rate_that_leaves_no_time_drops_the_slowest_and_says_so(tmp_path: Path) -> None:
    path = ill_conditioned(tmp_path)
    tried = [Candidate("float32", path, Settings(threads=1, spin_us=spin)) for spin in range(6)]
    found, left_out = measure(tried, {"input": np.ones((1, FEATURES), np.float32)}, rate=100, seconds=0.5)
    assert len(found) == 4
    assert any("0.5 s do not suffice" in line for line in left_out)


def test_a_large_batch_runs_on_as_many_threads_as_share_it(tmp_path: Path) -> None:
    shared = Candidate("float32", ill_conditioned(tmp_path), Settings(workers=2, chunk_rows=8))
    for rows, threads in ((16, 2), (15, 1)):
        found, _ = measure([shared], {"input": np.ones((rows, FEATURES), np.float32)}, seconds=0.01)
        assert found[shared].threads == threads


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux says what memory is free")
def test_files_that_memory_holds_only_once_are_measured_with_the_rule_alone(tmp_path: Path) -> None:
    path = ill_conditioned(tmp_path)
    with Path(f"{path}.data").open("wb") as data:
        data.truncate(2**42)
    rule, other = (Candidate("float32", path, Settings(threads=threads)) for threads in (1, 2))
    found, left_out = measure([rule, other], {"input": np.ones((1, FEATURES), np.float32)}, seconds=0.01)
    assert list(found) == [rule]
    assert left_out == ["1 settings that this machine has not the memory to hold open beside the others"]


def test_a_gate_on_labels_needs_labels() -> None:
    gate = Gate(max_error=1.0, max_changed_labels=0.5)
    assert gate.why_not(Difference(9, 2.0, None)) == "its error is 2, above 1 and the model has no labels to compare"
    assert gate.why_not(Difference(9, 1.0, 0.5)) is None


def test_nothing_is_compared_on_no_rows(tmp_path: Path) -> None:
    path = ill_conditioned(tmp_path)
    with pytest.raises(InputError, match="the data has no rows to compare results on"):
        difference(path, path, {"input": np.ones((0, FEATURES), np.float32)})


def test_the_file_is_measured_as_it_is_and_not_by_an_older_tuning(tmp_path: Path) -> None:
    from export import tune

    path = ill_conditioned(tmp_path)
    first = tune(path, seconds=0.1, plot=False)
    assert first.file("float32").best is not None
    marked = replace(first.files[0], best=replace(first.files[0].best, settings=Settings(threads=3)))  # type: ignore[type-var]
    replace(first, files=(marked,)).write(tmp_path / "model.tuning.json")
    with Session(path, "cpu") as session:
        assert session.settings.threads == 3
    again = tune(path, seconds=0.1, plot=False)
    rule = next(one for one in again.file("float32").measured if one.settings == Settings())
    assert rule.threads == 1


def test_more_rows_than_are_compared_are_spread_evenly() -> None:
    rows = {"x": np.arange(10)[:, None]}
    assert spread(rows, 20)["x"] is rows["x"]
    assert spread(rows, 4)["x"][:, 0].tolist() == [0, 2, 5, 7]
