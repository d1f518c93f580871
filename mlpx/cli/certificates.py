"""A file against its certificate: is it the file that was proved? ``mlpx sign``: who says so."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from .options import Json
from .terminal import note, print_field, print_json


def sign(
    file: Annotated[Path, "The proved ONNX file, with its NAME.parity.json beside it."],
    key: Annotated[
        Path,
        "--key",
        "KEY",
        "Your Ed25519 private key, PEM or OpenSSH; its passphrase is read from the environment variable "
        "MLPX_KEY_PASSPHRASE.",
    ],
    certificate: Annotated[Path | None, "NAME.parity.json, if it is not beside FILE."] = None,
    as_json: Json = False,
) -> None:
    """Sign the certificate of FILE: writes NAME.parity.intoto.jsonl beside it."""
    from export.errors import ProofError
    from runtime import read_certificate, sign

    known = read_certificate(certificate or file.with_suffix(".parity.json"))
    if not known.is_of(file):
        hint = "name the file that was proved, or verify this one again with --spec or --module"
        raise ProofError(f"{file} is not the file that {known.path} was made of. What to do: {hint}")
    path = sign(known.path, key)
    if as_json:
        print_json({"signature": path, "certificate": known.path, "sha256": known.sha256})
    else:
        print_field("signed", f"{path}: {known.file}, SHA-256 {known.sha256[:16]}…, and {known.path.name}")


def check_signature(certificate: Path, keys: Sequence[Path], *, quiet: bool) -> None:
    """Raises SignatureError: the certificate is not signed with one of the keys."""
    from runtime import read_certificate, require_signature

    signer = require_signature(read_certificate(certificate), keys)
    if not quiet:
        note(f"{certificate} is signed with the key {signer[:16]}…")


def check_unchanged(file: Path, certificate: Path, as_json: bool) -> None:
    """Compare hashes. Raises ProofError: the file has changed, or its certificate's verdict is not "proved"."""
    from export import ProofError, read_report
    from export.proof import file_record
    from runtime import read_header, sha256

    known = read_report(certificate)
    if not file.is_file():
        read_header(file)  # raises the error that says why
    digest = sha256(file)
    hint = "verify it again with --spec or --module, or deploy the file that the certificate is of"
    changed = f"{file} is not the file that {certificate.name} was made of"
    if digest != known.file.sha256:
        hashes = f"its SHA-256 is {digest[:16]}…, the certificate's {known.file.sha256[:16]}…"
        raise ProofError(f"{changed}: {hashes}. What to do: {hint}", known)
    record = file_record(file)
    if record.data != known.file.data:
        raise ProofError(f"{changed}: its external data is different. What to do: {hint}", known)
    if not known.proved:
        raise ProofError(f"{certificate.name} gives {file.name} the verdict '{known.verdict}': {known.why}", known)
    if as_json:
        print_json({"unchanged": True, "path": file, "certificate": known})
    else:
        proved = f"on {known.device}, on {known.made}, by mlpx {known.versions.get('mlpx', '?')}"
        note(f"{file} ({record.size:,} bytes): unchanged since it was proved {proved}")
