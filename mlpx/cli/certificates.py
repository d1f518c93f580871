"""A file against its certificate: is it the file that was proved?"""

from pathlib import Path

from .terminal import note, print_json


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
