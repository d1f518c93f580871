"""Pushing to a stand-in for the Hub: everything in one commit or nothing, and only what was proved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from export import ProofError, TargetError, publish, push
from runtime import InputError, UnreachableError
from tests.support.hub import LEGACY, Hub
from tests.support.outcomes import outcome

pytestmark = pytest.mark.filterwarnings(LEGACY)
REPO = "team/pump"
HELD = {"README.md", "pump.onnx", "pump.parity.json", "spec.yaml", "weights.safetensors"}


def held(hub: Hub, revision: str = "main") -> set[str]:
    return set(hub.files(REPO, revision)) - {".gitattributes"}


def test_everything_is_pushed_in_one_commit(pump: Path, hub: Hub) -> None:
    pushed = push(pump, REPO, license="apache-2.0", tag="v1", message="first")
    files = hub.files(REPO)
    assert held(hub) == HELD == {file.name for file in pushed.files}
    assert files["pump.onnx"] == (pump / "pump.onnx").read_bytes()
    assert files["weights.safetensors"] == (pump / "weights.safetensors").read_bytes()
    repository = hub.repositories[REPO]
    assert repository.messages == ["initial commit", "first"]
    assert repository.tags == {"v1": pushed.commit}
    assert pushed.url == f"{hub.url}/{REPO}"
    assert not repository.private
    assert not pushed.notes


def test_the_same_files_make_no_second_commit(pump: Path, hub: Hub) -> None:
    first = push(pump, REPO)
    again = push(pump / "pump.onnx", REPO)
    assert (first.unchanged, again.unchanged, again.commit) == (False, True, first.commit)
    assert len(hub.repositories[REPO].commits) == 2


def test_a_branch_of_its_own_leaves_the_main_one_alone(pump: Path, hub: Hub) -> None:
    push(pump, REPO, revision="next", private=True)
    assert held(hub) == set()
    assert held(hub, "next") == HELD
    assert hub.repositories[REPO].private
    with pytest.raises(TargetError, match="has a tag 'v1'"):
        push(pump, REPO, tag=push(pump, REPO, tag="v1").tag, license="mit")


@pytest.mark.usefixtures("hub")
def test_a_public_repository_is_not_taken_for_a_private_one(pump: Path) -> None:
    push(pump, REPO)
    with pytest.raises(TargetError, match="is public, and a private one was requested"):
        push(pump, REPO, private=True)


@pytest.mark.parametrize("fault", ["/commit/", "PUT /lfs/", "/preupload/", "/objects/batch"])
def test_nothing_is_left_under_the_name_by_a_push_that_fails(fault: str, pump: Path, hub: Hub) -> None:
    hub.faults[fault] = 500
    with pytest.raises(UnreachableError, match=rf"{REPO} cannot be pushed to.*500.*What to do: push again"):
        push(pump, REPO, tag="v1")
    assert held(hub) == set()
    assert not hub.repositories[REPO].tags
    hub.faults.clear()
    push(pump, REPO)
    assert held(hub) == HELD


def test_a_push_that_fails_leaves_the_last_one(folder: Path, hub: Hub) -> None:
    before = push(folder, REPO)
    (folder / "weights.safetensors").unlink()
    hub.faults["/commit/"] = 503
    assert isinstance(outcome(UnreachableError, push, folder, REPO, license="mit"), UnreachableError)
    assert hub.repositories[REPO].branches["main"] == before.commit


def test_a_commit_whose_answer_is_lost_is_not_made_twice(pump: Path, hub: Hub) -> None:
    def lose(_: bytes) -> bytes:
        raise ConnectionResetError

    hub.faults["/commit/"] = lose
    with pytest.raises(UnreachableError, match="makes no second commit where the first has arrived"):
        push(pump, REPO)
    hub.faults.clear()
    assert push(pump, REPO).unchanged
    assert len(hub.repositories[REPO].commits) == 2


@pytest.mark.parametrize(
    ("fault", "status", "error", "words"),
    [
        ("/commit/", 412, UnreachableError, "look what was pushed meanwhile"),
        ("/repos/create", 403, UnreachableError, "hf auth login, or set HF_TOKEN"),
        ("/validate-yaml", 500, UnreachableError, "answered 500 to POST"),
        ("/commit/", 413, InputError, "does not take it (413)"),
        ("GET /api/models", 429, UnreachableError, "answered 429 to GET"),
    ],
)
def test_what_the_hub_refuses_is_said(
    fault: str, status: int, error: type[Exception], words: str, pump: Path, hub: Hub
) -> None:
    hub.faults[fault] = status
    said = outcome(error, push, pump, REPO)
    assert words in str(said)
    assert REPO in str(said)


def test_a_wrong_token_and_none(pump: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(UnreachableError, match="does not know the token"):
        push(pump, REPO)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UnreachableError, match=r"refuses it \(401\).*hf auth login, or set HF_TOKEN"):
        push(pump, REPO)
    assert not hub.repositories


@pytest.mark.parametrize("repo", ["a/b/c", "team/pu mp", "-x/y", "team/", "pump"])
def test_a_name_that_no_repository_has(repo: str, pump: Path, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be|OWNER/NAME"):
        push(pump, repo)
    with pytest.raises(InputError, match=r"cannot be|OWNER/NAME"):
        push(pump, repo, dry_run=tmp_path / "dry")
    assert not hub.requests
    assert not (tmp_path / "dry").exists()


def test_an_address_of_a_hub_may_end_with_a_slash(pump: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    assert push(pump, REPO).url == f"{hub.url}/{REPO}"
    assert not [line for line in hub.requests if "//" in line]


def test_a_hub_that_is_not_there_or_none(pump: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(pump, REPO)
    hub.faults["GET /api/models"] = lambda _: b"<html>Sign in to the hotel's network</html>"
    with pytest.raises(UnreachableError, match="does not answer as a Hub does"):
        push(pump, REPO)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"refused.*from http://127\.0\.0\.1:9"):
        push(pump, REPO)


@pytest.mark.parametrize("change", ["a byte", "another certificate", "no certificate", "another verdict"])
def test_only_a_proved_file_is_pushed(change: str, folder: Path, hub: Hub) -> None:
    file, certificate = folder / "pump.onnx", folder / "pump.parity.json"
    record = json.loads(certificate.read_text())
    if change == "a byte":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif change == "another certificate":
        record["file"]["sha256"] = record["bound"]["sha256"] = "0" * 64
    elif change == "another verdict":
        record |= {"verdict": "failed", "why": "planted"}
    certificate.write_text(json.dumps(record))
    if change == "no certificate":
        certificate.unlink()
    with pytest.raises(ProofError, match="What to do"):
        push(folder, REPO)
    assert not hub.repositories


def test_weights_and_a_spec_of_another_network_are_refused(folder: Path, hub: Hub) -> None:
    tensors = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).state_dict()
    save_file(tensors, folder / "other.safetensors")
    with pytest.raises(TargetError, match=r"other\.safetensors does not hold the weights that pump\.onnx was proved"):
        push(folder, REPO, weights=folder / "other.safetensors")
    torch.save(tensors, folder / "other.pt")
    with pytest.raises(TargetError, match=r"expected a \.safetensors file"):
        push(folder, REPO, weights=folder / "other.pt")
    push(folder, REPO, dry_run=folder.parent / "dry")
    text = (folder.parent / "dry" / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text("# by hand\n" + text)
    push(folder, REPO)
    assert hub.files(REPO)["spec.yaml"].startswith(b"# by hand")
    (folder / "spec.yaml").write_text(text.replace("tanh", "relu"))
    with pytest.raises(TargetError, match="is not the spec"):
        push(folder, REPO)


def test_a_folder_with_no_file_and_with_two(folder: Path, hub: Hub) -> None:
    shutil.copyfile(folder / "pump.onnx", folder / "pump2.onnx")
    with pytest.raises(TargetError, match=r"2 ONNX files: pump\.onnx, pump2\.onnx.*name the file"):
        push(folder, REPO)
    push(folder / "pump.onnx", REPO)
    assert held(hub) == HELD
    (folder / "empty").mkdir()
    with pytest.raises(TargetError, match="holds no ONNX file"):
        push(folder / "empty", REPO)


def test_a_model_of_another_name_is_replaced_in_the_same_commit(folder: Path, hub: Hub) -> None:
    push(folder, REPO)
    for file in folder.glob("pump.*"):
        file.rename(file.with_name(file.name.replace("pump", "valve")))
    with pytest.raises(TargetError, match=r"holds another model: pump\.onnx, pump\.parity\.json.*--replace"):
        push(folder, REPO)
    pushed = push(folder, REPO, replace=True)
    assert pushed.removed == ("pump.onnx", "pump.parity.json")
    assert held(hub) == {name.replace("pump", "valve") for name in HELD}
    assert len(hub.repositories[REPO].commits) == 3


def test_nothing_of_an_earlier_state_stays_beside_another_model(folder: Path, hub: Hub, tmp_path: Path) -> None:
    push(folder, REPO)
    hub.repositories[REPO].add(hub.files(REPO) | {"pump.parity.intoto.jsonl": b"{}", "own.txt": b""}, "main", "signed")
    (folder / "weights.safetensors").unlink()
    assert push(folder, REPO, license="mit").removed == ()  # they are of the same certificate
    assert held(hub) == HELD | {"pump.parity.intoto.jsonl", "own.txt"}
    module = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3))
    publish(module, tmp_path / "new" / "pump.onnx", device="cpu", page=False)
    pushed = push(tmp_path / "new", REPO)
    assert set(pushed.removed) == {"pump.parity.intoto.jsonl", "spec.yaml", "weights.safetensors"}
    assert held(hub) == {"README.md", "pump.onnx", "pump.parity.json", "own.txt"}


def test_files_that_no_push_brought_stay(pump: Path, folder: Path, hub: Hub) -> None:
    push(pump, REPO)
    hub.repositories[REPO].add({"weights.safetensors": b"somebody's own"}, "main", "other")
    (folder / "weights.safetensors").unlink()
    assert push(folder, REPO).removed == ()
    assert hub.files(REPO)["weights.safetensors"] == b"somebody's own"


def test_a_tag_is_given_once_and_again_to_the_same_files_alone(folder: Path, hub: Hub) -> None:
    def lose(_: bytes) -> bytes:
        raise ConnectionResetError

    hub.faults["/tag/"] = lose
    with pytest.raises(UnreachableError, match="cannot be given a tag"):
        push(folder, REPO, tag="v1")
    hub.faults.clear()
    again = push(folder, REPO, tag="v1")
    assert (again.unchanged, hub.repositories[REPO].tags) == (True, {"v1": again.commit})
    with pytest.raises(TargetError, match="has a tag 'v1'"):
        push(folder, REPO, tag="v1", license="mit")
    assert len(hub.repositories[REPO].commits) == 2


def test_no_name_is_that_of_a_branch_and_of_a_tag(pump: Path, hub: Hub) -> None:
    push(pump, REPO, tag="v1")
    with pytest.raises(TargetError, match="has a tag 'v1', which cannot be pushed to"):
        push(pump, REPO, revision="v1")
    for tag, branch in (("main", None), ("next", "next")):
        with pytest.raises(TargetError, match="is a branch of"):
            push(pump, REPO, tag=tag, revision=branch)
    repository = hub.repositories[REPO]
    assert (set(repository.branches), set(repository.tags)) == ({"main"}, {"v1"})


def test_a_module_written_by_hand_with_its_weights_beside_the_file(tmp_path: Path, hub: Hub) -> None:
    module = nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 1))
    publish(module, tmp_path / "hand.onnx", device="cpu", page=False, external_data=True)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    pushed = push(tmp_path, REPO)
    assert held(hub) == {"README.md", "hand.onnx", "hand.onnx.data", "hand.parity.json", "weights.safetensors"}
    assert pushed.notes == ("the card states no licence: name it with --license",)
    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(TargetError, match="does not hold the weights"):
        push(tmp_path, REPO)


def test_a_dry_run_writes_what_would_be_pushed(pump: Path, hub: Hub, tmp_path: Path) -> None:
    dry = push(pump, REPO, license="mit", dry_run=tmp_path / "dry")
    assert dry.commit is None
    assert not hub.requests
    pushed = push(pump, REPO, license="mit")
    assert dry.files == pushed.files
    written = {file.name: file.read_bytes() for file in (tmp_path / "dry").iterdir()}
    assert written == {name: content for name, content in hub.files(REPO).items() if name != ".gitattributes"}
    with pytest.raises(TargetError, match=r"is not empty\. What to do: choose another folder with -o$"):
        push(pump, REPO, dry_run=tmp_path / "dry")
