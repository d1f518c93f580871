"""The certificate of a file that is about to leave: only what is proved is packaged, pushed or logged."""

from __future__ import annotations

from pathlib import Path

from runtime import Certificate, read_certificate, read_header

from .errors import ProofError


def proved_certificate(
    path: Path, verb: str, participle: str, certificate: str | Path | None = None, otherwise: str = ""
) -> Certificate:
    """The certificate that proves exactly the bytes of a file and of its external data.

    Args:
        path: the ONNX file.
        verb: what is done with it, as messages say: "push".
        participle: the same for what has been done: "pushed".
        certificate: by default ``NAME.parity.json`` beside the file.
        otherwise: what else to do where there is none there, such as ", or name it with --certificate".

    Raises ProofError: there is no certificate, it is of another file, or its verdict is not "proved"; ModelError: not
    an ONNX file; InputError: a damaged certificate.
    """
    read_header(path)  # says what is wrong with the file itself
    prove = f"prove it: mlpx verify {path.name} --spec SPEC -o FOLDER"
    source = path.with_name(f"{path.stem}.parity.json") if certificate is None else Path(certificate)
    if certificate is None and not source.is_file():
        message = f"{path} has no certificate beside it ({source.name}), and only proved files are {participle}"
        raise ProofError(f"{message}. What to do: {prove}{otherwise}")
    proof = read_certificate(source)
    if not proof.is_of(path):
        message = f"{path} is not the file that {source.name} was made of: it, or its external data, has changed"
        raise ProofError(f"{message}. What to do: {verb} the file that the certificate is of, or {prove}")
    if not proof.proved:
        raise ProofError(f"{path} is not proved: {proof.why}. What to do: {verb} a file that is proved")
    return proof
