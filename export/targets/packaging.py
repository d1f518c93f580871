"""A folder for an inference server, a page or a C program, made of a file and its certificate."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from builder.errors import suggestion
from export.errors import ExportError, ProofError, TargetError
from export.inspection import inspect
from export.proved_file import proved_certificate
from export.replacing import refuse_foreign
from export.servers import Server, number, server
from runtime import (
    Certificate,
    Summary,
    require_signature,
    sha256,
    signature_path,
    through_link,
    whole_folder,
)
from runtime.version import VERSION

from . import TARGETS, target_of
from .common_files import readme, smoke_test
from .readiness import verify_interval
from .sidecar import sidecar
from .target import DATATYPES, Deployment, Files, Target

MANIFEST = "mlpx-package.json"
FORMAT = 1
"""The manifest's format: a key may be added without a new one, never given another meaning."""
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RELEASE = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}")
_MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Package:
    """A package that was written.

    Examples:
        >>> from mlpx import package
        >>> made = package("comfort.onnx", "mlserver", "mlserver", replace=True)
        >>> made.folder.name, made.deployment.max_batch
        ('mlserver', 1024)
    """

    folder: Path
    files: tuple[str, ...]
    """Their paths in the folder, with "/", in order."""
    deployment: Deployment
    target: Target
    notes: tuple[str, ...] = ()
    """What was changed for the target, or is to be known of it, a line each."""

    @property
    def url(self) -> str:
        """The address of the model once the server runs; "" where there is no server."""
        return self.target.url(self.deployment.name)

    @property
    def start(self) -> str:
        """The shell commands that start the server in the folder, or build what it holds."""
        return self.target.start(self.deployment)


