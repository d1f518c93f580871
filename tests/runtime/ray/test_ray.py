"""Scoring on a Ray cluster of two workers, which really die here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars
import pytest

from runtime import ClusterError, score_folder
from tests.support import ROOT
from tests.support.commands import Run
from tests.support.folders import NAMES, hidden_files, model, read_results, score_alone, write_rows

pytest.importorskip("ray", reason="Ray is not installed")


class Cluster(NamedTuple):
    address: str
    """For who runs on one of its machines."""
    client: str
    """For any other."""
    group: int
    """The session of its processes."""

    def workers(self) -> list[int]:
        """The processes that score."""
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        return [
            pid
            for pid in pids
            if _in_session(pid, self.group) and _command(pid).startswith("ray::") and "Worker" in _command(pid)
        ]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _in_session(pid: int, group: int) -> bool:
    try:
        return os.getsid(pid) == group
    except ProcessLookupError:
        return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of two CPUs on this machine that was there before, bound to the loopback address."""
    ports = _free_port(), _free_port()
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
        command += [f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", f"--temp-dir={folder}"]
        command += ["--include-dashboard=false", "--object-store-memory=200000000", "--disable-usage-stats"]
        settings = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
        environment = pytest.MonkeyPatch()
        environment.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # loopback, for it and for who connects
        own_group = {"start_new_session": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, env=os.environ | settings, **own_group)
        assert process.stdout is not None
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if "will now block forever" in line:
                    break
            else:
                raise AssertionError("".join(said))
            yield Cluster(f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}", process.pid)
        finally:
            environment.undo()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_an_existing_cluster_gives_what_one_machine_gives(cluster: Cluster, tmp_path: Path, run: Run) -> None:
    file = model(tmp_path)
    sources = [
        write_rows(tmp_path / "in" / "a.parquet", 5000, seed=1, group=700),
        write_rows(tmp_path / "in" / "b.parquet", 1, seed=2),
        write_rows(tmp_path / "in" / "c" / "d.parquet", 0),
    ]
    options = ["--engine", "ray", "--address", cluster.address, "--keep", "id", "--json"]
    done = run("predict", file, tmp_path / "in", "-o", tmp_path / "out", *options)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["rows"] == 5001
    assert report["workers"] == 2
    assert report["devices"] == ["cpu"]
    assert [part["target"] for part in report["parts"]] == ["a.parquet", "b.parquet", "c/d.parquet"]
    results = polars.concat([polars.read_parquet(tmp_path / "out" / part["target"]) for part in report["parts"]])
    assert results.equals(score_alone(file, sources, tmp_path))
    assert hidden_files(tmp_path) == [] == hidden_files(tmp_path / "out")


def test_a_cluster_by_rays_client(cluster: Cluster, tmp_path: Path) -> None:
    file, source = model(tmp_path), write_rows(tmp_path / "in.parquet", 3000, group=500)
    report = score_folder(file, source, tmp_path / "out", address=cluster.client, keep=["id"], part_rows=1000)
    assert [part.target for part in report.parts] == [f"in-0000{n}-of-00003.parquet" for n in range(3)]
    assert read_results(tmp_path / "out", report.parts).equals(score_alone(file, [source], tmp_path))


def test_a_worker_that_is_killed_half_way_costs_no_row_and_doubles_none(cluster: Cluster, tmp_path: Path) -> None:
    file = model(tmp_path, width=20_000)
    sources = [write_rows(tmp_path / "in" / f"{n}.parquet", 24_000, seed=n, group=4000) for n in range(3)]
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        """One of the two, when both are in the midst of a part."""
        while not ended.wait(0.002):
            begun = len(list(tmp_path.glob(".out.*/.attempts/*")))
            done = len(list(tmp_path.glob(".out.*/[!.]*.parquet")))
            if done >= 4 and begun - done == 2:
                killed.append(cluster.workers()[0])
                os.kill(killed[0], signal.SIGKILL)
                return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        where = {"address": cluster.address, "workers": 2, "part_rows": 4000}
        report = score_folder(file, tmp_path / "in", tmp_path / "out", keep=["id"], **where)
    finally:
        ended.set()
        thread.join()
    assert len(killed) == 1
    assert report.repeated >= 1
    assert len(report.parts) == 18
    assert read_results(tmp_path / "out", report.parts).equals(score_alone(file, sources, tmp_path))
    assert hidden_files(tmp_path / "out") == []


def test_rows_that_kill_every_worker_are_given_up_and_named(cluster: Cluster, tmp_path: Path) -> None:
    file, source = model(tmp_path, width=20_000), write_rows(tmp_path / "in.parquet", 200_000)
    ended = threading.Event()

    def kill() -> None:  # as the kernel does where memory ends: each of the three that begins
        for attempt in (1, 2, 3):
            while not [path for path in tmp_path.glob(".out.*/.attempts/0") if path.stat().st_size == attempt]:
                if ended.wait(0.01):
                    return
            for pid in cluster.workers():
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(ClusterError, match=r"in\.parquet: 3 workers died over rows 1 to 200,000. What to do: "):
            score_folder(file, source, tmp_path / "out", address=cluster.address)
    finally:
        ended.set()
        thread.join()
    assert not (tmp_path / "out").exists()
    assert hidden_files(tmp_path) == []


def test_a_row_that_cannot_be_read_is_named_and_nothing_is_written(cluster: Cluster, tmp_path: Path, run: Run) -> None:
    file = model(tmp_path)
    write_rows(tmp_path / "in" / "a.parquet", 100)
    gap = polars.Series([1.0] * 41 + [None] + [1.0] * 58, dtype=polars.Float32)
    write_rows(tmp_path / "in" / "b.parquet", 100, age=gap)
    options = ["--engine", "ray", "--address", cluster.address]
    done = run("predict", file, tmp_path / "in", "-o", tmp_path / "out", *options)
    assert done.code == 2
    assert "b.parquet: column 'age' has 1 empty values, the first in row 42" in done.err
    assert not (tmp_path / "out").exists()
    assert hidden_files(tmp_path) == []


def test_what_the_cluster_has_not_is_not_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    file, source = model(tmp_path), write_rows(tmp_path / "in.parquet", 10)
    with pytest.raises(ClusterError, match=r"5 workers of 1 CPUs were asked for, and the cluster has 2 CPUs"):
        score_folder(file, source, tmp_path / "out", address=cluster.address, workers=5)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders of this test alone are made: its path is short, as the paths of Ray's sockets must be."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_local_cluster_ends_with_its_run_and_is_not_seen_from_outside(temporary: Path, tmp_path: Path) -> None:
    features = [{"name": name, "range": [-1, 1]} for name in NAMES]
    file, source = model(tmp_path, features=features), write_rows(tmp_path / "in.parquet", 1000)
    seen: list[str] = []
    report = score_folder(
        file, source, tmp_path / "out", workers=2, keep=["id"], progress=lambda *_: seen.extend(_listening())
    )
    assert seen
    assert set(seen) == {"127.0.0.1"}
    assert report.outside_rows > 100
    assert " of the 1,000 rows of in.parquet are outside" in report.notes[0]
    assert read_results(tmp_path / "out", report.parts).equals(score_alone(file, [source], tmp_path))
    assert list(temporary.glob("mlpx-ray-*")) == []


def test_an_interrupted_run_leaves_nothing(temporary: Path, tmp_path: Path) -> None:
    file, source = model(tmp_path), write_rows(tmp_path / "in.parquet", 4000, group=100)
    with pytest.raises(KeyboardInterrupt):
        score_folder(
            file,
            source,
            tmp_path / "out",
            workers=1,
            part_rows=100,
            progress=lambda *_: signal.raise_signal(signal.SIGINT),
        )
    assert not (tmp_path / "out").exists()
    assert hidden_files(tmp_path) == []
    assert list(temporary.glob("mlpx-ray-*")) == []


def test_a_cluster_that_cannot_be_reached_is_named_in_bounded_time(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.ray.cluster._CONNECT", 5.0)  # less to wait for: nothing will answer
    file, source = model(tmp_path), write_rows(tmp_path / "in.parquet", 10)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        addresses = {
            "somewhere": r"'somewhere' is not an address of a Ray cluster. What to do: give auto, local, host:port",
            f"127.0.0.1:{_free_port()}": r"cannot be reached: \[Errno 111\] Connection refused. What to do: ",
            f"127.0.0.1:{silent.getsockname()[1]}": r"cannot be reached: no Ray cluster answered within 5 s",
        }
        for address, expected in addresses.items():
            options = ["--engine", "ray", "--address", address]
            done = run("predict", file, source, "-o", tmp_path / "out", *options)
            assert done.code == 3
            assert re.search(expected, done.err)
            assert address in done.err
            assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert hidden_files(tmp_path) == []


def test_without_ray_the_install_line_is_given(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file, source = model(tmp_path), write_rows(tmp_path / "in.parquet", 10)
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"))
    done = run("predict", file, source, "-o", tmp_path / "out", "--engine", "ray")
    assert done.code == 3
    assert 'pip install "mlpx[ray]"' in done.err
    assert "--engine ray needs the package ray" in done.err
    assert not (tmp_path / "out").exists()


def _listening() -> list[str]:
    """The addresses at which the sessions that this process has started listen."""
    here = os.getpid()
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    groups = {os.getsid(pid) for pid in pids if _parent(pid) == here} - {os.getsid(here)}
    inodes = set()
    for pid in pids:
        if any(_in_session(pid, group) for group in groups):
            with contextlib.suppress(OSError):
                inodes |= {str(link.readlink())[8:-1] for link in Path(f"/proc/{pid}/fd").iterdir()}
    addresses = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                words = bytes.fromhex(local.partition(":")[0])
                packed = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
                addresses.append(socket.inet_ntop(family, packed).removeprefix("::ffff:"))
    return addresses


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
