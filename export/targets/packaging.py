"""A folder for an inference server, made of a file and its certificate."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from builder.errors import suggestion
from export.errors import ExportError, ProofError, TargetError
from export.inspection import inspect
from export.servers import Server, number, server
from runtime import Certificate, Summary, read_certificate, read_header, sha256, through_link, whole_folder
from runtime.version import VERSION

from . import browser, kserve, openvino, triton
from .mlserver import MLSERVER, RAY_SERVE
from .target import Deployment, Files, Target, readme, smoke

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (triton.TARGET, openvino.TARGET, kserve.TARGET, MLSERVER, RAY_SERVE, browser.TARGET)
}
"""Every target that packages are made for, by its name."""
MANIFEST = "mlpx-package.json"
FORMAT = 1
"""Of the manifest: a key may be added without a new format, never given another meaning."""
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Package:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    """By their paths in the folder, with "/", in order."""
    deployment: Deployment
    target: Target
    notes: tuple[str, ...] = ()
    """What was changed for the server, a line each."""

    @property
    def url(self) -> str:
        """Where the model is once the server runs."""
        return self.target.url.format(name=self.deployment.name)

    @property
    def start(self) -> str:
        """The shell commands that start the server in the folder."""
        return self.target.start(self.deployment)


def package(
    path: str | Path,
    target: str,
    folder: str | Path,
    *,
    release: str | None = None,
    certificate: str | Path | None = None,
    name: str | None = None,
    backend: str | None = None,
    device: str = "cpu",
    max_batch: int | None = None,
    delay_us: int = 0,
    instances: int = 1,
    threads: int = 1,
    onnxruntime_web: str | Path | None = None,
    replace: bool = False,
) -> Package:
    """Write everything that an inference server needs to run a proved file to ``folder``, whole or not at all.

    Besides the server's own files it holds README.md, the certificate, a smoke test and a manifest. The same file and
    options give the same bytes, unless the file had to be lowered: its new proof carries its day.

    Args:
        target: one of ``TARGETS``, such as "triton", or with the release, "triton:23.10".
        release: of the server; a file that is too new for it is written anew in what it reads, and proved anew.
        certificate: of the file; ``NAME.parity.json`` beside it if left out.
        name: of the model at the server; the file's without .onnx if left out.
        backend: of targets that can run the file in more than one way.
        device: "cpu" or "cuda".
        max_batch: the most rows that the server takes or puts together; a file of a fixed batch has its own.
        delay_us: how long a request may wait for others to share a batch with, microseconds.
        instances, threads: copies of the model, and ONNX Runtime's threads in each.
        onnxruntime_web: the folder of the npm package, for the browser.
        replace: let a package that is in the folder go.

    Raises TargetError: what the server or the file does not allow, or a folder that is in use; ProofError: no proved
    file; ModelError; InputError; OutputError.
    """
    path, folder = through_link(path), Path(folder)
    chosen, release = _target(target, release)
    backend = _backend(chosen, backend)
    _check_numbers(max_batch=max_batch, delay_us=delay_us, instances=instances, threads=threads)
    if device not in ("cpu", "cuda"):
        raise TargetError(f"the device is cpu or cuda, not {device!r}. What to do: name one of them (--device cpu)")
    if not _NAME.fullmatch(name := path.stem if name is None else name):
        hint = "give one of letters, digits, '.', '_' and '-', at most 100, with --name"
        raise TargetError(f"{name!r} cannot be a model's name at a server. What to do: {hint}")
    _refuse_in_use(folder, path, replace)
    proof, summary, notes = _certified(path, certificate), _described(path), _untried(chosen, release)
    with ExitStack() as held:
        if backend not in chosen.bundled:
            reads = _reads(chosen, release, backend)
            if summary.opset > reads.opset or summary.ir_version > reads.ir_version:
                from .lowering import lower_for  # torch, which packaging does without otherwise

                place = Path(held.enter_context(tempfile.TemporaryDirectory()))
                path, lowered = lower_for(path, summary, f"{chosen.server}:{release}", place)
                proof, summary, notes = _certified(path), _described(path), (*notes, *lowered)
        deployment = Deployment(
            name=name,
            file=path,
            summary=summary,
            certificate=proof,
            release=release,
            device=device,
            backend=backend,
            max_batch=_batch_of(path, summary, max_batch),
            delay_us=delay_us,
            instances=instances,
            threads=threads,
            onnxruntime_web=None if onnxruntime_web is None else Path(onnxruntime_web),
        )
        files = _all_files(deployment, chosen, notes)
        with whole_folder(folder) as stage:
            digests = {place: _write(stage / place, content) for place, content in sorted(files.items())}
            keys = ("name", "release", "backend", "device", "max_batch", "delay_us", "instances", "threads")
            manifest = {
                "format": FORMAT,
                "mlpx": VERSION,
                "target": chosen.name,
                "model": {"sha256": proof.sha256, "opset": summary.opset},
                **{key: getattr(deployment, key) for key in keys},
                "notes": notes,
                "files": digests,
            }
            _write(stage / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return Package(folder, (*digests, MANIFEST), deployment, chosen, notes)


def _all_files(deployment: Deployment, target: Target, notes: tuple[str, ...]) -> Files:
    common = {
        "README.md": readme(deployment, target, notes),
        f"{deployment.name}.parity.json": deployment.certificate.path,
        **(smoke(deployment, target) if target.speaks_v2 else {}),
    }
    files = {**common, **target.files(deployment)}
    for place in files:
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            hint = "write the file anew with its external data beside it"
            raise TargetError(f"{place!r} would lie outside of the package. What to do: {hint}")
    return files


def _write(path: Path, content: str | Path) -> str:
    """Write one file of the package, and the SHA-256 of what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content.encode())
    return sha256(path)