def package(
    path: str | Path,
    target: str,
    folder: str | Path,
    *,
    release: str | None = None,
    certificate: str | Path | None = None,
    trusted_keys: Sequence[str | Path] | None = None,
    name: str | None = None,
    backend: str | None = None,
    device: str = "cpu",
    max_batch: int | None = None,
    delay_us: int = 0,
    instances: int = 1,
    threads: int = 1,
    verify_every: float | None = None,
    onnxruntime_web: str | Path | None = None,
    replace: bool = False,
) -> Package:
    """Write what an inference server, a page or a C program needs to run a proved file to ``folder``, whole or not.

    Besides the target's own files it holds README.md, the certificate, a manifest, and for a server a smoke test. The
    same file and options give the same bytes, unless the file had to be lowered: its new proof carries its date.

    Args:
        path: the ONNX file.
        target: one of ``TARGETS``, such as "triton", or with the release, "triton:23.10".
        folder: where the package goes; it is created.
        release: the server's release; a file that is too new for it is rewritten in an older opset and proved again.
        certificate: the file's certificate; by default ``NAME.parity.json`` beside it.
        trusted_keys: public keys, with one of which the certificate must be signed.
        name: the model's name at the server; by default the file's without .onnx.
        backend: for targets that can run the file in more than one way.
        device: "cpu" or "cuda".
        max_batch: the largest batch that the server accepts or puts together, in rows; a file of a fixed batch has its
            own.
        delay_us: how long a request may wait for others to share a batch with, microseconds.
        instances: copies of the model.
        threads: ONNX Runtime's threads in each copy.
        verify_every: seconds between two checks that the model answers as was proved, where the package's own code
            runs it; by default 60, 0 for none.
        onnxruntime_web: the folder of the npm package, for the browser.
        replace: replace a package that is in the folder.

    Raises TargetError: what the server or the file does not allow, or a folder that is in use; ProofError: the file is
    not proved; SignatureError: its certificate is not signed with a trusted key; ModelError; InputError; OutputError.

    Examples:
        >>> from mlpx import package
        >>> made = package("comfort.onnx", "triton", "triton", replace=True)
        >>> [name for name in made.files if name.startswith("models/")]
        ['models/comfort/1/model.onnx', 'models/comfort/config.pbtxt']
    """
    path, folder = through_link(path), Path(folder)
    row, release = _target(target, release)
    backend = _backend(row, backend)
    options: dict[str, Any] = {"delay_us": delay_us, "instances": instances, "threads": threads, "device": device}
    _check_options(row, max_batch, options)
    options["verify_every"] = verify_interval(row, backend, verify_every)
    if not _NAME.fullmatch(name := path.stem if name is None else name):
        hint = "give one of letters, digits, '.', '_' and '-', at most 100, with --name"
        raise TargetError(f"{name!r} cannot be a model's name at a server. What to do: {hint}")
    refuse_foreign(folder, MANIFEST, "package", replace=replace, source=path)
    proof, summary = _proved_file(path, certificate)
    if trusted_keys:
        require_signature(proof, trusted_keys)
    notes = _untested(row, release)
    if proof.names_checked is False:
        hint = "mlpx verify with --spec and -o compares them with the spec"
        notes += (f"the names that the file declares were not checked when it was proved; {hint}",)
    with ExitStack() as stack:
        if row.server and backend not in row.bundled:
            limits = _limits(row, release, backend)
            if summary.opset > limits.opset or summary.ir_version > limits.ir_version:
                from .lowering import lower_for  # torch, which packaging does without otherwise

                temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                path, changes = lower_for(path, summary, f"{row.server}:{release}", temporary)
                proof, summary = _proved_file(path)
                notes += changes
        deployment = Deployment(
            name=name,
            file=path,
            summary=summary,
            certificate=proof,
            release=release,
            backend=backend,
            max_batch=_max_batch(path, summary, max_batch),
            onnxruntime_web=None if onnxruntime_web is None else Path(onnxruntime_web),
            **options,
        )
        made = row.files(deployment)
        notes += tuple(row.notes(made))
        files = _files(deployment, row, made, notes)
        with whole_folder(folder) as stage:
            digests = {place: _write(stage / place, content) for place, content in sorted(files.items())}
            manifest = {
                "format": FORMAT,
                "mlpx": VERSION,
                "target": row.name,
                "model": {"sha256": proof.sha256, "opset": summary.opset},
                **deployment.options,
                "notes": notes,
                "files": digests,
            }
            _write(stage / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return Package(folder, (*digests, MANIFEST), deployment, row, notes)


def _files(deployment: Deployment, target: Target, made: Files, notes: tuple[str, ...]) -> Files:
    """What every package holds, and the target's own files."""
    certificate, signature = f"{deployment.name}.parity.json", signature_path(deployment.certificate.path)
    files: Files = {
        "README.md": readme(deployment, target, made, notes),
        certificate: deployment.certificate.path,
        **({str(signature_path(Path(certificate))): signature} if signature.is_file() else {}),
        **(smoke_test(deployment, target) if target.speaks_v2 else {}),
        **sidecar(deployment, target),
        **made,
    }
    for path in map(PurePosixPath, files):
        if path.is_absolute() or ".." in path.parts:
            hint = "write the file again with its external data beside it"
            raise TargetError(f"{str(path)!r} would lie outside of the package. What to do: {hint}")
    return files


def _write(path: Path, content: str | Path) -> str:
    """Write one file of the package; the SHA-256 of what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content.encode())
    return sha256(path)


def _proved_file(path: Path, certificate: str | Path | None = None) -> tuple[Certificate, Summary]:
    """The certificate and the summary of a proved file whose tensors are float32, or int64 inputs, of known shapes.

    Raises ProofError: there is no certificate, it is of another file, or it says that the file is not proved;
    InputError: it is damaged; ModelError: not an ONNX file; TargetError: tensors of other types or of unknown shapes.
    """
    proof = proved_certificate(path, "package", "packaged", certificate, ", or name it with --certificate")
    if proof.answers is None:
        message = f"{proof.path.name} has no answers to check a live server with"
        hint = "What to do: prove it again"
        raise ProofError(f"{message}; no row of it has a finite answer, or an older mlpx made it. {hint}")
    summary = inspect(path).summary
    for port in (*summary.inputs, *summary.outputs):
        tensor = f"'{port.name}' is {port.dtype} of shape {list(port.shape)}"
        if port.dtype not in DATATYPES or (port.dtype != "float32" and port in summary.outputs):
            what = "packages take float32 and int64, and give float32"
            raise TargetError(f"{path.name}: {tensor}. What to do: export it again; {what}")
        if len(port.shape) < 2 or not all(isinstance(size, int) and size > 0 for size in port.shape[1:]):
            hint = f"mlpx recover {path.name} -o FOLDER, and package what it writes"
            raise TargetError(f"{path.name}: {tensor}, expected [batch, known sizes]. What to do: {hint}")
    return proof, summary


def _max_batch(path: Path, summary: Summary, requested: int | None) -> int:
    """The most rows of a request. Raises TargetError: another number than the batch that the file fixes."""
    sizes = {port.shape[0] for port in (*summary.inputs, *summary.outputs)}
    fixed = {size for size in sizes if isinstance(size, int)}
    if not fixed:
        return Deployment.max_batch if requested is None else requested
    hint = f"mlpx recover {path.name} -o FOLDER writes it with a free batch"
    if len(sizes) > 1:
        raise TargetError(f"{path.name}: its tensors have different batches, {sizes}. What to do: {hint}")
    (size,) = fixed
    if requested not in (None, size):
        message = f"{path.name} takes exactly {size} rows, and --max-batch {requested} was given"
        raise TargetError(f"{message}. What to do: leave --max-batch out, or {hint}")
    return size


def _target(name: str, release: str | None) -> tuple[Target, str]:
    """The row of a target and the release; "triton:23.10" names both."""
    name, colon, suffix = name.partition(":")
    if name not in TARGETS:
        hint = f"name one of them (--for {TARGETS[0]})"
        message = f"no package can be made for '{name}': {suggestion(name, TARGETS, 'targets')}"
        raise TargetError(f"{message}. What to do: {hint}")
    if colon and release is not None and release != suffix:
        raise TargetError(f"two releases were given, {suffix} and {release}. What to do: give one")
    target = target_of(name)
    release = suffix if colon else target.release if release is None else release
    if not _RELEASE.fullmatch(release):
        example = f"--target-version {target.release}"
        raise TargetError(f"{release!r} is not a release of {name}. What to do: give one such as {example}")
    return target, release


def _backend(target: Target, backend: str | None) -> str | None:
    if backend is None:
        return next(iter(target.backends), None)
    if backend not in target.backends:
        hint = suggestion(backend, target.backends, "backends") if target.backends else "it has only one way to run it"
        raise TargetError(f"{target.name} has no backend '{backend}': {hint}. What to do: leave --backend out")
    return backend


def _untested(target: Target, release: str) -> tuple[str, ...]:
    """A note on a release that is newer than those that were tested. Raises TargetError: it is older."""
    if not target.oldest or release == target.oldest:
        return ()
    if number(release) < number(target.oldest):
        message = f"{target.name} {release} is older than {target.oldest}, the oldest that packages were tested with"
        raise TargetError(f"{message}. What to do: give {target.oldest} or a newer one (--target-version)")
    return (f"{target.name} {release} was not tested; {target.oldest} was: run the smoke test before you rely on it",)


def _limits(target: Target, release: str, backend: str | None) -> Server:
    """The opset and the IR version that the release reads. Raises TargetError: they are not known."""
    try:
        return server(f"{target.server}:{release}")
    except ExportError as error:
        message = str(error).replace(f"--for {target.server}:", f"--for {target.name}:")
        others = [other for other in target.bundled if other != backend]
        also = f", or let it run on an ONNX Runtime of its own (--backend {' or '.join(others)})" if others else ""
        raise TargetError(message + also) from None


def _check_options(target: Target, max_batch: int | None, options: dict[str, Any]) -> None:
    """Raise TargetError for a number out of range, an unknown device, or an option that the target does not have."""
    numbers = {"max_batch": Deployment.max_batch if max_batch is None else max_batch, **options}
    for key in ("max_batch", "delay_us", "instances", "threads"):
        value, lowest = numbers[key], 0 if key == "delay_us" else 1
        if type(value) is not int or not lowest <= value <= _MAX_NUMBER:
            option = f"--{key.replace('_', '-')}"
            message = f"{option} is a whole number from {lowest} on, not {value!r}"
            raise TargetError(f"{message}. What to do: {option} {lowest}")
    if options["device"] not in ("cpu", "cuda"):
        hint = "name one of them (--device cpu)"
        raise TargetError(f"the device is cpu or cuda, not {options['device']!r}. What to do: {hint}")
    for option, (reason, hint) in target.fixed.items():
        if numbers[option] != getattr(Deployment, option):
            raise TargetError(f"{reason.format(**numbers)}. What to do: {hint}")
