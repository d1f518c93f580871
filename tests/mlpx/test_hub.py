"""``mlpx push`` and ``mlpx pull`` as commands, with a stand-in for the Hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.hub import LEGACY, Hub, connected

pytestmark = pytest.mark.filterwarnings(LEGACY)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    with connected(monkeypatch) as hub:
        yield hub


def test_there_and_back(model: Path, hub: Hub, run: Run, tmp_path: Path) -> None:
    done = run("push", model.parent, "me/tiny", "--license", "mit", "--tag", "v1")
    commit = hub.repositories["me/tiny"].tags["v1"]
    assert done.code == 0
    assert done.out.startswith(f"pushed    me/tiny: {len(hub.files('me/tiny')) - 1} files, ")
    assert f"commit {commit[:12]}, tag v1\n" in done.out
    assert f"page      {hub.url}/me/tiny\n" in done.out
    assert done.err == "note: weights.safetensors is left out: name the trained weights with --weights\n"
    done = run("pull", "me/tiny", "--revision", "v1", "-o", tmp_path / "got", "--device", "cpu")
    assert done.code == 0
    assert done.out.startswith(f"pulled    me/tiny (v1, commit {commit[:12]}) to {tmp_path / 'got'}: ")
    assert f"proved    {tmp_path / 'got' / 'tiny.onnx'} on cpu, ONNX Runtime" in done.out
    assert done.err == ""
    done = run("pull", "me/tiny", "-o", tmp_path / "got", "--replace", "--json", "--device", "cpu")
    record = json.loads(done.out)
    assert (record["proved"], record["commit"], record["path"]) == (True, commit, str(tmp_path / "got" / "tiny.onnx"))
    assert record["report"]["findings"] == []
    done = run("push", model, "me/tiny", "--license", "mit", "--json")
    assert (json.loads(done.out)["unchanged"], json.loads(done.out)["commit"]) == (True, commit)


def test_a_dry_run(model: Path, hub: Hub, run: Run, tmp_path: Path) -> None:
    done = run("push", model.parent, "me/tiny", "--dry-run", "-o", tmp_path / "dry")
    assert done.code == 0
    assert done.out.startswith(f"written   {tmp_path / 'dry'}: ")
    assert "nothing was uploaded\nwould be  one commit of me/tiny\n          README.md (" in done.out
    assert "note: the card states no licence: name it with --license\n" in done.err
    assert not hub.requests
    for wrong in (["--dry-run"], ["-o", tmp_path / "x"]):
        done = run("push", model.parent, "me/tiny", *wrong)
        assert (done.code, done.out) == (2, "")
        assert "--dry-run and -o FOLDER go together" in done.err


def test_exit_codes(model: Path, hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("pull", "me/tiny", "-o", tmp_path / "got").code == 2
    hub.faults["/commit/"] = 500
    done = run("push", model.parent, "me/tiny")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[-1].startswith("mlpx: me/tiny cannot be pushed to: the Hub answered 500 to POST http")
    hub.faults.clear()
    run("push", model.parent, "me/tiny")
    files = hub.files("me/tiny") | {"tiny.onnx": hub.files("me/tiny")["tiny.onnx"] + b"\0"}
    hub.repositories["me/tiny"].add(files, "main", "changed")
    done = run("pull", "me/tiny", "-o", tmp_path / "got", "--device", "cpu")
    assert (done.code, done.out) == (1, "")
    assert "mlpx: me/tiny/tiny.onnx is not the file that tiny.parity.json was made of" in done.err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = run("pull", "me/tiny", "-o", tmp_path / "got")
    assert done.code == 3
    assert 'pip install "mlpx[hub]"' in done.err
