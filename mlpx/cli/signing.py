"""``mlpx sign``: who says that a file was proved; and the certificates of those who are trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .options import Json
from .terminal import print_field, print_json

if TYPE_CHECKING:
    from runtime import Certificate


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


def read_trusted(path: Path, keys: Sequence[Path] | None) -> "Certificate":
    """A certificate. Raises SignatureError: it is not signed with one of the keys, where there are any."""
    from runtime import read_certificate, require_signature

    certificate = read_certificate(path)
    if keys:
        require_signature(certificate, keys)
    return certificate
