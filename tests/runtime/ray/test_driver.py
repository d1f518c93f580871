"""What comes between a user and a cluster, without one: messages, plans, and what is left of a job that failed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime import ClusterError, InputError, ModelError, OutputError, ProviderError, Session, score_folder
from runtime.data.scoring import input_ports
from runtime.ray import cluster
from runtime.ray import folder as folder_module
from runtime.ray.cluster import driver_messages
from runtime.ray.driver import _plan_workers, _run
from runtime.ray.partition import partition
from runtime.ray.worker import JobSpec, Worker, score_part
from runtime.version import VERSION
from tests.support.folders import NAMES, hidden_files, model, write_rows


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = [{"name": name, "range": [-10, 10]} for name in NAMES]
    return model(tmp_path_factory.mktemp("model"), features=features)


class Local:
    """The driver's messages, of a worker in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changed: Any):
        self.changed = changed
        self.left: list[str] = []
        monkeypatch.setattr(folder_module, "driver_messages", self)

    def __call__(self, task: dict[str, Any], _address: str) -> Local:
        self.task = task
        return self

    def __enter__(self) -> Any:
        return self.messages()

    def __exit__(self, *_: object) -> None:
        pass

    def messages(self) -> Any:
        yield {"workers": 1}
        job: JobSpec = self.task["job"]
        job["version"] = self.changed.get("version", VERSION)
        worker = Worker(job, Path(self.task["file"]).read_bytes())
        for number in range(len(job["parts"]) - self.changed.get("missing", 0)):
            yield json.loads(worker({"part": number})["receipt"]) | self.changed.get("receipt", {})
        for name in self.changed.get("files", ()):
            (Path(job["folder"]) / name).write_text("left")


