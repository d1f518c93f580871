"""Every path but infer: health, metadata, statistics, the repository, certificates, metrics and the page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from runtime.version import VERSION

from .bodies import Call, body_of, object_of
from .loaded_model import Served
from .options import Options
from .pages import FILES
from .refusals import Malformed, NotReady, Unknown
from .repository import Repository

JSON = b"application/json"
EXTENSIONS = ["binary_tensor_data", "model_repository", "model_repository(unload_dependents)", "statistics"]


@dataclass(slots=True)
class Answer:
    """A response: its body in pieces."""

    body: list[bytes | memoryview]
    kind: bytes = JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rows: int | None = None


Handler = Callable[[Call, tuple[str, ...]], Awaitable[Answer]]


class Handlers:
    """What answers a path, given as its parts."""

    def __init__(self, repository: Repository, options: Options, spread: Any):
        self._repository, self._options, self._spread = repository, options, spread

    def routes(self, parts: tuple[str, ...]) -> dict[str, Handler]:
        """The handlers of a path by method; none for a path that there is not."""
        match parts:
            case ("v2",):
                return {"GET": self._server}
            case ("v2", "health", "live" | "ready"):
                return {"GET": self._health}
            case ("v2", "models", "stats") | ("v2", "models", _, "stats") | ("v2", "models", _, "versions", _, "stats"):
                return {"GET": self._statistics}
            case ("v2", "models", _) | ("v2", "models", _, "versions", _):
                return {"GET": self._metadata}
            case ("v2", "models", _, "ready") | ("v2", "models", _, "versions", _, "ready"):
                return {"GET": self._model_ready}
            case ("v2", "models", _, "config") | ("v2", "models", _, "versions", _, "config"):
                return {"GET": self._config}
            case ("v2", "models", _, "versions", _, "certificate" | "certificate.html"):
                return {"GET": self._certificate}
            case ("v2", "repository", "index"):
                return {"POST": self._index}
            case ("v2", "repository", "models", _, "load" | "unload"):
                return {"POST": self._control}
            case ("metrics",):
                return {"GET": self._metrics}
            case ("openapi.json",):
                return {"GET": self._openapi}
            case _ if "/".join(parts) in FILES:
                return {"GET": self._file}
        return {}

    async def _health(self, call: Call, parts: tuple[str, ...]) -> Answer:
        if parts[2] == "live" or self._repository.ready:
            return Answer([b""])
        missing = [name for name, model in self._repository.models.items() if model.default is None]
        why = "the server is shutting down" if self._repository.stopping else f"not loaded: {', '.join(missing)}"
        raise NotReady(why)

    async def _server(self, call: Call, parts: tuple[str, ...]) -> Answer:
        return _json({"name": "mlpx", "version": VERSION, "extensions": EXTENSIONS})

    async def _metadata(self, call: Call, parts: tuple[str, ...]) -> Answer:
        served = self._find(parts)
        return _json(served.metadata() | {"versions": self._repository.loaded(served.name)})

    async def _model_ready(self, call: Call, parts: tuple[str, ...]) -> Answer:
        self._find(parts)
        return Answer([b""])

    async def _config(self, call: Call, parts: tuple[str, ...]) -> Answer:
        from .triton_schema import config

        return _json(config(self._find(parts), self._options))

    async def _statistics(self, call: Call, parts: tuple[str, ...]) -> Answer:
        from .triton_schema import statistics

        whole = parts == ("v2", "models", "stats")
        if not whole:
            self._repository.find(parts[2], parts[4] if len(parts) == 6 else None)
        wanted = None if whole else parts[2]
        version = parts[4] if len(parts) == 6 else None
        gathered = await self._spread.statistics()
        return _json({"model_stats": statistics(gathered, wanted, version)})

    async def _certificate(self, call: Call, parts: tuple[str, ...]) -> Answer:
        served = self._repository.find(parts[2], parts[4])
        page = parts[5].endswith(".html")
        path = served.page() if page else served.certificate.path if served.certificate is not None else None
        if path is None:
            raise Unknown(f"version {served.version} of '{served.name}' has no {parts[5]} beside it")
        content = await asyncio.get_running_loop().run_in_executor(None, path.read_bytes)
        return Answer([content], b"text/html; charset=utf-8" if page else JSON)

    async def _index(self, call: Call, parts: tuple[str, ...]) -> Answer:
        asked = object_of(await body_of(call, self._options.max_body))
        return _json(self._repository.index(ready=asked.get("ready") is True))

    async def _control(self, call: Call, parts: tuple[str, ...]) -> Answer:
        parameters = object_of(await body_of(call, self._options.max_body)).get("parameters") or {}
        if type(parameters) is not dict:
            raise Malformed("the request's parameters are no object")
        await self._spread.control(parts[4], parts[3], parameters)
        return Answer([b""])

    async def _metrics(self, call: Call, parts: tuple[str, ...]) -> Answer:
        from .metrics import text

        gathered = await self._spread.statistics()
        return Answer([text(gathered, self._repository).encode()], b"text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, call: Call, parts: tuple[str, ...]) -> Answer:
        from .openapi import document

        return _json(document(self._repository, self._options))

    async def _file(self, call: Call, parts: tuple[str, ...]) -> Answer:
        held = FILES["/".join(parts)]
        policy = b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
        more = ((b"content-security-policy", policy), (b"x-content-type-options", b"nosniff"))
        return Answer([held.content()], held.kind, headers=more)

    def _find(self, parts: tuple[str, ...]) -> Served:
        return self._repository.find(parts[2], parts[4] if len(parts) > 4 and parts[3] == "versions" else None)


def _json(record: Any) -> Answer:
    return Answer([orjson.dumps(record)])