def _certified(path: Path, certificate: str | Path | None = None) -> Certificate:
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


def _described(path: Path) -> Summary:
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


def _batch_of(path: Path, summary: Summary, asked: int | None) -> int:
    """The most rows of a request. Raises TargetError: the file has a fixed batch, and another was asked for."""
    sizes = {port.shape[0] for port in (*summary.inputs, *summary.outputs)}
    fixed = {size for size in sizes if isinstance(size, int)}
    if not fixed:
        return Deployment.max_batch if asked is None else asked
    hint = f"mlpx recover {path.name} -o FOLDER writes it with a free batch"
    if len(sizes) > 1:
        raise TargetError(f"{path.name}: its tensors have different batches, {sizes}. What to do: {hint}")
    (size,) = fixed
    if asked not in (None, size):
        message = f"{path.name} takes exactly {size} rows, and --max-batch {asked} was asked for"
        raise TargetError(f"{message}. What to do: leave --max-batch out, or {hint}")
    return size


def _target(name: str, release: str | None) -> tuple[Target, str]:
    """The row of a target and the release; "triton:23.10" names both."""
    name, colon, given = name.partition(":")
    if name not in TARGETS:
        hint = f"name one of them (--for {next(iter(TARGETS))})"
        message = f"no package can be made for '{name}': {suggestion(name, list(TARGETS), 'targets')}"
        raise TargetError(f"{message}. What to do: {hint}")
    if colon and release is not None and release != given:
        raise TargetError(f"two releases are asked for, {given} and {release}. What to do: give one")
    release = given if colon else TARGETS[name].release if release is None else release
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}", release):
        example = f"--target-version {TARGETS[name].release}"
        raise TargetError(f"{release!r} is no release of {name}. What to do: give one such as {example}")
    return TARGETS[name], release


def _backend(target: Target, backend: str | None) -> str | None:
    if backend is None:
        return next(iter(target.backends), None)
    if backend not in target.backends:
        hint = suggestion(backend, target.backends, "backends") if target.backends else "it has only one way to run it"
        raise TargetError(f"{target.name} has no backend '{backend}': {hint}. What to do: leave --backend out")
    return backend


def _untried(target: Target, release: str) -> tuple[str, ...]:
    """A note on a release that is newer than those that were tried. Raises TargetError: it is older."""
    if not target.oldest or release == target.oldest:
        return ()
    if number(release) < number(target.oldest):
        message = f"{target.name} {release} is older than {target.oldest}, the oldest that packages were tried with"
        raise TargetError(f"{message}. What to do: give {target.oldest} or a newer one (--target-version)")
    return (f"{target.name} {release} was not tried; {target.oldest} was: run the smoke test before you rely on it",)


def _reads(target: Target, release: str, backend: str | None) -> Server:
    """What the release reads. Raises TargetError: nobody knows."""
    try:
        return server(f"{target.server}:{release}")
    except ExportError as error:
        message = str(error).replace(f"--for {target.server}:", f"--for {target.name}:")
        others = [other for other in target.bundled if other != backend]
        also = f", or let it run on an ONNX Runtime of its own (--backend {' or '.join(others)})" if others else ""
        raise TargetError(message + also) from None


def _check_numbers(**numbers: int | None) -> None:
    for key, value in numbers.items():
        least = 0 if key == "delay_us" else 1
        left_out = value is None and key == "max_batch"
        if not left_out and (type(value) is not int or not least <= value <= _MOST):
            option = f"--{key.replace('_', '-')}"
            message = f"{option} is a whole number from {least} on, not {value!r}"
            raise TargetError(f"{message}. What to do: {option} {least}")


def _refuse_in_use(folder: Path, model: Path, replace: bool) -> None:
    """Raise TargetError where a folder holds what would be lost."""
    folder = folder.resolve()
    if not folder.exists():
        return
    if not folder.is_dir():
        raise TargetError(f"{folder} is a file. What to do: name a folder of its own with -o")
    if model.resolve().is_relative_to(folder) or Path.cwd().is_relative_to(folder):
        what = model.name if model.resolve().is_relative_to(folder) else "the current folder"
        raise TargetError(f"{what} is in {folder}, which the package is to be. What to do: name another folder with -o")
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    if not there:
        return
    if not replace:
        hint = "choose another folder with -o, or replace the package in it with --replace (replace=True)"
        raise TargetError(f"{folder} is not empty. What to do: {hint}")
    try:
        packaged = set(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        packaged = set()
    foreign = sorted(there - packaged - {MANIFEST})
    if foreign:
        message = f"{folder} holds what no package of mlpx brought: {', '.join(foreign[:5])}"
        raise TargetError(f"{message}. What to do: move that away, or choose another folder with -o")
