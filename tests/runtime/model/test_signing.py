"""Signed certificates: who may vouch for a file, and what is refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from export import package, publish
from runtime import InputError, SignatureError, read_certificate, require_signature, sign, signature_path
from tests.support.cases import network
from tests.support.commands import Run
from tests.support.serving import serving


def write_pair(folder: Path, name: str, *, openssh: bool = False, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """A new private key and its public key."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    protection = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    kind = PrivateFormat.OpenSSH if openssh else PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(Encoding.PEM, kind, protection))
    shown = (Encoding.OpenSSH, PublicFormat.OpenSSH) if openssh else (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(key.public_key().public_bytes(*shown))
    return private, public


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    spec, module = network([{"linear": 3}])
    publish(module, folder / "m.onnx", spec=spec, page=False)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A proved file with its certificate, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "files"))


@pytest.mark.parametrize("openssh", [False, True])
@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_signed_certificate_is_trusted_by_its_key_alone(
    folder: Path, tmp_path: Path, openssh: bool, passphrase: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_pair(tmp_path, "own", openssh=openssh, passphrase=passphrase)
    _, other = write_pair(tmp_path, "other")
    if passphrase is not None:
        monkeypatch.setenv("MLPX_KEY_PASSPHRASE", passphrase.decode())
    path = sign(folder / "m.parity.json", private)
    assert path == folder / "m.parity.intoto.jsonl" == signature_path(folder / "m.parity.json")
    certificate = read_certificate(folder / "m.parity.json")
    signer = require_signature(certificate, [public])
    assert require_signature(certificate, [other, public]) == signer
    assert len(signer) == 64
    with pytest.raises(SignatureError, match="none of its signatures"):
        require_signature(certificate, [other])
    with pytest.raises(SignatureError):
        require_signature(certificate, [])


def test_the_statement_can_be_read_and_verified_by_other_tools(folder: Path, tmp_path: Path) -> None:
    """The statement has the fields of in-toto; openssl verifies the signature over DSSE's encoding of it."""
    private, public = write_pair(tmp_path, "own")
    envelope = json.loads(sign(folder / "m.parity.json", private).read_text(encoding="utf-8"))
    statement = json.loads(payload := base64.b64decode(envelope["payload"]))
    certificate = read_certificate(folder / "m.parity.json")
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["subject"] == [{"name": "m.onnx", "digest": {"sha256": certificate.sha256}}]
    assert statement["predicate"]["result"] == "PASSED"
    assert statement["predicate"]["configuration"][0]["digest"] == {"sha256": certificate.digest}
    kind = envelope["payloadType"].encode()
    encoded = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    (tmp_path / "encoded").write_bytes(encoded)
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", tmp_path / "encoded"]
    done = subprocess.run([*command, "-sigfile", tmp_path / "signature"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


Change = Callable[[Path, dict[str, Any]], None]


def _edit(path: Path, *keys: str, value: object) -> None:
    record = inner = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(record), encoding="utf-8")


def _payload(change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(_: Path, envelope: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(envelope["payload"]))
        change(statement)
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    return changed


FORGERIES: dict[str, Change] = {
    "a certificate edited afterwards": lambda folder, _: _edit(folder / "m.parity.json", "why", value="because"),
    "a file of its own put into the certificate": lambda folder, _: _edit(
        folder / "m.parity.json", "file", "sha256", value="0" * 64
    ),
    "a statement with another digest": _payload(lambda s: s["subject"][0].update(digest={"sha256": "0" * 64})),
    "a statement with another result": _payload(lambda s: s["predicate"].update(result="FAILED")),
    "another type of payload": lambda _, envelope: envelope.update(payloadType="text/plain"),
    "no signature": lambda _, envelope: envelope.update(signatures=[]),
    "a signature that is no text": lambda _, envelope: envelope.update(signatures=[{"sig": 5}]),
    "a signature of zeros": lambda _, envelope: envelope.update(
        signatures=[{"sig": base64.b64encode(bytes(64)).decode()}]
    ),
    "a payload that is no JSON": lambda _, envelope: envelope.update(payload="AAAA"),
    "an envelope of nothing": lambda _, envelope: envelope.clear(),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    private, public = write_pair(tmp_path, "own")
    path = sign(folder / "m.parity.json", private)
    envelope = json.loads(path.read_text(encoding="utf-8"))
    FORGERIES[name](folder, envelope)
    path.write_text(json.dumps(envelope), encoding="utf-8")
    with pytest.raises(SignatureError, match="What to do"):
        require_signature(read_certificate(folder / "m.parity.json"), [public])


def test_a_true_statement_about_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    """The key's owner signed a statement of another kind, and of another file: neither vouches for this one."""
    private, public = write_pair(tmp_path, "own")
    spec, module = network([{"linear": 4}])
    publish(module, tmp_path / "other.onnx", spec=spec, page=False)
    signed = sign(tmp_path / "other.parity.json", private)
    shutil.copy(signed, folder / "m.parity.intoto.jsonl")
    with pytest.raises(SignatureError, match="another file"):
        require_signature(read_certificate(folder / "m.parity.json"), [public])


def test_several_envelopes_one_a_line(folder: Path, tmp_path: Path) -> None:
    first, second = write_pair(tmp_path, "first"), write_pair(tmp_path, "second")
    path = sign(folder / "m.parity.json", first[0])
    line = path.read_text(encoding="utf-8")
    sign(folder / "m.parity.json", second[0])
    path.write_text("not JSON\n" + line + path.read_text(encoding="utf-8"), encoding="utf-8")
    certificate = read_certificate(folder / "m.parity.json")
    assert require_signature(certificate, [first[1]]) != require_signature(certificate, [second[1]])


def test_keys_that_are_none(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = folder / "m.parity.json"
    private, public = write_pair(tmp_path, "own")
    protected, _ = write_pair(tmp_path, "protected", passphrase=b"secret")
    curve = tmp_path / "curve.key"
    curve.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    for key, words in {
        public: "is not a private key",
        tmp_path / "missing": "cannot be read",
        protected: "protected by a passphrase",
        curve: "of another kind",
    }.items():
        with pytest.raises(InputError, match=words):
            sign(certificate, key)
    monkeypatch.setenv("MLPX_KEY_PASSPHRASE", "wrong")
    with pytest.raises(InputError, match="passphrase"):
        sign(certificate, protected)
    with pytest.raises(InputError, match="not protected"):
        sign(certificate, private)
    assert not signature_path(certificate).exists()
    with pytest.raises(InputError, match="is not a public key"):
        require_signature(read_certificate(certificate), [private])


def test_a_file_that_is_not_proved_is_not_signed(folder: Path, tmp_path: Path) -> None:
    _edit(folder / "m.parity.json", "verdict", value="not proved")
    with pytest.raises(SignatureError, match="nothing to sign"):
        sign(folder / "m.parity.json", write_pair(tmp_path, "own")[0])


def test_commands(folder: Path, tmp_path: Path, run: Run) -> None:
    """Signed, verified by the key, packaged with the signature; with another key all of it is refused with 1."""
    private, public = write_pair(tmp_path, "own")
    _, other = write_pair(tmp_path, "other")
    file, certificate = folder / "m.onnx", folder / "m.parity.json"
    verify = ("verify", file, "--certificate", certificate, "--require-signature")
    unsigned = run(*verify, public)
    assert (unsigned.code, "is not signed" in unsigned.err) == (1, True)
    signed = run("sign", file, "--key", private)
    assert (signed.code, signed.out.startswith("signed ")) == (0, True)
    assert run(*verify, public).code == 0
    assert run(*verify, other, "--require-signature", public).code == 0
    assert run(*verify, other).code == 1
    assert run("verify", file, "--require-signature", public).code == 2  # without a certificate
    pack = ("package", file, "--for", "triton", "--replace", "-o", tmp_path / "package", "--require-signature")
    assert run(*pack, other).code == 1
    assert not (tmp_path / "package").exists()
    assert run(*pack, public).code == 0
    moved = read_certificate(tmp_path / "package" / "m.parity.json")
    assert require_signature(moved, [public]) == require_signature(read_certificate(certificate), [public])
    file.write_bytes(file.read_bytes() + b"\x92\x01\x00")
    stale = run("sign", file, "--key", private)
    assert (stale.code, "is not the file that" in stale.err) == (1, True)


def test_an_unsigned_package_as_before(folder: Path, tmp_path: Path) -> None:
    made = package(folder / "m.onnx", "triton", tmp_path / "package")
    assert not [name for name in made.files if "intoto" in name]


def test_a_server_refuses_what_is_not_signed(folder: Path, tmp_path: Path) -> None:
    private, public = write_pair(tmp_path, "own")
    for outputs, name in enumerate(("signed", "unsigned"), start=1):
        spec, module = network([{"linear": outputs}])
        publish(module, folder / f"{name}.onnx", spec=spec, page=False)
    for file in folder.glob("m.*"):
        file.unlink()
    sign(folder / "signed.parity.json", private)
    sign(folder / "unsigned.parity.json", write_pair(tmp_path, "other")[0])
    with serving(folder, "--require-signature", str(public)) as server:
        told = {one["name"]: one for one in server.models}
        assert {name: one["state"] for name, one in told.items()} == {"signed": "READY", "unsigned": "UNAVAILABLE"}
        assert "none of its signatures" in told["unsigned"]["reason"]
