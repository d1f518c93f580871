"""The calls to the Hub, through huggingface_hub, and what its errors are in mlpx."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import InputError, OutputError, UnreachableError, imported, sha256
from runtime.version import VERSION

_HINT = "What to do: {}; status.huggingface.co says how the Hub is, and HF_ENDPOINT names another one"
_AGAIN = "push again, which makes no second commit where the first has arrived"
_LOGIN = "hf auth login, or set HF_TOKEN to a token that may"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at a commit."""

    name: str
    size: int | None
    sha256: str | None
    """Of its bytes, for a file that is stored as a large one."""
    blob: str | None
    """The SHA-1 of the git blob, for any other file."""

    def difference(self, path: Path) -> str:
        """What is different in a file on this machine, for a message; "" where it has the bytes that the Hub lists."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"has {size:,} bytes, and the Hub lists {self.size:,}"
        if self.sha256 is not None:
            return "" if sha256(path) == self.sha256 else f"has another SHA-256 than the Hub lists, {self.sha256[:16]}…"
        if self.blob is None:
            return "cannot be compared: the Hub lists no hash of it"
        return "" if _blob(path) == self.blob else f"is not the git blob that the Hub lists, {self.blob[:16]}…"


@dataclass(frozen=True)
class Listing:
    """A repository at a commit."""

    commit: str
    private: bool
    files: tuple[RemoteFile, ...]

    def find(self, name: str) -> RemoteFile | None:
        """The file of that name, if there is one."""
        return next((file for file in self.files if file.name == name), None)


class Hub:
    """A repository on the Hub. The token is that of HF_TOKEN, or of ``hf auth login``; HF_ENDPOINT names another Hub.

    Raises MissingPackageError: the extra ``hub`` is not installed; InputError: no OWNER/NAME. Every call raises
    InputError: no such repository, revision or file; UnreachableError: the Hub refuses, fails or cannot be reached.
    """

    def __init__(self, repo: str):
        self._package: Any = imported("huggingface_hub", "the Hub")
        self.repo = repo
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        self._api: Any = self._package.HfApi(endpoint=endpoint, library_name="mlpx", library_version=VERSION)
        with self._errors("looked for"):
            self._package.utils.validate_repo_id(repo)
        if "/" not in repo:  # the Hub would create it below the user's name, and not find it under this one
            raise InputError(f"expected a repository's OWNER/NAME, not {repo!r}. What to do: name its owner too")

    @property
    def url(self) -> str:
        """The address of the repository's page."""
        return f"{self._api.endpoint}/{self.repo}"

    def listing(self, revision: str | None = None, *, may_lack: bool = False) -> Listing | None:
        """The files at a branch, a tag or a commit; None where ``may_lack`` is set and there is no such repository."""
        missing = self._package.errors.RepositoryNotFoundError
        with self._errors("looked for", revision):
            try:
                info = self._api.model_info(self.repo, revision=revision, files_metadata=True)
            except missing as error:
                # The Hub gives 401 for a missing repository too, to whom has no token.
                if may_lack and error.response.status_code == 404:
                    return None
                if may_lack:
                    message = f"{self.repo} cannot be looked for: the Hub refuses it (401)"
                    raise UnreachableError(f"{message}. What to do: {_LOGIN} do this") from None
                raise
            if info.sha is None:
                raise KeyError("sha")
            return Listing(info.sha, bool(info.private), tuple(_remote(each) for each in info.siblings or ()))

    def create(self, *, private: bool) -> None:
        """Create the repository."""
        with self._errors("created"):
            self._api.create_repo(self.repo, private=private or None, exist_ok=True)

    def branches_and_tags(self) -> tuple[set[str], dict[str, str]]:
        """The names of the branches, and the commits of the tags by their names."""
        with self._errors("looked for"):
            refs = self._api.list_repo_refs(self.repo)
            return {branch.name for branch in refs.branches}, {tag.name: tag.target_commit for tag in refs.tags}

    def create_branch(self, branch: str) -> None:
        """Create a branch that begins at the default one."""
        with self._errors("given a branch"):
            self._api.create_branch(self.repo, branch=branch, exist_ok=True)

    def create_tag(self, tag: str, commit: str) -> None:
        """Name a commit."""
        with self._errors("given a tag"):
            self._api.create_tag(self.repo, tag=tag, revision=commit)

    def commit(self, folder: Path, delete: Iterator[str], message: str, branch: str | None, parent: str) -> str:
        """Upload the files of a folder and remove others, in one commit after ``parent``; the new commit."""
        with self._errors("pushed to", branch, again=_AGAIN), self._progress():
            hub = self._package
            operations: list[Any] = [
                hub.CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file)
                for file in sorted(folder.iterdir())
            ]
            operations += [hub.CommitOperationDelete(path_in_repo=name) for name in delete]
            done = self._api.create_commit(
                self.repo, operations, commit_message=message, revision=branch, parent_commit=parent
            )
            return done.oid

    def download(self, name: str, commit: str, folder: Path, cache: Path) -> None:
        """Download one file of a commit into ``folder``, under its name, and never from an earlier download."""
        with self._errors("downloaded", commit, name), self._progress():
            self._api.hf_hub_download(self.repo, name, revision=commit, local_dir=folder, cache_dir=cache)

    @contextmanager
    def _progress(self) -> Generator[None]:
        """huggingface_hub's progress bars are shown on a terminal alone."""
        utils: Any = self._package.utils
        if sys.stderr.isatty() or utils.are_progress_bars_disabled():
            yield
            return
        utils.disable_progress_bars()
        try:
            yield
        finally:
            utils.enable_progress_bars()

    @contextmanager
    def _errors(
        self, doing: str, revision: str | None = None, name: str | None = None, again: str = "try again"
    ) -> Generator[None]:
        """Errors of huggingface_hub as errors of mlpx; what it did not raise for its own reasons is left alone."""
        errors: Any = self._package.errors
        what = f"{f'{name} of ' if name else ''}{self.repo} cannot be {doing}"
        try:
            yield
        except (errors.LocalEntryNotFoundError, RuntimeError) as error:  # which hide what happened
            if error.__cause__ is None:
                raise UnreachableError(f"{what}: {_line(error)}. {_HINT.format(again)}") from None
            raise self._translated(error.__cause__, what, revision, again) from None
        except (errors.HTTPError, errors.HFValidationError, ValueError, KeyError, TypeError, OSError) as error:
            raise self._translated(error, what, revision, again) from None

    def _translated(self, error: BaseException, what: str, revision: str | None, again: str) -> Exception:
        errors: Any = self._package.errors
        response: Any = getattr(error, "response", None)
        status: int | None = getattr(response, "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            return UnreachableError(f"{what}: it asks for its conditions. What to do: accept them at {self.url}")
        if isinstance(error, errors.RevisionNotFoundError):
            hint = f"see its branches, tags and commits at {self.url}/tree/main"
            return InputError(f"{what}: it has no branch, tag or commit {revision!r}. What to do: {hint}")
        if status == 401 and response.request.headers.get("authorization"):
            return UnreachableError(f"{what}: the Hub does not know the token (401). What to do: {_LOGIN}")
        if isinstance(error, errors.RepositoryNotFoundError):
            hint = f"check the name, OWNER/NAME; if it is private, {_LOGIN} see it"
            return InputError(f"{what}: the Hub shows no such repository ({status}). What to do: {hint}")
        if isinstance(error, errors.EntryNotFoundError):
            return InputError(f"{what}: the Hub has no such file at this commit ({status})")
        if status in (401, 403):
            return UnreachableError(f"{what}: the Hub refuses it ({status}). What to do: {_LOGIN} do this")
        if status in (409, 412):
            hint = "look what was pushed meanwhile, and push again"
            return UnreachableError(f"{what}: the Hub refuses it ({status}): {_line(error)}. What to do: {hint}")
        if status is not None and 400 <= status < 500 and status not in (408, 429):
            return InputError(f"{what}: the Hub does not take it ({status}): {_line(error)}")
        if status is not None:
            return UnreachableError(f"{what}: the Hub answered {status} to {_request(response)}. {_HINT.format(again)}")
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            return OutputError(f"{what}: {error.strerror}{f': {error.filename}' if error.filename else ''}")
        if isinstance(error, KeyError | TypeError | json.JSONDecodeError):
            message = f"{what}: {self._api.endpoint} does not answer as a Hub does ({_line(error)})"
            hint = "check HF_ENDPOINT, and what is between it and this machine"
            return UnreachableError(f"{message}. What to do: {hint}")
        if isinstance(error, ValueError):  # a name that no repository has, or metadata that the Hub does not take
            return InputError(f"{what}: {_line(error)}")
        return UnreachableError(f"{what}: {_line(error)}, from {self._api.endpoint}. {_HINT.format(again)}")


def _remote(sibling: Any) -> RemoteFile:
    large = sibling.lfs
    sha256 = None if large is None else str(large.sha256)
    return RemoteFile(sibling.rfilename, sibling.size, sha256, None if large is not None else sibling.blob_id)


def _blob(path: Path) -> str:
    """The SHA-1 that git gives a file with these bytes."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _request(response: Any) -> str:
    request = response.request
    return f"{request.method} {request.url}".partition("?")[0]


def _line(error: BaseException) -> str:
    """What an error says, in a line and without the id of the request."""
    said = getattr(error, "server_message", None) or str(error)
    return " ".join(said.split()).partition(" This is usually")[0].rstrip(".") or type(error).__name__
