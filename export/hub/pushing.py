"""Pushing: a proved file and all that belongs to it, as one commit of a repository on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import TargetError
from export.replacing import refuse_foreign
from runtime import sha256, whole_folder

from .client import Hub, Listing
from .contents import SPEC, WEIGHTS, Contents, contents_of
from .model import CERTIFICATE, PAGE, SIGNATURE

_OURS = (".onnx", ".onnx.data", CERTIFICATE, PAGE, SIGNATURE)
"""Endings of what a push of another name left."""


@dataclass(frozen=True)
class PushedFile:
    """A file of the repository.

    Examples:
        Continues the example of ``mlpx.push``.

        >>> pushed.files[-1].name, len(pushed.files[-1].sha256)
        ('weights.safetensors', 64)
    """

    name: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Pushed:
    """What is in the repository now, or would be.

    Examples:
        Continues the example of ``mlpx.push``.

        >>> print(pushed.repo, pushed.commit, pushed.unchanged)
        jane/comfort None False
    """

    repo: str
    url: str | None
    """The page of the repository; None where nothing was uploaded."""
    commit: str | None
    """None where nothing was uploaded."""
    unchanged: bool
    """Whether the repository held these very files before, so that there is no new commit."""
    branch: str | None
    tag: str | None
    private: bool | None
    files: tuple[PushedFile, ...]
    removed: tuple[str, ...]
    """Files of an earlier model, or of an earlier state of this one, which the commit removed."""
    notes: tuple[str, ...]
    """What is left out and why, a line each."""


def push(
    path: str | Path,
    repo: str,
    *,
    revision: str | None = None,
    tag: str | None = None,
    private: bool = False,
    license: str | None = None,  # noqa: A002 - as the Hub calls it
    readme: str | Path | None = None,
    weights: str | Path | None = None,
    message: str | None = None,
    trusted_keys: Sequence[str | Path] | None = None,
    replace: bool = False,
    dry_run: str | Path | None = None,
) -> Pushed:
    """Push a proved file with its certificate, page, spec, weights and a model card to the Hub, in one commit.

    Either the whole commit is there or nothing of it is. A push of the same files makes no new commit. The token is
    that of HF_TOKEN or of ``hf auth login``; HF_ENDPOINT names another Hub.

    Args:
        path: the ONNX file, or a folder with only one, such as ``mlpx build`` writes.
        repo: OWNER/NAME; it is created if there is none.
        revision: the branch; it is created if there is none. By default the main one.
        tag: a new name for the commit.
        private: create a private repository, or require that it is one.
        license: the name of the licence on the Hub, such as "apache-2.0".
        readme: a Markdown file that comes first in the card; its metadata win.
        weights: the trained weights as safetensors; by default ``weights.safetensors`` beside the file. They must be
            those that the file was proved with.
        message: of the commit.
        trusted_keys: public keys, with one of which the certificate must be signed.
        replace: remove the files of a model of another name that is in the repository.
        dry_run: a folder to write instead, which nothing is uploaded from. Needs neither a token nor a network.

    Raises ProofError: the file is not proved, or has changed since; TargetError: no model or several in the folder, or
    another one in the repository; SignatureError; InputError: no such repository, and what the Hub does not take;
    UnreachableError: the Hub refuses, fails or cannot be reached; ModelError; MissingPackageError; OutputError.

    Examples:
        >>> from mlpx import push
        >>> pushed = push("comfort.onnx", "jane/comfort", dry_run="comfort-on-the-hub")
        >>> print(*(file.name for file in pushed.files))
        README.md comfort.onnx comfort.parity.html comfort.parity.json spec.yaml weights.safetensors
    """
    hub = Hub(repo)
    contents = contents_of(
        Path(path),
        repo,
        weights=None if weights is None else Path(weights),
        readme=None if readme is None else Path(readme),
        licence=license,
        trusted_keys=trusted_keys,
    )
    if dry_run is not None:
        refuse_foreign(Path(dry_run), None, "dry run", source=contents.model.path)
        with whole_folder(dry_run) as folder:
            contents.write(folder)
            files = _files(folder)
        return Pushed(repo, None, None, False, revision, tag, None, files, (), contents.notes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        contents.write(folder)
        files = _files(folder)
        listing = _repository(hub, private)
        branches, tags = hub.branches_and_tags()
        _refuse_two_meanings(hub, revision, tag, branches, tags)
        if revision in branches:
            listing = hub.listing(revision)
            assert listing is not None
        stale = _stale(listing, contents, replace, hub)
        tagged = None if tag is None else tags.get(tag)
        if tagged is not None and (tagged != listing.commit or stale or not _is_there(listing, folder)):
            raise TargetError(f"{repo} has a tag {tag!r}. What to do: give another --tag, or delete that one")
        if revision is not None and revision not in branches:
            hub.create_branch(revision)
        title = message or f"{contents.model.path.stem}, proved by mlpx {contents.model.certificate.mlpx_version}"
        commit = hub.commit(folder, iter(stale), title, revision, listing.commit)
    if tag is not None and tagged is None:
        hub.create_tag(tag, commit)
    unchanged = commit == listing.commit
    return Pushed(repo, hub.url, commit, unchanged, revision, tag, listing.private, files, stale, contents.notes)


def _files(folder: Path) -> tuple[PushedFile, ...]:
    return tuple(PushedFile(file.name, file.stat().st_size, sha256(file)) for file in sorted(folder.iterdir()))


def _repository(hub: Hub, private: bool) -> Listing:
    """The repository's main branch as it is; it is created where there is none."""
    listing = hub.listing(may_lack=True)
    if listing is None:
        hub.create(private=private)
        listing = hub.listing()
    assert listing is not None
    if private and not listing.private:
        hint = "make it private at its settings page, or push without --private"
        raise TargetError(f"{hub.repo} is public, and a private one was requested. What to do: {hint}")
    return listing


