"""Which files may be packaged: proved, unchanged, with answers to ask a server for, and of a plain shape."""

from __future__ import annotations

from pathlib import Path

from export.errors import ProofError, TargetError
from export.inspection import inspect
from runtime import Certificate, Summary, read_certificate, read_header


def certified(path: Path, certificate: str | Path | None = None) -> Certificate:
    """The certificate of a file, ``NAME.parity.json`` beside it unless named.

    Raises ProofError: there is none, it is of another file, or it says that the file is not proved; InputError: it is
    damaged; ModelError: no ONNX file.
    """
    read_header(path)  # says what is wrong with the file itself
    prove = f"prove it: mlpx verify {path.name} --spec SPEC -o FOLDER"
    place = path.with_name(f"{path.stem}.parity.json") if certificate is None else Path(certificate)
    if certificate is None and not place.is_file():
        message = f"{path} has no certificate beside it ({place.name}), and only proved files are packaged"
        raise ProofError(f"{message}. What to do: {prove}, or name its certificate with --certificate")
    found = read_certificate(place)
    if not found.is_of(path):
        message = f"{path} is not the file that {place.name} was made of: it, or its external data, has changed"
        raise ProofError(f"{message}. What to do: package the file that the certificate is of, or {prove}")
    if not found.proved:
        raise ProofError(f"{path} is not proved: {found.why}. What to do: package a file that is")
    if found.answers is None:
        message = f"{place.name} has no answers that a live server could be asked for"
        raise ProofError(f"{message}; no row of it has a finite answer, or an older mlpx made it. What to do: {prove}")
    return found


def described(path: Path) -> Summary:
    """The summary of a file whose tensors are float32 of known shapes. Raises TargetError."""
    summary = inspect(path).summary
    for port in (*summary.inputs, *summary.outputs):
        shape = f"'{port.name}' is {port.dtype} of shape {list(port.shape)}"
        if port.dtype != "float32":
            raise TargetError(f"{path.name}: {shape}. What to do: export it anew; mlpx serves float32")
        if len(port.shape) < 2 or not all(isinstance(size, int) and size > 0 for size in port.shape[1:]):
            hint = f"mlpx recover {path.name} -o FOLDER, and package what it writes"
            raise TargetError(f"{path.name}: {shape}, not [batch, sizes that are known]. What to do: {hint}")
    return summary


def batch_of(path: Path, summary: Summary, asked: int | None, usual: int) -> int:
    """The most rows of a request. Raises TargetError: the file has a fixed batch, and another was asked for."""
    sizes = {port.shape[0] for port in (*summary.inputs, *summary.outputs)}
    fixed = {size for size in sizes if isinstance(size, int)}
    if not fixed:
        return usual if asked is None else asked
    hint = f"mlpx recover {path.name} -o FOLDER writes it with a free batch"
    if len(sizes) > 1:
        raise TargetError(f"{path.name}: its tensors have different batches, {sizes}. What to do: {hint}")
    (size,) = fixed
    if asked not in (None, size):
        message = f"{path.name} takes exactly {size} rows, and --max-batch {asked} was asked for"
        raise TargetError(f"{message}. What to do: leave --max-batch out, or {hint}")
    return size
