"""Pulling: a repository's files, named only when they are what was pushed and this machine computes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NoReturn

from export.errors import ProofError
from export.replacing import refuse_foreign
from runtime import DeviceReport, InputError, UnreachableError, check_device, read_certificate, require_signature
from runtime.files import sha256, whole_folder
from runtime.session.trial import trial
from runtime.version import VERSION

from .client import Hub, Listing, RemoteFile
from .model import CERTIFICATE

MANIFEST = "mlpx-hub.json"
FORMAT = 1
"""The manifest's format: a key may be added without a new one, never given another meaning."""
_LEFT_OUT = (".gitattributes", ".gitignore", MANIFEST)


@dataclass(frozen=True)
class Pulled:
    """What was downloaded, checked and named.

    Examples:
        Continues the example of ``mlpx.pull``.

        >>> pulled.path.name, pulled.certificate.name, pulled.report.proved
        ('comfort.onnx', 'comfort.parity.json', True)
    """

    repo: str
    revision: str | None
    """As it was asked for."""
    commit: str
    folder: Path
    path: Path
    """The ONNX file."""
    certificate: Path
    files: tuple[str, ...]
    """Their paths in the folder, with "/", in order."""
    report: DeviceReport


def pull(
    repo: str,
    folder: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    trusted_keys: Sequence[str | Path] | None = None,
    replace: bool = False,
) -> Pulled:
    """Download a repository with a proved file, and write it to ``folder`` once it is checked on this machine.

    Every file is compared with the hash that the Hub lists. Then the file is compared with its certificate, first
    opened in a process of its own, and run on the rows of the certificate (``runtime.check_device``). Where anything
    differs, nothing is written. Needs neither torch nor onnx.

    Args:
        repo: OWNER/NAME.
        folder: it is created; it must be empty, unless ``replace`` is set.
        revision: a branch, a tag or a commit; by default the main branch.
        device: "auto", "cpu", "cuda" or "cuda:N", where the rows are computed.
        trusted_keys: public keys, with one of which the certificate must be signed.
        replace: replace what an earlier pull wrote to the folder.

    Raises ProofError: there is no certificate, it is of another file, or this device computes something else;
    SignatureError; InputError: no such repository or revision; UnreachableError: the Hub refuses, fails, or gives other
    bytes than it lists; ModelError, ProviderError, MissingPackageError, OutputError; TargetError: the folder is in use.

    Examples:
        >>> from mlpx import pull, push
        >>> pushed = push("comfort.onnx", "jane/comfort")
        >>> pulled = pull("jane/comfort", "pulled", device="cpu")
        >>> pulled.commit == pushed.commit
        True
    """
    folder = Path(folder)
    refuse_foreign(folder, MANIFEST, "pull", replace=replace)
    hub = Hub(repo)
    listing = hub.listing(revision)
    assert listing is not None
    files = [file for file in listing.files if file.name not in _LEFT_OUT]
    model = _model_of(hub, listing, files)
    with whole_folder(folder) as stage:
        for file in files:
            _download(hub, file, listing.commit, stage)
        shutil.rmtree(stage / ".cache", ignore_errors=True)
        report = _checked(hub, stage, stage / model, device, trusted_keys, folder)
        manifest = {
            "format": FORMAT,
            "mlpx": VERSION,
            "repo": repo,
            "revision": revision,
            "commit": listing.commit,
            "files": {file.name: sha256(stage / file.name) for file in files},
        }
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    path = folder / model
    certificate, names = path.with_name(f"{path.stem}{CERTIFICATE}"), tuple(file.name for file in files)
    return Pulled(repo, revision, listing.commit, folder, path, certificate, (*names, MANIFEST), report)


def _model_of(hub: Hub, listing: Listing, files: Sequence[RemoteFile]) -> str:
    """The path of the only ONNX file, which has a certificate. Raises ProofError: there is none, or no certificate."""
    names = {file.name for file in files}
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or path.parts[:1] == (".cache",):
            message = f"{hub.repo}: {name!r} would not lie in the folder"
            raise InputError(f"{message}. What to do: do not use this repository")
        if not name.isprintable():  # which could also move a terminal's cursor
            message = f"{hub.repo} has a file whose name is no text: {name!r}"
            raise InputError(f"{message}. What to do: do not use this repository")
    models = sorted(name for name in names if name.endswith(".onnx"))
    at = f"{hub.repo}, commit {listing.commit[:12]},"
    if len(models) != 1:
        what = f"holds {len(models)} ONNX files ({', '.join(models[:5])})" if models else "holds no ONNX file"
        hint = "name the --revision that mlpx push made; a repository of mlpx holds one"
        raise ProofError(f"{at} {what}. What to do: {hint}")
    certificate = models[0].removesuffix(".onnx") + CERTIFICATE
    if certificate not in names:
        hint = "ask its owner for one that mlpx push made; hf download gets files that nothing vouches for"
        raise ProofError(f"{at} holds no certificate of {models[0]} ({certificate}). What to do: {hint}")
    return models[0]


def _download(hub: Hub, file: RemoteFile, commit: str, stage: Path) -> None:
    """Download one file and compare its bytes with what the Hub lists. Raises UnreachableError: they differ."""
    hub.download(file.name, commit, stage, stage / ".cache")
    if found := file.difference(stage / file.name):
        message = f"{file.name} of {hub.repo}, as it was downloaded, {found}"
        raise UnreachableError(f"{message}. Nothing was written. What to do: pull again")


def _checked(
    hub: Hub, stage: Path, path: Path, device: str, keys: Sequence[str | Path] | None, folder: Path
) -> DeviceReport:
    """The report on a file that is what its certificate says, here. Raises ProofError: it is not."""
    try:
        certificate = read_certificate(path.with_name(f"{path.stem}{CERTIFICATE}"))
        if keys:
            require_signature(certificate, keys)
        if not certificate.is_of(path):
            hashes = f"its SHA-256 is {sha256(path)[:16]}…, the certificate's {certificate.sha256[:16]}…"
            _refuse(f"{path} is not the file that {certificate.path.name} was made of: {hashes}")
        with trial(path, device, trusted=bool(keys)):  # anybody can write a certificate for a file that crashes
            pass
        report = check_device(path, certificate, device)
        if not report.proved:
            cause = f" Cause: {report.causes[0]}." if report.causes else ""
            _refuse(f"{'; '.join(finding.words for finding in report.findings)}.{cause}")
    except ValueError as error:  # the errors of mlpx that name the folder of the download, which is gone then
        message = str(error).replace(f"{stage}/", f"{hub.repo}/")
        error.args = (message, *error.args[1:])
        raise
    here = {"path": str(folder / path.relative_to(stage))}
    here["certificate"] = str(folder / certificate.path.relative_to(stage))
    return replace(report, **here)


def _refuse(why: str) -> NoReturn:
    hint = "ask its owner to push the file with its certificate again, or name another --revision"
    raise ProofError(f"{why.rstrip('.')}. Nothing was written. What to do: {hint}")
