"""Pulling from a stand-in for the Hub: a folder appears only if it holds what was pushed and it computes here."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from export import ProofError, TargetError, publish, pull, push
from runtime import InputError, Session, SignatureError, UnreachableError, sha256, sign
from tests.support import ROOT
from tests.support.hub import LEGACY, Files, Hub
from tests.support.outcomes import outcome

pytestmark = pytest.mark.filterwarnings(LEGACY)
REPO = "team/pump"


@pytest.fixture
def pushed(pump: Path, hub: Hub) -> str:
    """The commit of the pump on the stand-in."""
    push(pump, REPO, tag="v1")
    return hub.repositories[REPO].tags["v1"]


def change(hub: Hub, edit: Callable[[Files], object]) -> None:
    """A commit by somebody else."""
    files = dict(hub.files(REPO))
    edit(files)
    hub.repositories[REPO].add(files, "main", "changed")


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def edited(files: Files, **changes: object) -> None:
    record = json.loads(files["pump.parity.json"])
    files["pump.parity.json"] = json.dumps(record | changes).encode()


@pytest.mark.parametrize("revision", [None, "v1", "the commit"])
def test_what_was_pushed_is_pulled_and_runs(
    revision: str | None, pump: Path, pushed: str, hub: Hub, tmp_path: Path
) -> None:
    pulled = pull(REPO, tmp_path / "got", revision=pushed if revision == "the commit" else revision, device="cpu")
    files = {name: content for name, content in hub.files(REPO).items() if name != ".gitattributes"}
    assert {file.name for file in (tmp_path / "got").iterdir()} == {*files, "mlpx-hub.json"} == set(pulled.files)
    assert {name: (tmp_path / "got" / name).read_bytes() for name in files} == files
    manifest = json.loads((tmp_path / "got" / "mlpx-hub.json").read_text())
    assert (manifest["repo"], manifest["commit"]) == (REPO, pushed)
    assert manifest["files"] == {name: sha256(tmp_path / "got" / name) for name in files}
    assert pulled.report.proved
    assert pulled.report.rows > 0
    assert Path(pulled.report.path) == pulled.path == tmp_path / "got" / "pump.onnx"
    rows = np.array([[1, 20]], np.float32)
    with Session(pulled.path, "cpu") as here, Session(pump / "pump.onnx", "cpu") as there:
        assert np.array_equal(here.predict(rows), there.predict(rows))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("fault", "how", "words"),
    [
        ("resolve", lambda content: content[: len(content) // 2], "README.md"),
        ("GET /team/pump/resolve", flipped, "is not the git blob that the Hub lists"),
        ("pump.onnx", flipped, "pump.onnx of team/pump, as it was downloaded, has another SHA-256 than the Hub lists"),
        (
            "pump.onnx",
            lambda content: content[:-9],
            "pump.onnx of team/pump cannot be downloaded: Consistency check failed",
        ),
        ("pump.parity.json", lambda _: b"", "pump.parity.json"),
        ("GET /api/models", 500, "team/pump cannot be looked for: the Hub answered 500 to GET http"),
        ("resolve", 502, "README.md of team/pump cannot be downloaded: the Hub answered 502 to HEAD"),
        ("GET /team/pump/resolve", 500, "README.md of team/pump cannot be downloaded: the Hub answered 500 to GET"),
        (
            "pump.onnx",
            403,
            "cannot be downloaded: the Hub refuses it (403). What to do: hf auth login, or set HF_TOKEN",
        ),
        ("GET /api/models", lambda _: b"{}", "does not answer as a Hub does"),
        ("GET /api/models", lambda _: b'{"id": "team/pump"}', "does not answer as a Hub does"),
        ("GET /api/models", lambda _: b"[]", "does not answer as a Hub does"),
        ("GET /api/models", lambda body: body.replace(b'"blobId"', b'"other"'), "the Hub lists no hash of it"),
    ],
)
@pytest.mark.usefixtures("pushed")
def test_a_hub_that_fails_or_damages_a_file_leaves_nothing(
    fault: str, how: int | Callable[[bytes], bytes], words: str, hub: Hub, tmp_path: Path
) -> None:
    hub.faults[fault] = how
    said = outcome(UnreachableError, pull, REPO, tmp_path / "got", device="cpu")
    assert words in str(said)
    assert "What to do" in str(said)
    assert not list(tmp_path.iterdir())


def weights_changed(files: Files) -> None:
    content = bytearray(files["pump.onnx"])
    content[len(content) - 40] ^= 64
    files["pump.onnx"] = bytes(content)


def answers_changed(files: Files) -> None:
    answers = json.loads(files["pump.parity.json"])["answers"]
    tensor = answers["exact"]["state"]
    values = np.frombuffer(base64.b64decode(tensor["base64"]), "<f8") + 0.01
    tensor["base64"] = base64.b64encode(values.tobytes()).decode()
    edited(files, answers=answers)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (weights_changed, "team/pump/pump.onnx is not the file that pump.parity.json was made of: its SHA-256 is"),
        (answers_changed, "Nothing was written"),
        (lambda files: edited(files, verdict="failed", why="planted"), "the verdict 'failed': planted"),
        (lambda files: files.pop("pump.parity.json"), "holds no certificate of pump.onnx (pump.parity.json)"),
        (lambda files: files.pop("pump.onnx"), "holds no ONNX file"),
        (lambda files: files.update({"b.onnx": b"x"}), "holds 2 ONNX files (b.onnx, pump.onnx)"),
    ],
    ids=["weights", "answers", "verdict", "no certificate", "no file", "two files"],
)
@pytest.mark.usefixtures("pushed")
def test_a_file_that_its_certificate_does_not_vouch_for_leaves_nothing(
    edit: Callable[[Files], object], words: str, hub: Hub, tmp_path: Path
) -> None:
    change(hub, edit)
    said = outcome(ProofError, pull, REPO, tmp_path / "got", device="cpu")
    assert isinstance(said, ProofError)
    assert words in str(said)
    assert "What to do" in str(said)
    assert str(tmp_path) not in str(said)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("pushed")
def test_the_certificate_of_another_file_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    publish(nn.Sequential(nn.Linear(2, 3)), tmp_path / "other" / "other.onnx", device="cpu", page=False)
    other = (tmp_path / "other" / "other.parity.json").read_bytes()
    change(hub, lambda files: files.update({"pump.parity.json": other}))
    with pytest.raises(ProofError, match=r"team/pump/pump\.onnx is not the file that pump\.parity\.json was made of"):
        pull(REPO, tmp_path / "got", device="cpu")
    assert not (tmp_path / "got").exists()


@pytest.mark.usefixtures("pushed")
def test_a_damaged_certificate_and_a_name_outside_of_the_folder(hub: Hub, tmp_path: Path) -> None:
    change(hub, lambda files: files.update({"pump.parity.json": b"{"}))
    with pytest.raises(InputError, match=r"^team/pump/pump\.parity\.json: not a parity report"):
        pull(REPO, tmp_path / "got", device="cpu")
    change(hub, lambda files: files.update({"../evil.py": b"x"}))
    with pytest.raises(InputError, match=r"'\.\./evil\.py' would not lie in the folder"):
        pull(REPO, tmp_path / "got", device="cpu")
    change(hub, lambda files: [files.pop("../evil.py"), files.update({"\x1b[2Jother.onnx": b"x"})])
    with pytest.raises(InputError, match=r"has a file whose name is no text: '\\x1b\[2Jother\.onnx'"):
        pull(REPO, tmp_path / "got", device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("pushed")
def test_names_that_the_hub_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"team/none cannot be looked for: the Hub shows no such repository \(404\)"):
        pull("team/none", tmp_path / "got")
    with pytest.raises(InputError, match="has no branch, tag or commit 'v9'"):
        pull(REPO, tmp_path / "got", revision="v9")
    with pytest.raises(InputError, match="cannot be looked for"):
        pull("not a name", tmp_path / "got")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"refused, from http://127\.0\.0\.1:9\. What to do"):
        pull(REPO, tmp_path / "got")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("hub")
def test_a_private_repository_needs_the_token(pump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(pump, REPO, private=True)
    assert pull(REPO, tmp_path / "got", device="cpu").report.proved
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(UnreachableError, match=r"does not know the token \(401\)"):
        pull(REPO, tmp_path / "other")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match=r"shows no such repository \(401\).*hf auth login"):
        pull(REPO, tmp_path / "other")


@pytest.mark.usefixtures("hub")
def test_a_signature_that_is_required(folder: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "pub.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    push(folder, REPO)
    with pytest.raises(SignatureError, match="is not signed"):
        pull(REPO, tmp_path / "got", device="cpu", trusted_keys=[public])
    with pytest.raises(SignatureError, match="is not signed"):
        push(folder, REPO, trusted_keys=[public])
    assert not (tmp_path / "got").exists()
    sign(folder / "pump.parity.json", private)
    push(folder, REPO, trusted_keys=[public])
    assert "pump.parity.intoto.jsonl" in pull(REPO, tmp_path / "got", device="cpu", trusted_keys=[public]).files
    certificate = folder / "pump.parity.json"
    certificate.write_text(certificate.read_text() + "\n")  # as one that was made anew after it was signed
    pushed = push(folder, REPO, license="mit")
    assert pushed.notes == ("pump.parity.intoto.jsonl is not the signature of this certificate, and is left out",)
    assert pushed.removed == ("pump.parity.intoto.jsonl",)


@pytest.mark.usefixtures("pushed")
def test_only_what_was_pulled_is_replaced(hub: Hub, tmp_path: Path) -> None:
    got = tmp_path / "got"
    pull(REPO, got, device="cpu")
    with pytest.raises(TargetError, match=r"is not empty.*--replace"):
        pull(REPO, got, device="cpu")
    change(hub, lambda files: files.update({"README.md": b"new"}))
    pull(REPO, got, device="cpu", replace=True)
    assert (got / "README.md").read_bytes() == b"new"
    hub.faults["pump.onnx"] = 404
    with pytest.raises(InputError, match="does not take it"):
        pull(REPO, got, device="cpu", replace=True)
    assert (got / "pump.onnx").is_file()
    (got / "thesis.txt").write_text("mine")
    with pytest.raises(TargetError, match=r"files that no pull of mlpx brought: thesis\.txt"):
        pull(REPO, got, device="cpu", replace=True)


def test_external_data_and_an_own_folder_go_round(hub: Hub, tmp_path: Path) -> None:
    made = tmp_path / "made"
    publish(nn.Sequential(nn.Linear(2, 3)), made / "net.onnx", device="cpu", page=False, external_data=True)
    push(made, "me/net")
    pulled = pull("me/net", tmp_path / "got", device="cpu")
    assert "net.onnx.data" in pulled.files
    assert push(pulled.folder, "me/net").unchanged
    change = dict(hub.files("me/net"))
    change["net.onnx.data"] = flipped(change["net.onnx.data"])
    hub.repositories["me/net"].add(change, "main", "changed")
    with pytest.raises(ProofError, match=r"is not the file that net\.parity\.json was made of"):
        pull("me/net", tmp_path / "again", device="cpu")


@pytest.mark.usefixtures("pushed")
def test_neither_torch_nor_onnx_is_needed(tmp_path: Path) -> None:
    code = "import sys; sys.modules |= {'torch': None, 'onnx': None, 'pandas': None}\n"
    code += "from mlpx import pull; print(pull('team/pump', sys.argv[1], device='cpu').report.proved)"
    command = [sys.executable, "-c", code, str(tmp_path / "got")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert done.stderr == ""
