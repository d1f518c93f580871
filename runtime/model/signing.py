"""The signature of a certificate, ``NAME.parity.intoto.jsonl``: who says that the file was proved.

It is an in-toto statement with the predicate "test result", version 0.1, in a DSSE envelope that is signed with
Ed25519: the formats of https://github.com/in-toto/attestation and https://github.com/secure-systems-lab/dsse. The
statement names the SHA-256 of the ONNX file, of its external data and of the certificate.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import InputError, SignatureError
from runtime.extras import imported
from runtime.files import whole_file

from .certificate import Certificate, read_certificate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSPHRASE = "MLPX_KEY_PASSPHRASE"
"""The environment variable with the passphrase of a private key."""
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
_PURPOSE = "signing certificates"
_KEYS = "an Ed25519 key, PEM or OpenSSH"


def signature_path(certificate: Path) -> Path:
    """Where the signature of a certificate is: ``NAME.parity.intoto.jsonl`` beside ``NAME.parity.json``.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import signature_path
        >>> signature_path(Path("comfort.parity.json")).name
        'comfort.parity.intoto.jsonl'
    """
    return certificate.with_suffix(".intoto.jsonl")


def sign(certificate: str | Path, key: str | Path) -> Path:
    """Sign a certificate with a private key; returns the path of the signature, which replaces an older one.

    Args:
        certificate: a ``NAME.parity.json`` whose verdict is "proved".
        key: an Ed25519 private key, PEM (PKCS #8) or OpenSSH; its passphrase, if it has one, is read from the
            environment variable ``MLPX_KEY_PASSPHRASE``.

    Raises InputError: the certificate or the key cannot be read; SignatureError: the file is not proved; OutputError:
    the signature cannot be written; MissingPackageError: the package cryptography is not installed.

    Examples:
        >>> from pathlib import Path
        >>> from cryptography.hazmat.primitives import serialization
        >>> from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        >>> from mlpx import sign
        >>> key = Ed25519PrivateKey.generate()
        >>> form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        >>> written = Path("key.pem").write_bytes(key.private_bytes(*form))
        >>> sign("comfort.parity.json", "key.pem").name
        'comfort.parity.intoto.jsonl'
    """
    known = read_certificate(certificate)
    if not known.proved:
        raise SignatureError(f"{known.path} gives {known.file} no verdict 'proved', so there is nothing to sign")
    private = _private_key(Path(key))
    payload = json.dumps(_statement(known), sort_keys=True).encode()
    signature = {"keyid": key_id(private.public_key()), "sig": _base64(private.sign(_encoded(payload)))}
    envelope = {"payloadType": _PAYLOAD_TYPE, "payload": _base64(payload), "signatures": [signature]}
    path = signature_path(known.path)
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(envelope) + "\n", encoding="utf-8")
    return path


def require_signature(certificate: Certificate, keys: Sequence[str | Path]) -> str:
    """The id of the one of these public keys that the certificate is signed with.

    Raises SignatureError: it is not signed, not with one of the keys, or the signature is of other bytes; InputError: a
    key cannot be read; MissingPackageError: the package cryptography is not installed.

    Examples:
        Continues the example of ``mlpx.sign``:

        >>> from runtime import read_certificate, require_signature
        >>> form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        >>> written = Path("key.pub").write_bytes(key.public_key().public_bytes(*form))
        >>> len(require_signature(read_certificate("comfort.parity.json"), ["key.pub"])) > 0
        True
    """
    trusted = {key_id(public): public for public in map(public_key, keys)}
    path = signature_path(certificate.path)
    hint = "What to do: sign it with mlpx sign and a key that is trusted here, or deploy the files that were signed"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        reason = "is not signed" if isinstance(error, FileNotFoundError) else f"has an unreadable signature ({error})"
        raise SignatureError(f"{certificate.path} {reason}: {path.name} is expected beside it. {hint}") from None
    problem = "it has no line"
    for line in lines:  # one envelope per line
        try:
            payload, signatures = _opened(line)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            problem = "it is not a DSSE envelope with an in-toto statement"
            continue
        signer = next((name for name, public in trusted.items() if _is_signed(public, payload, signatures)), None)
        if signer is None:
            problem = f"none of its signatures is by {' or '.join(name[:16] for name in trusted)}"
        elif _subjects(payload) != _subjects(json.dumps(_statement(certificate)).encode()):
            problem = "it is of another file, or of another certificate of this file"
        else:
            return signer
    raise SignatureError(f"{path} does not vouch for {certificate.path.name}: {problem}. {hint}")


def has_signature(certificate: Certificate) -> bool:
    """Whether a signature beside a certificate names these very files, by whichever key: none is verified."""
    wanted = _subjects(json.dumps(_statement(certificate)).encode())
    try:
        lines = signature_path(certificate.path).read_bytes().splitlines()
    except OSError:
        return False
    for line in lines:
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):  # a line that is no envelope
            if _subjects(_opened(line)[0]) == wanted:
                return True
    return False


def public_key(path: str | Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a file, PEM or OpenSSH. Raises InputError: it cannot be read, or is another kind."""
    imported("cryptography", _PURPOSE)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read(Path(path))
    is_openssh = content.lstrip().startswith(b"ssh-")
    read = serialization.load_ssh_public_key if is_openssh else serialization.load_pem_public_key
    try:
        key = read(content)
    except (ValueError, UnsupportedAlgorithm):
        hint = "What to do: openssl pkey -in private.pem -pubout -out public.pem"
        raise InputError(f"{path} is not a public key: expected {_KEYS}. {hint}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path} is a public key of another kind: expected {_KEYS}")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The SHA-256 of a public key in DER (SubjectPublicKeyInfo), in hexadecimal digits."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _private_key(path: Path) -> Ed25519PrivateKey:
    imported("cryptography", _PURPOSE)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content, passphrase = _read(path), os.environ.get(PASSPHRASE, "").encode() or None
    is_openssh = b"BEGIN OPENSSH" in content
    read = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    try:
        key = read(content, passphrase)
    except TypeError:  # a passphrase is missing, or one is given for a key that has none
        hint = f"What to do: {'unset' if passphrase else 'set'} the environment variable {PASSPHRASE}"
        raise InputError(f"{path} is {'not ' if passphrase else ''}protected by a passphrase. {hint}") from None
    except (ValueError, UnsupportedAlgorithm):
        hint = "What to do: openssl genpkey -algorithm ed25519 -out private.pem"
        wrong = ", or its passphrase is another one" if passphrase else ""
        raise InputError(f"{path} is not a private key{wrong}: expected {_KEYS}. {hint}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is a private key of another kind: expected {_KEYS}")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the key {path} cannot be read: {error.strerror}") from None


def _statement(certificate: Certificate) -> dict[str, Any]:
    digests = {certificate.file: certificate.sha256, **certificate.data}
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()],
        "predicateType": _PREDICATE,
        "predicate": {
            "result": "PASSED",
            "configuration": [{"name": certificate.path.name, "digest": {"sha256": certificate.digest}}],
            "passedTests": [f"mlpx {certificate.mlpx_version} verify, on {certificate.device}, {certificate.made}"],
        },
    }


