"""The paths of REST in one table, from which they are dispatched and the OpenAPI document is made."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from runtime.version import VERSION

from .bodies import HttpRequest
from .handlers import PAGE, Answer, Handlers, Parameters, json_answer
from .openapi import CONTROL, ERROR, INDEX, METADATA, OBJECT, OUTPUTS, READY, SERVER, STATISTICS, Schema, infer_request
from .options import Options
from .repository import Repository
from .signature import Signature

Handler = Callable[[Handlers, HttpRequest, Parameters], Awaitable[Answer]]
_PARAMETER = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Route:
    """A path, what answers it, and what the OpenAPI document says of it."""

    template: str
    """With ``{model}`` and ``{version}`` as parameters."""
    handler: Handler | None
    """None: infer, which ``Rest`` answers."""
    summary: str = ""
    """It may contain ``{model}``. Empty: the path is not in the document."""
    schema: Schema | None = None
    """Of the answer; None: the answer is empty or text."""
    errors: Mapping[int, str] = field(default_factory=dict[int, str])
    """By HTTP status."""
    body: Schema | None = None
    """Of the request; that of infer depends on the model."""
    method: str = "GET"
    free: bool = False
    """Whether requests need no token."""
    content_type: str = "application/json"

    @property
    def infer(self) -> bool:
        """Whether it takes rows and answers with outputs."""
        return self.handler is None

    @property
    def repository(self) -> bool:
        """Whether it lists or changes which models are loaded."""
        return self.template.startswith("/v2/repository/")

    @property
    def local(self) -> bool:
        """Whether it lists or changes what is on this machine, which a page of another site must not, by any name."""
        return self.repository or self.template.startswith("/v2/systemsharedmemory")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its template's parameters, in order."""
        return tuple(_PARAMETER.findall(self.template))

    def describe(self, model: str, signature: Signature | None) -> dict[str, Any]:
        """The path item of the OpenAPI document, for a model of this name and signature."""
        success: dict[str, Any] = {"description": "done"}
        if self.schema is not None or self.content_type != "application/json":
            success["content"] = {self.content_type: {} if self.schema is None else {"schema": self.schema}}
        errors = self.errors if self.free else {**self.errors, 401: "the token is missing or another"}
        error = {"content": {"application/json": {"schema": ERROR}}}
        answers = {"200": success} | {str(status): {"description": text, **error} for status, text in errors.items()}
        operation: dict[str, Any] = {"summary": self.summary.format(model=model), "responses": answers}
        body = infer_request(signature) if self.infer and signature is not None else self.body
        if body is not None:
            content = {"application/json": {"schema": body}}
            operation["requestBody"] = {"required": self.infer, "content": content}
        if self.free:
            operation["security"] = []
        return {self.method.lower(): operation}


async def _openapi(handlers: Handlers, _request: HttpRequest, _parameters: Parameters) -> Answer:
    return json_answer(document(handlers.repository, handlers.options))


_BODY = {400: "the body is no JSON, or asks for what cannot be", 413: "the body is too large", 415: "its encoding"}
_MODEL = {404: "no such model or version", 503: "it is not loaded"}
_INFER = _MODEL | _BODY | {429: "the queue is full", 504: "the deadline passed"}
_CONTROL = _BODY | {404: "no such model"}


def _model_routes(model: str) -> list[Route]:
    """The paths below a model, or below one of its versions."""
    return [
        Route(model, Handlers.metadata, "Its inputs and outputs.", METADATA, _MODEL),
        Route(f"{model}/ready", Handlers.model_ready, "Whether it can answer.", None, _MODEL),
        Route(f"{model}/config", Handlers.config, "Its configuration, as Triton tells it.", OBJECT, _MODEL),
        Route(f"{model}/stats", Handlers.statistics, "Its statistics, as Triton tells them.", STATISTICS, _MODEL),
        Route(f"{model}/infer", None, "Outputs for rows of inputs.", OUTPUTS, _INFER, method="POST"),
    ]


_VERSION = "/v2/models/{model}/versions/{version}"
_CHANGE = "/v2/repository/models/{model}"


