"""The V2 protocol over HTTP, as a plain ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from secrets import token_hex
from time import perf_counter
from typing import Any
from urllib.parse import unquote

import orjson

from .bodies import Call, Gone, Receive, Scope, body_of, length_of
from .dynamic_batching import Arrays
from .fast_path import Direct
from .handlers import Answer, Handlers
from .loaded_model import Served
from .logs import Log
from .messages import Request, answer, parse
from .options import Options
from .pages import FILES
from .refusals import Busy, Defect, Forbidden, Late, NotAllowed, NotReady, Refusal, TooLarge, Unauthorised, Unknown
from .repository import Repository

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Lines = list[tuple[bytes, bytes]]
Write = Callable[[int, Lines, bytes | memoryview], None]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Rest:
    """Answers HTTP requests for the models of a repository."""

    def __init__(self, repository: Repository, options: Options, log: Log, spread: Any):
        self._repository, self._options, self._log = repository, options, log
        self._handlers = Handlers(repository, options, spread)
        self._prefix, self._count = token_hex(4).encode(), 0
        self._guarded = options.token is None and options.host in _LOOPBACK
        self._token = None if options.token is None else f"Bearer {options.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = Call(scope, dict(scope["headers"]), receive, perf_counter())
        request, what = self._identity(call.headers), f"{scope['method']} {scope['path'][:200]}"
        try:
            result = await self._answer(call)
        except Gone:
            self._told(what, request, call.start, 499)
            return
        except Exception as error:
            result = self._failed(error, request)
        if result.status >= 400 or self._log.requests:
            self._told(what, request, call.start, result.status, result.rows)
        lines, body = self._lines(result, request)
        try:
            await send({"type": "http.response.start", "status": result.status, "headers": lines})
            await send({"type": "http.response.body", "body": body})
        except RuntimeError as error:
            if "is closed" not in str(error):  # uvloop's word for a client that hung up while it was answered
                raise
            self._told(what, request, call.start, 499)

    def served_at(self, url: bytes) -> Served | None:
        """The loaded model that a path asks for outputs, where requests may take the short way."""
        parts = url.split(b"/")
        if self._token is not None or self._log.requests or parts[1:3] != [b"v2", b"models"] or parts[-1] != b"infer":
            return None
        model = self._repository.models.get(parts[3].decode("latin-1"))
        if model is None or len(parts) not in (5, 7):
            return None
        if len(parts) == 5:
            return model.default
        version = model.versions.get(parts[5].decode("latin-1")) if parts[4] == b"versions" else None
        return None if version is None else version.served

    def answer_directly(self, asked: Direct, write: Write) -> None:
        """Give a request on the short way to its model; ``write`` gets the status, the head's lines and the body."""
        served, request = asked.served, self._identity(asked.headers)

        def finish(result: Answer) -> None:
            if result.status >= 400:
                self._told(f"POST {asked.url.decode('latin-1')}", request, asked.start, result.status)
            write(result.status, *self._lines(result, request))

        def fail(error: Exception) -> None:
            served.refused(error)
            finish(self._failed(error, request))

        def done(future: asyncio.Future[Arrays]) -> None:
            try:
                result = _outputs(served, parsed, future.result())
            except Exception as error:
                return fail(error)
            served.answered(asked.start)
            finish(result)

        try:
            parsed = parse(bytes(asked.body), _head(asked.headers), served.signature)
            served.infer(parsed.feed, parsed.rows, parsed.timeout).add_done_callback(done)
        except Exception as error:
            fail(error)

    def _identity(self, headers: Mapping[bytes, bytes]) -> bytes:
        """The client's x-request-id, or one of ours."""
        self._count += 1
        given = headers.get(b"x-request-id")
        return b"%s-%x" % (self._prefix, self._count) if given is None or len(given) > 128 else given

    def _lines(self, result: Answer, request: bytes) -> tuple[Lines, bytes | memoryview]:
        """The head's lines, and the body in one piece."""
        body = result.body[0] if len(result.body) == 1 else b"".join(result.body)
        lines = [(b"content-type", result.kind), (b"content-length", b"%d" % len(body)), (b"x-request-id", request)]
        if self._repository.stopping:
            lines.append((b"connection", b"close"))  # the client's next request goes to another server
        return [*lines, *result.headers], body

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
            request = parse(body, _head(call.headers), served.signature)
            result = _outputs(served, request, await served.infer(request.feed, request.rows, request.timeout))
        except Gone:
            raise
        except Exception as error:
            if served is not None:
                served.refused(error)
            raise
        served.answered(call.start)
        return result

    def _failed(self, error: Exception, request: bytes) -> Answer:
        """The answer that says what went wrong; the cause of a defect is the log's."""
        refusal = error
        if not isinstance(refusal, Refusal):
            identity = request.decode("latin-1")
            self._log.failure(identity, error)
            refusal = Defect(f"internal error; the log of request {identity} has it")
        more: tuple[tuple[bytes, bytes], ...] = ()
        if isinstance(refusal, Busy | NotReady):
            more = ((b"retry-after", b"1"),)
        if isinstance(refusal, Unauthorised):
            more = ((b"www-authenticate", b"Bearer"),)
        if isinstance(refusal, TooLarge | Late):  # the rest of the body is not worth reading
            more = (*more, (b"connection", b"close"))
        return Answer([orjson.dumps({"error": str(refusal)})], status=refusal.status, headers=more)

    def _told(self, what: str, request: bytes, start: float, status: int, rows: int | None = None) -> None:
        more = {} if rows is None else {"rows": rows}
        self._log.request(request.decode("latin-1"), "rest", what, status, perf_counter() - start, **more)


def _head(headers: Mapping[bytes, bytes]) -> int | None:
    """The length of a body's JSON, where bytes follow. Raises Malformed."""
    given = headers.get(b"inference-header-content-length")
    return None if given is None else length_of(given)


def _outputs(served: Served, request: Request, outputs: Arrays) -> Answer:
    """The answer with tensors."""
    content, length = answer(served.name, served.version, request, outputs)
    if length is None:
        return Answer(content, rows=request.rows)
    more = ((b"inference-header-content-length", b"%d" % length),)
    return Answer(content, b"application/octet-stream", headers=more, rows=request.rows)


def _name_of(host: bytes) -> str:
    """A Host header's name, without the port."""
    name = host.decode("latin-1")
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
