"""The V2 protocol over HTTP, as a plain ASGI application."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from secrets import token_hex
from time import perf_counter
from typing import Any
from urllib.parse import unquote

import orjson

from runtime.version import VERSION

from .logs import Log
from .messages import answer, parse
from .options import Options
from .pages import FILES
from .refusals import (
    Busy,
    Defect,
    Encoded,
    Late,
    Malformed,
    NotAllowed,
    NotReady,
    Refusal,
    TooLarge,
    Unauthorised,
    Unknown,
)
from .repository import Repository
from .served import Served

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
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


class Gone(Exception):
    """The client hung up."""


@dataclass(slots=True)
class Call:
    """One HTTP request on its way."""

    scope: Scope
    headers: dict[bytes, bytes]
    receive: Receive
    start: float


Handler = Callable[[Call, tuple[str, ...]], Awaitable[Answer]]


class Rest:
    """Answers HTTP requests for the models of a repository.

    ``more`` are further routes, by method and path.
    """

    def __init__(self, repository: Repository, options: Options, log: Log, spread: Any):
        self._repository, self._options, self._log, self._spread = repository, options, log, spread
        self._prefix, self._count = token_hex(4), 0
        self._token = None if options.token is None else f"Bearer {options.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        start = perf_counter()
        headers = dict(scope["headers"])
        self._count += 1
        request = headers.get(b"x-request-id")
        if request is None or len(request) > 128:
            request = b"%s-%x" % (self._prefix.encode(), self._count)
        call = Call(scope, headers, receive, start)
        try:
            result = await self._answer(call)
        except Gone:
            self._told(call, request, 499)
            return
        except Refusal as refusal:
            result = self._refused(refusal)
        except Exception as error:
            self._log.failure(request.decode("latin-1"), error)
            result = self._refused(Defect(f"internal error; the log of request {request.decode('latin-1')} has it"))
        if result.status >= 400 or self._log.requests:
            self._told(call, request, result.status, result.rows)
        body = result.body[0] if len(result.body) == 1 else b"".join(result.body)
        lines = [(b"content-type", result.kind), (b"content-length", b"%d" % len(body)), (b"x-request-id", request)]
        if self._repository.stopping:
            lines.append((b"connection", b"close"))  # the client's next request goes to another server
        try:
            await send({"type": "http.response.start", "status": result.status, "headers": [*lines, *result.headers]})
            await send({"type": "http.response.body", "body": body})
        except RuntimeError as error:
            if "is closed" not in str(error):  # uvloop's word for a client that hung up while it was answered
                raise
            self._told(call, request, 499)

    async def _answer(self, call: Call) -> Answer:
        method, path = call.scope["method"], call.scope["path"]
        parts = tuple(path.strip("/").split("/")) if path != "/" else ()
        if self._token is not None and parts[:2] != ("v2", "health"):
            given = call.headers.get(b"authorization", b"")
            if parts and not compare_digest(given, self._token) and "/".join(parts) not in FILES:
                raise Unauthorised("this server wants a bearer token: Authorization: Bearer ...")
        if method == "POST" and parts[-1:] == ("infer",) and parts[:2] == ("v2", "models") and len(parts) in (4, 6):
            return await self._infer(call, parts)
        methods = self._routes(parts)
        if not methods:
            raise Unknown(f"nothing is at {unquote(path)[:200]}: the paths are in /openapi.json")
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise NotAllowed(f"{path[:200]} takes {', '.join(methods)}, not {method}")
        return await handler(call, parts)

    def _routes(self, parts: tuple[str, ...]) -> dict[str, Handler]:
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
            case ("v2", "models", _, "infer") | ("v2", "models", _, "versions", _, "infer"):
                return {"POST": self._infer}
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

    async def _infer(self, call: Call, parts: tuple[str, ...]) -> Answer:
        served: Served | None = None
        try:
            served = self._repository.find(parts[2], parts[4] if len(parts) == 6 else None)
            body = await self._body(call)
            given = call.headers.get(b"inference-header-content-length")
            head = None if given is None else _length(given)
            request = parse(body, head, served.signature)
            outputs = await served.infer(request.feed, request.rows, request.timeout)
            content, length = answer(served.name, served.version, request, outputs)
        except Gone:
            raise
        except Exception as error:
            if served is not None:
                served.refused(error)
            raise
        served.answered(call.start)
        if length is None:
            return Answer(content, rows=request.rows)
        more = ((b"inference-header-content-length", b"%d" % length),)
        return Answer(content, b"application/octet-stream", headers=more, rows=request.rows)

    async def _body(self, call: Call) -> bytes:
        most = self._options.max_body
        given = call.headers.get(b"content-length")
        if given is not None and _length(given) > most:
            raise TooLarge(f"the body has {int(given):,} bytes, and this server takes {most:,}")
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body = message.get("body", b"")
        if message.get("more_body"):
            pieces, size = [body], len(body)
            while message.get("more_body"):
                message = await call.receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > most:
                    raise TooLarge(f"the body has more than {most:,} bytes, which is all that this server takes")
            body = b"".join(pieces)
        encoding = call.headers.get(b"content-encoding", b"identity")
        return body if encoding == b"identity" else _decoded(body, encoding, most)

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
        from .described import config

        return _json(config(self._find(parts), self._options))

    async def _statistics(self, call: Call, parts: tuple[str, ...]) -> Answer:
        from .described import statistics

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
        asked = _object(await self._body(call))
        return _json(self._repository.index(ready=asked.get("ready") is True))

    async def _control(self, call: Call, parts: tuple[str, ...]) -> Answer:
        parameters = _object(await self._body(call)).get("parameters") or {}
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

    def _refused(self, refusal: Refusal) -> Answer:
        more: tuple[tuple[bytes, bytes], ...] = ()
        if isinstance(refusal, Busy | NotReady):
            more = ((b"retry-after", b"1"),)
        if isinstance(refusal, Unauthorised):
            more = ((b"www-authenticate", b"Bearer"),)
        if isinstance(refusal, TooLarge | Late):  # the rest of the body is not worth reading
            more = (*more, (b"connection", b"close"))
        return Answer([orjson.dumps({"error": str(refusal)})], status=refusal.status, headers=more)

    def _told(self, call: Call, request: bytes, status: int, rows: int | None = None) -> None:
        what = f"{call.scope['method']} {call.scope['path'][:200]}"
        more = {} if rows is None else {"rows": rows}
        self._log.request(request.decode("latin-1"), "rest", what, status, perf_counter() - call.start, **more)


def _json(record: Any) -> Answer:
    return Answer([orjson.dumps(record)])


def _length(text: bytes) -> int:
    if not text.isdigit() or len(text) > 15:
        raise Malformed(f"a header has the length {text[:40]!r}, which is no number of bytes")
    return int(text)


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object of a small body; an empty body is an empty one."""
    try:
        found = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise Malformed("the body is no JSON object")
    return found


def _decoded(body: bytes, encoding: bytes, most: int) -> bytes:
    """A compressed body. Raises Encoded, Malformed, TooLarge."""
    bits = {b"gzip": 31, b"deflate": 15}.get(encoding.lower())
    if bits is None:
        raise Encoded(f"Content-Encoding {encoding[:40].decode('latin-1')} is not read: gzip and deflate are")
    reader = zlib.decompressobj(bits)
    try:
        found = reader.decompress(body, most + 1)
    except zlib.error as error:
        raise Malformed(f"the body is not {encoding.decode()}: {error}") from None
    if len(found) > most:
        raise TooLarge(f"the body unpacks to more than {most:,} bytes, which is all that this server takes")
    if not reader.eof:
        raise Malformed(f"the {encoding.decode()} of the body ends too early")
    return found
