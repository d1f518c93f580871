"""What answers each path of REST but infer: health, metadata, statistics, the repository, certificates, the page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from runtime.json_types import Json
from runtime.version import VERSION

from .bodies import HttpRequest, parse_object, read_body
from .metrics import format_metrics
from .options import Options
from .refusals import Malformed, NotReady, Unknown
from .repository import Repository
from .statistics import triton_statistics
from .worker_sync import WorkerSync

JSON, HTML = b"application/json", b"text/html; charset=utf-8"
_EXTENSIONS = ["binary_tensor_data", "model_repository", "model_repository(unload_dependents)", "statistics"]
_SCRIPTS = ("ports.js", "form.js", "bars.js", "page.js")
PAGE = {
    "/": ("page.html", HTML),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    **{f"/{name}": (name, b"text/javascript; charset=utf-8") for name in _SCRIPTS},
}
"""The server's own page, a small application that uses the V2 API: by path, the file and its type."""
_POLICY = b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
Parameters = Mapping[str, str]
"""The parts of a path by their names in its template: ``model`` and ``version``."""


@dataclass(slots=True)
class Answer:
    """An HTTP response: its body in pieces."""

    body: list[bytes | memoryview]
    content_type: bytes = JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rows: int | None = None
    error: str = ""
    """For the log."""


def json_answer(record: Any) -> Answer:
    """An answer whose body is this record as JSON."""
    return Answer([orjson.dumps(record)])


def server_metadata(options: Options) -> dict[str, str | list[str]]:
    """The server's name, version and extensions."""
    extensions = [*_EXTENSIONS, *(["system_shared_memory"] if options.shared_memory else [])]
    return {"name": "mlpx", "version": VERSION, "extensions": extensions}


class Handlers:
    """Each takes a request and the parameters of its path, or raises a Refusal."""

    def __init__(self, repository: Repository, options: Options, sync: WorkerSync):
        self.repository: Repository = repository
        self.options: Options = options
        self._sync = sync

    async def live(self, _request: HttpRequest, _parameters: Parameters) -> Answer:
        """An empty answer: the server runs."""
        return Answer([b""])

    async def ready(self, _request: HttpRequest, _parameters: Parameters) -> Answer:
        """An empty answer, once every model can answer and none is known to be wrong. Raises NotReady."""
        if self.repository.ready:
            return Answer([b""])
        if self.repository.stopping:
            raise NotReady("the server is shutting down")
        models = self.repository.models.items()
        missing = [name for name, model in models if model.default is None and not model.unloaded]
        if missing:
            raise NotReady(f"not loaded: {', '.join(missing)}")
        wrong = (f"{name} {version}: {fault}" for (name, version), fault in self.repository.faults().items())
        raise NotReady(f"not what was proved: {'; '.join(wrong)}")

    async def server(self, _request: HttpRequest, _parameters: Parameters) -> Answer:
        """The server's name, version and extensions."""
        return json_answer(server_metadata(self.options))

    async def metadata(self, _request: HttpRequest, parameters: Parameters) -> Answer:
        """The inputs and outputs of a model. Raises Unknown, NotReady."""
        return json_answer(self.repository.metadata(parameters["model"], parameters.get("version")))

    async def model_ready(self, _request: HttpRequest, parameters: Parameters) -> Answer:
        """An empty answer for a model that can answer, and is not known to be wrong. Raises Unknown, NotReady."""
        self.repository.require_ready(parameters["model"], parameters.get("version"))
        return Answer([b""])

    async def config(self, _request: HttpRequest, parameters: Parameters) -> Answer:
        """A model's configuration, as Triton has it. Raises Unknown, NotReady."""
        return json_answer(self.repository.find(parameters["model"], parameters.get("version")).config())

    async def statistics(self, _request: HttpRequest, parameters: Parameters) -> Answer:
        """The counters of all workers, of one model or of all. Raises Unknown, NotReady."""
        records = await self._sync.statistics(parameters.get("model"), parameters.get("version"))
        return json_answer({"model_stats": triton_statistics(records)})

    async def certificate(self, _request: HttpRequest, parameters: Parameters) -> Answer:
        """The JSON file of the certificate beside a model. Raises Unknown, NotReady."""
        certificate = self.repository.find(parameters["model"], parameters["version"]).certificate
        return await self._file(parameters, "certificate", None if certificate is None else certificate.path, JSON)

    async def certificate_page(self, _request: HttpRequest, parameters: Parameters) -> Answer:
        """The HTML page of the certificate beside a model. Raises Unknown, NotReady."""
        page = self.repository.find(parameters["model"], parameters["version"]).certificate_page()
        return await self._file(parameters, "certificate.html", page, HTML)

    async def _file(self, parameters: Parameters, name: str, path: Path | None, content_type: bytes) -> Answer:
        if path is None:
            raise Unknown(f"version {parameters['version']} of '{parameters['model']}' has no {name} beside it")
        return Answer([await asyncio.get_running_loop().run_in_executor(None, path.read_bytes)], content_type)

    async def index(self, request: HttpRequest, _parameters: Parameters) -> Answer:
        """The models and their states; only those that are ready, if the body says so. Raises Malformed."""
        record = parse_object(await read_body(request, self.options.max_body))
        return json_answer(self.repository.index(ready=record.get("ready") is True))

    async def load(self, request: HttpRequest, parameters: Parameters) -> Answer:
        """Load a model in all workers. Raises a Refusal."""
        return await self._control("load", request, parameters)

    async def unload(self, request: HttpRequest, parameters: Parameters) -> Answer:
        """Unload a model in all workers. Raises a Refusal."""
        return await self._control("unload", request, parameters)

    async def _control(self, action: str, request: HttpRequest, parameters: Parameters) -> Answer:
        record = parse_object(await read_body(request, self.options.max_body))
        control_parameters: Json = record.get("parameters") or {}
        if type(control_parameters) is not dict:
            raise Malformed("the request's parameters are not an object")
        await self._sync.control(action, parameters["model"], control_parameters)
        return Answer([b""])

    async def regions(self, _request: HttpRequest, parameters: Parameters) -> Answer:
        """The regions of shared memory, or one. Raises Unknown."""
        return json_answer(self.repository.regions.status(parameters.get("region")))

    async def register(self, request: HttpRequest, parameters: Parameters) -> Answer:
        """Register shared memory. Raises Forbidden, Malformed."""
        record = parse_object(await read_body(request, self.options.max_body))
        await self._sync.register(
            parameters["region"], record.get("key"), record.get("offset", 0), record.get("byte_size")
        )
        return Answer([b""])

    async def unregister(self, request: HttpRequest, parameters: Parameters) -> Answer:
        """Forget a region of shared memory, or all."""
        await read_body(request, self.options.max_body)
        await self._sync.unregister(parameters.get("region"))
        return Answer([b""])

    async def metrics(self, _request: HttpRequest, _parameters: Parameters) -> Answer:
        """Counters in Prometheus' text format."""
        text = format_metrics(await self._sync.statistics(), self.repository)
        return Answer([text.encode()], b"text/plain; version=0.0.4; charset=utf-8")

    async def page(self, request: HttpRequest, _parameters: Parameters) -> Answer:
        """A file of the server's own page."""
        name, content_type = PAGE["/" + request.path.strip("/")]
        headers = ((b"content-security-policy", _POLICY), (b"x-content-type-options", b"nosniff"))
        return Answer([_page_file(name)], content_type, headers=headers)


@cache
def _page_file(name: str) -> bytes:
    return (Path(__file__).parent / name).read_bytes()