def _refuse_two_meanings(
    hub: Hub, branch: str | None, tag: str | None, branches: Collection[str], tags: Collection[str]
) -> None:
    """Raise TargetError where a name would be that of a branch and of a tag, so that a revision means either."""
    if branch is not None and branch in tags:
        hint = "name a branch with --revision, and a new name for the commit with --tag"
        raise TargetError(f"{hub.repo} has a tag {branch!r}, which cannot be pushed to. What to do: {hint}")
    if tag is not None and (tag in branches or tag == branch):
        raise TargetError(f"{tag!r} is a branch of {hub.repo}. What to do: give another --tag")


def _is_there(listing: Listing, folder: Path) -> bool:
    """Whether the repository holds all files of a folder as they are."""
    remote = {file.name: file for file in listing.files}
    return all(file.name in remote and not remote[file.name].difference(file) for file in folder.iterdir())


def _stale(listing: Listing, contents: Contents, replace: bool, hub: Hub) -> tuple[str, ...]:
    """What does not belong to the model that is pushed: files of another name, and of an earlier state of this one.

    Raises TargetError: there are files of another name, and no ``replace``.
    """
    left = [file.name for file in listing.files if file.name not in contents.files]
    own = {contents.model.beside(ending).name for ending in _OURS}
    others = [name for name in left if name.endswith(_OURS) and name not in own]
    if others and not replace:
        message = f"{hub.repo} holds another model: {', '.join(others[:5])}; a repository holds one"
        hint = "push to another one, or remove these in the same commit with --replace"
        raise TargetError(f"{message}. What to do: {hint}")
    certificate = contents.model.certificate.path
    known = listing.find(certificate.name)
    if known is not None and not known.difference(certificate):  # the rest belongs to these very files
        return tuple(others)
    if any(file.name.endswith(CERTIFICATE) for file in listing.files):  # of a push of mlpx, not somebody's own
        own |= {SPEC, WEIGHTS}
    return tuple(name for name in left if name in others or name in own)
