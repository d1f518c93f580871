"""What else keeps the processor busy: other processes are seen, this one's work and its children's are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic, thread_time

import pytest

from export import export
from runtime import bench
from runtime.timing.load import LoadWatch, busy_with_onnxruntime
from tests.support.cases import network

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counts are Linux'")
_DEADLINE = 60.0


@contextmanager
def busy_process(imports: str) -> Iterator[int]:
    """The process id of one that computes without end."""
    code = f"import sys, {imports}\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def model_of_a_linear_layer(tmp_path: Path) -> Path:
    spec, module = network([{"linear": 3}])
    return export(module, tmp_path / "m.onnx", spec=spec).path


def until(found: Callable[[], bool]) -> bool:
    """Whether it is found before the deadline; the machine may be busy."""
    end = monotonic() + _DEADLINE
    while monotonic() < end:
        if found():
            return True
    return False


def test_another_process_is_seen() -> None:
    with busy_process("os"):
        watch = LoadWatch()
        assert until(lambda: (watch.cores() or 0) > 0.3)
        note = watch.note()
    assert note is not None
    assert "other programs, or other threads of this one, used" in note
    assert "What to do" in note


def test_bench_says_so(model_of_a_linear_layer: Path) -> None:
    with busy_process("os"):
        report = bench(model_of_a_linear_layer, batches=[1], seconds=0.5, device="cpu")
    assert report.load is not None
    assert "these are the times of a loaded machine" in report.load


def test_own_work_is_not_counted() -> None:
    def share(*, working: bool) -> float:
        watch, start = LoadWatch(), thread_time()
        if not working:
            Event().wait(0.3)
        while working and thread_time() - start < 0.3:
            pass
        cores = watch.cores()
        assert cores is not None
        return cores

    # Whatever the load of the machine is.
    assert until(lambda: share(working=True) < share(working=False) + 0.5)


def test_a_busy_process_that_has_onnxruntime_is_named() -> None:
    with busy_process("onnxruntime") as pid, busy_process("os") as other:
        found: dict[int, str] = {}

        def look() -> bool:
            found.update({process.pid: process.format() for process in busy_with_onnxruntime(0.1)})
            return pid in found

        assert until(look)
    assert other not in found
    assert f"process {pid} (" in found[pid]
    assert "allow_spinning" in found[pid]