def _shared_memory_routes(path: str) -> list[Route]:
    """Not in the document: they are for clients that share memory with the server."""
    routes = [
        Route(f"{path}/status", Handlers.regions),
        Route(f"{path}/unregister", Handlers.unregister, method="POST"),
    ]
    if "{region}" in path:
        routes.append(Route(f"{path}/register", Handlers.register, method="POST"))
    return routes


ROUTES = (
    Route("/v2", Handlers.server, "What the server is.", SERVER),
    Route("/v2/health/live", Handlers.live, "Whether the server runs.", free=True),
    Route("/v2/health/ready", Handlers.ready, "Whether every model can answer.", errors={503: "not yet"}, free=True),
    Route("/v2/repository/index", Handlers.index, "The models and their states.", INDEX, _BODY, READY, "POST"),
    Route("/v2/models/stats", Handlers.statistics, "Statistics of every model.", STATISTICS),
    Route("/metrics", Handlers.metrics, "Counters in Prometheus' format.", content_type="text/plain"),
    Route("/openapi.json", _openapi, "This document.", OBJECT),
    *_shared_memory_routes("/v2/systemsharedmemory"),
    *_shared_memory_routes("/v2/systemsharedmemory/region/{region}"),
    *(Route(path, Handlers.page, free=True) for path in PAGE),
    Route(f"{_CHANGE}/load", Handlers.load, "Load {model}, in all workers.", None, _CONTROL, CONTROL, "POST"),
    Route(f"{_CHANGE}/unload", Handlers.unload, "Unload {model}, in all workers.", None, _CONTROL, CONTROL, "POST"),
    *_model_routes("/v2/models/{model}"),
    *_model_routes(_VERSION),
    Route(f"{_VERSION}/certificate", Handlers.certificate, "Its certificate.", OBJECT, {404: "it has none"}),
    Route(f"{_VERSION}/certificate.html", Handlers.certificate_page),
)
"""Where a path matches several templates, the first one counts."""


def _compile() -> tuple[re.Pattern[str], dict[int, tuple[Route, tuple[str, ...]]]]:
    """A pattern of all paths, and each route with its parameters by the number of its group in the pattern."""
    pieces: list[str] = []
    groups: dict[int, tuple[Route, tuple[str, ...]]] = {}
    number = 1
    for route in ROUTES:
        literals = _PARAMETER.split(route.template.strip("/"))[::2]
        pieces.append(f"({'([^/]*)'.join(map(re.escape, literals))})")
        groups[number] = route, route.parameters
        number += 1 + len(route.parameters)
    return re.compile("|".join(pieces)), groups


_PATHS, _GROUPS = _compile()


@lru_cache(1024)
def find_route(path: str) -> tuple[Route | None, Mapping[str, str]]:
    """The route of a path, None where the server does not have this path, and the path's parameters."""
    match = _PATHS.fullmatch(path.strip("/"))
    if match is None or match.lastindex is None:
        return None, {}
    route, names = _GROUPS[match.lastindex]  # the group that closes last is the whole path
    return route, {name: match[match.lastindex + 1 + i] for i, name in enumerate(names)}


def document(repository: Repository, options: Options) -> dict[str, Any]:
    """OpenAPI 3.1. Paths contain the names of the models that are loaded, so that their tensors are described."""
    paths: dict[str, Any] = {}

    def add(parameters: tuple[str, ...], model: str, version: str, signature: Signature | None) -> None:
        for route in ROUTES:
            if route.summary and route.parameters == parameters:
                path = route.template.format(model=model, version=version)
                if not parameters or (options.control if route.repository else signature is not None):
                    paths[path] = route.describe(model, signature)

    add((), "", "", None)
    for name, model in repository.models.items():
        add(("model",), name, "", None if model.default is None else model.default.signature)
        for number, version in model.versions.items():
            if version.loaded is not None:
                add(("model", "version"), name, number, version.loaded.signature)
    record: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "mlpx", "version": VERSION, "description": "The Open Inference Protocol, version 2."},
        "paths": paths,
    }
    if options.token is not None:
        record["components"] = {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}}
        record["security"] = [{"bearer": []}]
    return record