def test_a_folder_is_complete_without_what_dead_workers_left(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonfinite = np.array([0, np.nan, 0], np.float32)
    write_rows(tmp_path / "in" / "a.parquet", 3, age=nonfinite, weight=np.zeros(3, np.float32))
    write_rows(tmp_path / "in" / "b.parquet", 3, age=nonfinite)
    Local(monkeypatch, files=[".a.parquet.1"])
    report = score_folder(file, tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.parquet", "b.parquet"]
    assert report.nonfinite_rows == 2
    assert any(note.endswith(" (a row of a.parquet)") and "2 of the 6 rows" in note for note in report.notes), (
        report.notes
    )


INCOMPLETE: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"missing": 1}, r"a\.parquet: results of 3 rows are expected, and none came; nothing is kept"),
    "fewer": ({"receipt": {"rows": 2}}, r"results of 3 rows are expected, and 2 were written; nothing is kept"),
    "another": ({"files": ["more.parquet"]}, r"missing or unexpected files: more\.parquet"),
    "version": ({"version": "0.0"}, rf"has mlpx {VERSION}, and this machine 0\.0\. What to do: install the same"),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_nothing_is_kept_of_an_incomplete_job(
    name: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, words = INCOMPLETE[name]
    write_rows(tmp_path / "in" / "a.parquet", 3)
    Local(monkeypatch, **changed)
    with pytest.raises(ClusterError, match=words):
        score_folder(file, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not hidden_files(tmp_path)


def test_rows_outside_their_range_end_a_strict_job(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "in.parquet", 3, age=np.full(3, 11, np.float32))
    Local(monkeypatch)
    with pytest.raises(InputError, match=r"What to do: correct or drop those rows, or score them with strict=False"):
        score_folder(file, tmp_path / "in.parquet", tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    assert score_folder(file, tmp_path / "in.parquet", tmp_path / "out").outside_rows == 3


def test_a_folder_within_a_file_cannot_be_written(file: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", 3)
    with pytest.raises(OutputError, match=r"cannot be written: .*; nothing was changed\. What to do: choose a folder"):
        score_folder(file, tmp_path / "in.parquet", tmp_path / "in.parquet" / "out")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: no such file"):
        score_folder(tmp_path / "none.onnx", tmp_path, tmp_path / "out")


def test_two_parts_never_have_one_name(file: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", 4, group=2)
    write_rows(tmp_path / "a-00000-of-00002.parquet", 1)
    told = r"the results of a.* would both be called a-00000-of-00002\.parquet"
    with Session(file, "cpu") as session, pytest.raises(InputError, match=told):
        partition(tmp_path, input_ports(session), max_rows=2)


def test_a_column_of_the_results_cannot_be_kept(file: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.parquet", 3, y_no=[1, 2, 3])
    with Session(file, "cpu") as session:
        (part,), _ = partition(source, input_ports(session), keep=["y_no"])
        with pytest.raises(
            InputError, match=r"a\.parquet: column 'y_no' cannot be kept, since a column of the results"
        ):
            score_part(session, part, tmp_path / "out", keep=["y_no"])
    assert not (tmp_path / "out" / part.target).exists()


def test_plans_that_the_cluster_cannot_fulfil() -> None:
    assert _plan_workers({"CPU": 4.0, "GPU": 1.0}, None, "auto", 2) == (1, True)
    with pytest.raises(ProviderError, match="'cuda' was asked for, and the cluster has no GPU"):
        _plan_workers({"CPU": 4.0}, None, "cuda", 1)


class RayError(Exception):
    """Of a cluster."""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "\nModuleNotFoundError: No module named 'runtime'\n",
            r"has no mlpx\. What to do: pip install 'mlpx\[cpu,ray\]==",
        ),
        ("a node\n\ndied  \n \n", r"the cluster failed: RayError: died  $"),
        ("", r"the cluster failed: RayError: $"),
    ],
)
def test_what_a_cluster_says_of_its_end(said: str, words: str, file: Path) -> None:
    def failing(**_: Any) -> Any:
        raise RayError(said)

    ray = SimpleNamespace(
        cluster_resources=lambda: {"CPU": 2.0},
        put=lambda content: content,
        remote=failing,
        exceptions=SimpleNamespace(RayError=RayError),
    )
    out = io.StringIO()
    task = {"file": file, "workers": 1, "job": {"device": "cpu", "threads": 1, "version": VERSION}}
    with pytest.raises(ClusterError, match=words):
        _run(ray, task, out)
    assert json.loads(out.getvalue()) == {"workers": 1}


DRIVERS = {
    "silent": ("import sys; sys.stdin.read()", "Ray did not start on this machine within 0 s"),
    "dead": ("import sys; print('{\"workers\": 1}', flush=True); sys.exit('out of luck')", "died: out of luck"),
    "dumb": ("print('{\"workers\": 1}', flush=True)", "died: without a message"),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_that_ends_too_soon_or_never_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, words = DRIVERS[name]
    (tmp_path / "python").write_text(
        f"#!/bin/sh\nexec '{cluster.sys.executable}' -S -c '{code.replace(chr(39), chr(34) * 3)}'\n"
    )
    (tmp_path / "python").chmod(0o700)
    monkeypatch.setattr(cluster, "sys", SimpleNamespace(executable=str(tmp_path / "python")))
    monkeypatch.setattr(cluster, "_START", 0.2 if name == "silent" else 60.0)
    with pytest.raises(ClusterError, match=words), driver_messages({}, "local") as messages:
        list(messages)


def test_a_cluster_that_is_looked_for_here_is_not_asked_for_its_port() -> None:
    cluster._probe("auto")
    for address in ("auto:", "host:port"):
        with pytest.raises(ClusterError, match="is not an address of a Ray cluster"):
            cluster._probe(address)


def test_a_folder_that_others_still_write_to_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(
        cluster.shutil, "rmtree", lambda path, **_: asked.append(path) or (len(asked) > 2 and path.rmdir())
    )
    monkeypatch.setattr(cluster.time, "sleep", lambda _: None)
    cluster._remove(kept)
    assert len(asked) == 3
    kept.mkdir()
    monkeypatch.setattr(cluster.shutil, "rmtree", lambda path, **_: asked.append(path))
    cluster._remove(kept)
    assert len(asked) == 53