def _subjects(payload: bytes) -> tuple[set[str], set[str]] | None:
    """The digests of the files that a statement is of, and of the certificate; None for another kind of statement."""
    try:
        statement = json.loads(payload)
        kind = statement["_type"], statement["predicateType"], statement["predicate"]["result"]
        if kind != (_STATEMENT, _PREDICATE, "PASSED"):
            return None
        parts = statement["subject"], statement["predicate"]["configuration"]
        files, certificates = ({entry["digest"]["sha256"] for entry in part} for part in parts)
        return files, certificates
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _opened(line: bytes) -> tuple[bytes, list[bytes]]:
    """The payload of an envelope, and its signatures. Raises ValueError, TypeError or KeyError: it is malformed."""
    envelope = json.loads(line)
    if envelope["payloadType"] != _PAYLOAD_TYPE:
        raise ValueError("another type of payload")
    decode = base64.b64decode
    return decode(envelope["payload"], validate=True), [decode(each["sig"]) for each in envelope["signatures"]]


def _is_signed(key: Ed25519PublicKey, payload: bytes, signatures: Sequence[bytes]) -> bool:
    from cryptography.exceptions import InvalidSignature

    for signature in signatures:
        try:
            key.verify(signature, _encoded(payload))
            return True
        except InvalidSignature:
            continue
    return False


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
