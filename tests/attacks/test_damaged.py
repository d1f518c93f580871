"""Hostile and damaged files end commands with a message and an exit code, and a server serves its other models."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from safetensors.torch import save_file

from builder import documents
from export import publish
from runtime import ModelError
from runtime.session import trial as trial_module
from runtime.session.trial import trial
from tests.attacks.damaged import ATTACKS
from tests.attacks.foreign import FOREIGN, crash, endless
from tests.support import ROOT
from tests.support.cases import network
from tests.support.commands import Run
from tests.support.repeats import examples
from tests.support.serving import ask, serving, until

ROWS = "a,b,c,d\n1,2,3,4\n"


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a proved model, its certificate, spec, weights and data."""
    folder = tmp_path_factory.mktemp("proved")
    spec, module = network([{"linear": 5}, "relu", {"linear": 3}])
    publish(module, folder / "m.onnx", spec=spec, page=False)
    (folder / "spec.yaml").write_text(documents.as_yaml(spec))
    save_file(module.state_dict(), folder / "weights.safetensors")
    rows = np.random.default_rng(0).random((20, 7), np.float32)
    np.save(folder / "data.npy", rows)
    np.savetxt(folder / "data.csv", rows, delimiter=",", header="a,b,c,d,e,f,g", comments="")
    return folder


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_is_a_message(name: str, run: Run, proved: Path, tmp_path: Path) -> None:
    folder = copytree(proved, tmp_path / "folder")
    attack = ATTACKS[name]
    done = run(*attack.make(folder))
    assert done.code == attack.code, done.err
    assert re.search(attack.words, done.out + done.err), done.err
    assert "Traceback" not in done.err


RUNNING: dict[str, list[str]] = {
    "predict": ["predict", "crash.onnx", "rows.csv"],
    "bench": ["bench", "crash.onnx"],
    "tune": ["tune", "crash.onnx"],
    "inspect": ["inspect", "crash.onnx", "--data", "rows.csv"],
    "recover": ["recover", "crash.onnx", "-o", "made"],
    "verify": ["verify", "crash.onnx", "--module", "torch.nn:Identity"],
}
"""Every command that runs a file."""


@pytest.mark.parametrize("command", RUNNING)
def test_a_file_that_crashes_onnx_runtime_ends_no_command(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crash.onnx").write_bytes(crash().SerializeToString())
    Path("rows.csv").write_text(ROWS)
    done = run(*RUNNING[command])
    assert done.code == 2
    assert re.search(FOREIGN["crash"][1] + r".*What to do: do not run this file", done.err)


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_foreign_file_does_in_its_trial(name: str, tmp_path: Path) -> None:
    make, words = FOREIGN[name]
    (tmp_path / "m.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(ModelError, match=words), trial(tmp_path / "m.onnx", "cpu"):
        pass


def test_a_file_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "_SECONDS", 1)
    (tmp_path / "m.onnx").write_bytes(endless().SerializeToString())
    with (
        pytest.raises(ModelError, match=r"has not ended after \d+ s \(running it on 1 rows\)"),
        trial(tmp_path / "m.onnx"),
    ):
        pass


def test_only_files_that_are_not_proved_are_tried(
    proved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    folder = copytree(proved, tmp_path / "folder")
    monkeypatch.setattr(subprocess, "Popen", no_process)
    with trial(folder / "m.onnx"), trial(folder / "none.onnx"):
        pass
    content = (folder / "m.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(content + b"\x72\x00")  # an empty record of metadata
    with pytest.raises(AssertionError, match="a process was started"), trial(folder / "m.onnx"):
        pass


def test_an_error_while_a_file_is_tried_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(endless().SerializeToString())
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object):
            super().__init__(*arguments, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(ZeroDivisionError), trial(tmp_path / "m.onnx"):
        raise ZeroDivisionError
    assert started[0].poll() is not None


@pytest.mark.server
def test_a_folder_with_hostile_files_is_served(proved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("m.onnx", "m.parity.json"):
        (folder / name).write_bytes((proved / name).read_bytes())
    for name, make in {"crash": crash, "endless": endless}.items():
        (folder / f"{name}.onnx").write_bytes(make().SerializeToString())
    with serving(folder, "--grace", 5) as server:
        states = {model["name"]: (model["state"], model["reason"]) for model in server.models}
        assert states["m"] == ("READY", "")
        assert states["endless"] == ("LOADING", "")
        assert states["crash"][0] == "UNAVAILABLE"
        assert "ONNX Runtime crashes" in states["crash"][1]
        assert server.ask("GET", "/v2/health/live").status == 200
        assert server.ask("GET", "/v2/models/m/ready").status == 200
        row = {"inputs": [{"name": "input", "shape": [1, 7], "datatype": "FP32", "data": [0.0] * 7}]}
        assert ask(server.url, "POST", "/v2/models/m/infer", row).status == 200
        (refused,) = server.events("model_refused")
        assert refused["model"] == "crash"
        assert server.stop() == 0  # at once, though a file is being tried
        assert not server.events("worker_died")
        assert not server.events("worker_killed")


@pytest.mark.server
def test_a_worker_that_hangs_is_ended_at_the_stop(proved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("m.onnx", "m.parity.json"):
        (folder / name).write_bytes((proved / name).read_bytes())
    with serving(folder, "--grace", 0.5, "--poll", 0.1) as server:
        content = endless().SerializeToString()
        (folder / "late.onnx").write_bytes(content)
        certificate = (folder / "m.parity.json").read_text()
        digest = hashlib.sha256(content).hexdigest()
        known = re.sub(r'"sha256": "[0-9a-f]{64}"', f'"sha256": "{digest}"', certificate, count=1)
        (folder / "late.parity.json").write_text(known)
        (folder / "late.onnx").touch()
        until(lambda: "late" in str(server.ask("POST", "/v2/repository/index", "{}").body))
        assert server.stop() in (0, 1)


def test_files_that_are_damaged_at_random(tmp_path: Path) -> None:
    files = examples(16, of=100)  # two or three commands on each
    command = [sys.executable, "-m", "benchmarks.damaged", "--files", files, "--jobs", 1, "--keep", tmp_path / "kept"]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert f'"files": {files}' in done.stdout
