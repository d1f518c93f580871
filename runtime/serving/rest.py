"""The V2 protocol over HTTP, as a plain ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from secrets import token_hex
from time import perf_counter
from typing import Any
from urllib.parse import unquote

import orjson

from .bodies import Call, Gone, Receive, Scope, body_of, length_of
from .handlers import Answer, Handlers
from .logs import Log
from .messages import answer, parse
from .options import Options
from .pages import FILES
from .refusals import Busy, Defect, Forbidden, Late, NotAllowed, NotReady, Refusal, TooLarge, Unauthorised, Unknown
from .repository import Repository
from .served import Served

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Rest:
    """Answers HTTP requests for the models of a repository."""

    def __init__(self, repository: Repository, options: Options, log: Log, spread: Any):
        self._repository, self._options, self._log = repository, options, log
        self._handlers = Handlers(repository, options, spread)
        self._prefix, self._count = token_hex(4), 0
        self._guarded = options.token is None and options.host in _LOOPBACK
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
        if method == "POST":
            self._refuse_other_sites(call, parts)
        if parts[-1:] == ("infer",) and parts[:2] == ("v2", "models") and len(parts) in (4, 6):
            if method == "POST":
                return await self._infer(call, parts)
            raise NotAllowed(f"{path[:200]} takes POST, not {method}")
        methods = self._handlers.routes(parts)
        if not methods:
            raise Unknown(f"nothing is at {unquote(path)[:200]}: the paths are in /openapi.json")
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise NotAllowed(f"{path[:200]} takes {', '.join(methods)}, not {method}")
        return await handler(call, parts)

    def _refuse_other_sites(self, call: Call, parts: tuple[str, ...]) -> None:
        """Any page that a user of this machine looks at may send it requests, in a browser that says whose they are."""
        headers = call.headers
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        own = origin is None or origin.partition(b"://")[2] == host
        if not own or headers.get(b"sec-fetch-site") == b"cross-site":
            raise Forbidden("the request comes from a page of another site: only this server's own page may ask it")
        if self._guarded and parts[:2] == ("v2", "repository") and _name_of(host) not in _LOOPBACK:
            raise Forbidden("models are loaded and unloaded by way of localhost only, as long as no token is asked for")

    async def _infer(self, call: Call, parts: tuple[str, ...]) -> Answer:
        served: Served | None = None
        try:
            served = self._repository.find(parts[2], parts[4] if len(parts) == 6 else None)
            body = await body_of(call, self._options.max_body)
            given = call.headers.get(b"inference-header-content-length")
            head = None if given is None else length_of(given)
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


def _name_of(host: bytes) -> str:
    """A Host header's name, without the port."""
    name = host.decode("latin-1")
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
