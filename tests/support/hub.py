"""A local stand-in for the Hugging Face Hub: the HTTP calls that push and pull make, and faults in them.

It is no Hub: it keeps repositories in memory, stores every file but .onnx and .safetensors in git, as the Hub does by
its default .gitattributes, and takes large files through Git LFS. What it answers follows the Hub's API as
huggingface_hub 2.4 calls it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

TOKEN = "hf_stand_in"
LEGACY = "ignore:Use 'content=<...>':DeprecationWarning"
"""The warning of huggingface_hub's own upload through Git LFS; the Hub itself takes large files through Xet."""
_LARGE = (".onnx", ".safetensors")
Files = dict[str, bytes]
Answer = tuple[int, dict[str, str], bytes]


def blob(content: bytes) -> str:
    """The id of a git blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Commits with their files, and the branches and tags that name them."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def add(self, files: Files, branch: str, message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {message} {sorted(files)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.messages.append(message)
        return oid

    def resolve(self, revision: str) -> str | None:
        oid = self.branches.get(revision) or self.tags.get(revision)
        return oid or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """The stand-in. ``faults``: by a part of "METHOD PATH", a status to answer at once, or a change of the body.

    A change that raises ConnectionError loses the answer to a request that was done.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, int | Callable[[bytes], bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def files(self, repo: str, revision: str = "main") -> Files:
        """The files of a repository at a revision."""
        repository = self.repositories[repo]
        return repository.commits[repository.resolve(revision) or ""]

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> Answer:
        """The status, the headers and the body of the answer to a request."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if token not in (None, TOKEN):
            return _error(401, "Invalid credentials in Authorization header")
        if parts == ["api", "validate-yaml"]:
            return _validated(json.loads(body)["content"])
        if parts[0] == "lfs":  # a link that was given to whom may upload
            return self._store(parts[1], body)
        if method == "POST" and token is None:
            return _error(401, "Invalid username or password.")
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        in_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if in_api else parts
        repo = f"{owner}/{name.removesuffix('.git')}"
        repository = self.repositories.get(repo)
        if repository is None or (repository.private and token is None):
            # Without the code huggingface_hub takes a 401 for the same, but only from addresses of https.
            return _error(404 if token is not None else 401, "Repository not found", "RepoNotFound")
        if rest[:3] == ["info", "lfs", "objects"]:
            return self._batch(json.loads(body))
        if rest[:1] == ["refs"]:
            refs = {"branches": repository.branches, "tags": repository.tags}
            listed = {
                kind: [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in named.items()]
                for kind, named in refs.items()
            }
            return _json({**listed, "converts": []})
        if rest[:1] == ["branch"]:
            repository.branches[rest[1]] = repository.branches["main"]
            return _json({})
        commit = repository.resolve(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            return _error(404, "Revision not found", "RevisionNotFound")
        if rest[:1] == ["tag"]:
            repository.tags[json.loads(body)["tag"]] = commit
            return _json({})
        if rest[:1] == ["preupload"]:
            return _modes(json.loads(body)["files"], repository.commits[commit])
        if rest[:1] == ["commit"]:
            return self._commit(repo, repository, rest[1], body)
        if rest[:1] == ["resolve"]:
            return _file(repository.commits[commit], "/".join(rest[2:]), commit)
        info = _info(repo, repository, commit)
        if rest[:1] == ["tree"]:
            renamed = ({"type": "file", "path": file["rfilename"], "oid": file["blobId"]} for file in info["siblings"])
            return _json([{**file, **new} for file, new in zip(info["siblings"], renamed, strict=True)])
        return _json(info)

    def _create(self, record: dict[str, Any]) -> Answer:
        repo = f"{record['organization']}/{record['name']}"
        if repo in self.repositories:
            return _error(409, "You already created this model repo")
        repository = self.repositories[repo] = Repository(record.get("visibility") == "private")
        repository.add({".gitattributes": b"*.onnx filter=lfs\n"}, "main", "initial commit")
        return _json({"url": f"{self.url}/{repo}", "name": repo})

    def _batch(self, record: dict[str, Any]) -> Answer:
        objects: list[dict[str, Any]] = []
        for each in record["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}}}
            objects.append({**each, **({} if each["oid"] in self.large else upload)})
        return _json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return _error(400, "the body has another SHA-256")
        self.large[oid] = body
        return _json({})

    def _commit(self, repo: str, repository: Repository, branch: str, body: bytes) -> Answer:
        header, *operations = [json.loads(line) for line in body.splitlines()]
        files = dict(self.files(repo, branch))
        if header["value"].get("parentCommit") != repository.branches[branch]:
            return _error(412, "The branch has moved: parentCommit is not its head")
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    return _error(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.large[value["oid"]]
            else:
                del files[value["path"]]
        oid = repository.add(files, branch, header["value"]["summary"])
        return _json({"commitUrl": f"{self.url}/{repo}/commit/{oid}", "commitOid": oid, "success": True})


def _json(record: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(record).encode()


def _error(status: int, message: str, code: str = "") -> Answer:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return status, headers | {"Content-Type": "application/json"}, json.dumps({"error": message}).encode()


def _validated(content: str) -> Answer:
    metadata = yaml.safe_load(content.split("---\n")[1])
    errors = [] if isinstance(metadata.get("license", ""), str) else [{"message": '"license" must be a text'}]
    for model in metadata.get("model-index", ()):
        for result in model["results"]:
            if not {"task", "dataset", "metrics"} <= result.keys() or "name" not in result["dataset"]:
                errors.append({"message": '"model-index" is malformed'})
    return _json({"errors": errors, "warnings": []}, 400 if errors else 200)


def _modes(files: list[dict[str, Any]], present: Files) -> Answer:
    modes: list[dict[str, Any]] = []
    for file in files:
        is_large, old = file["path"].endswith(_LARGE), present.get(file["path"])
        oid = None if old is None else hashlib.sha256(old).hexdigest() if is_large else blob(old)
        mode = "lfs" if is_large else "regular"
        modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return _json({"files": modes})


def _info(repo: str, repository: Repository, commit: str) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = []
    for name, content in repository.commits[commit].items():
        digest = hashlib.sha256(content).hexdigest()
        large = (
            {"lfs": {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 130}}
            if name.endswith(_LARGE)
            else {}
        )
        siblings.append({"rfilename": name, "size": len(content), "blobId": blob(content), **large})
    return {"id": repo, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}


def _file(files: Files, name: str, commit: str) -> Answer:
    if name not in files:
        return _error(404, "Entry not found", "EntryNotFound")
    content = files[name]
    etag = hashlib.sha256(content).hexdigest() if name.endswith(_LARGE) else blob(content)
    return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "X-Linked-Size": str(len(content))}, content


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        faults = [fault for part, fault in self.hub.faults.items() if part in line]
        status, headers, content = next(
            (_error(fault, f"planted: {fault}") for fault in faults if isinstance(fault, int)), None
        ) or self.hub.answer(self.command, path, body, token)
        try:
            for change in faults if self.command != "HEAD" else ():
                content = content if isinstance(change, int) else change(content)
        except ConnectionError:  # the answer is lost on its way
            self.close_connection = True
            return
        length = len(content)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: tests look at ``requests``."""


@contextmanager
def stand_in() -> Generator[Hub]:
    """A stand-in that answers while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """A stand-in that this process takes for the Hub, with a token, and whose client does not wait between tries."""
    import huggingface_hub

    with stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the stand-in has Git LFS alone
        at_once = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
        for module in ("utils._http", "file_download"):
            monkeypatch.setattr(f"huggingface_hub.{module}.time", at_once)
        yield hub
        huggingface_hub.close_session()
