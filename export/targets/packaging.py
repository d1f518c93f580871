"""A folder for an inference server, made of a file and its certificate."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from builder.suggestions import suggestion
from export.errors import ExportError, TargetError
from export.servers import Server, server
from runtime import through_link, whole_folder
from runtime.version import VERSION

from .admission import batch_of, certified, described
from .readme import readme
from .smoke import smoke
from .table import TARGETS
from .target import Deployment, Files, Target

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
    proof, summary, notes = certified(path, certificate), described(path), _untried(chosen, release)
    with ExitStack() as held:
        if backend not in chosen.bundled:
            reads = _reads(chosen, release, backend)
            if summary.opset > reads.opset or summary.ir_version > reads.ir_version:
                from .lowering import lower_for  # torch, which packaging does without otherwise

                place = Path(held.enter_context(tempfile.TemporaryDirectory()))
                lowered = lower_for(path, summary, f"{chosen.server}:{release}", place)
                path, notes = lowered.path, (*notes, *lowered.notes)
                proof, summary = certified(path), described(path)
        deployment = Deployment(
            name=name,
            file=path,
            summary=summary,
            certificate=proof,
            release=release,
            device=device,
            backend=backend,
            max_batch=batch_of(path, summary, max_batch, chosen.max_batch),
            delay_us=delay_us,
            instances=instances,
            threads=threads,
            onnxruntime_web=None if onnxruntime_web is None else Path(onnxruntime_web),
        )
        files = _all_files(deployment, chosen, notes)
        with whole_folder(folder) as stage:
            digests = {place: _write(stage / place, content) for place, content in sorted(files.items())}
            (stage / MANIFEST).write_text(_manifest(deployment, chosen, digests, notes), encoding="utf-8")
    return Package(folder, (*digests, MANIFEST), deployment, chosen, notes)


def _all_files(deployment: Deployment, target: Target, notes: tuple[str, ...]) -> Files:
    common: dict[str, str | bytes | Path] = {
        "README.md": readme(deployment, target, notes),
        f"{deployment.name}.parity.json": deployment.certificate.path,
    }
    own, asked = target.files(deployment), smoke(deployment, target) if target.speaks_v2 else {}
    for place in (*own, *common):
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            hint = "write the file anew with its external data beside it"
            raise TargetError(f"{place!r} would lie outside of the package. What to do: {hint}")
    return {**common, **asked, **own}


def _write(path: Path, content: str | bytes | Path) -> str:
    """Write one file of the package, and the SHA-256 of what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(deployment: Deployment, target: Target, digests: Mapping[str, str], notes: tuple[str, ...]) -> str:
    record = {
        "format": FORMAT,
        "mlpx": VERSION,
        "target": target.name,
        "model": {"sha256": deployment.certificate.sha256, "opset": deployment.summary.opset},
        **{key: getattr(deployment, key) for key in ("name", "release", "backend", "device")},
        **{key: getattr(deployment, key) for key in ("max_batch", "delay_us", "instances", "threads")},
        "notes": notes,
        "files": digests,
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


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
    if not re.fullmatch(r"\d{1,4}(\.\d{1,4}){0,3}", release):
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

    def number(text: str) -> list[int]:
        return [int(part) for part in text.split(".")]

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


def _check_numbers(**given: int | None) -> None:
    for key, value in given.items():
        least = 0 if key == "delay_us" else 1
        if value is None and key == "max_batch":
            continue
        if type(value) is not int or not least <= value <= _MOST:
            option = f"--{key.replace('_', '-')}"
            raise TargetError(
                f"{option} is a whole number from {least} on, not {value!r}. What to do: {option} {least}"
            )


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
    foreign = sorted(there - _packaged(folder) - {MANIFEST})
    if foreign:
        message = f"{folder} holds what no package of mlpx brought: {', '.join(foreign[:5])}"
        raise TargetError(f"{message}. What to do: move that away, or choose another folder with -o")


def _packaged(folder: Path) -> set[str]:
    """The files that the manifest of a folder names."""
    try:
        return set(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()
