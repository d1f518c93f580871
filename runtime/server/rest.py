"""The V2 protocol over HTTP: a plain ASGI application, and ``infer``, which the fast path of ``http`` calls too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from secrets import token_hex
from time import perf_counter
from typing import Any

import orjson

from .bodies import Disconnected, HttpRequest, Receive, Scope, parse_length, read_body
from .dynamic_batching import Arrays
from .handlers import Answer, Handlers, Parameters
from .loaded_model import LoadedModel
from .logs import Log
from .messages import InferRequest, format_response, parse_request
from .options import Options
from .parsing import LARGE_JSON, ParsingProcess
from .refusals import Busy, Defect, Forbidden, Late, NotAllowed, NotReady, Refusal, TooLarge, Unauthorised, Unknown
from .repository import Repository
from .routes import Route, find_route
from .worker_sync import WorkerSync

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Lines = list[tuple[bytes, bytes]]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NOWHERE: tuple[None, Parameters] = None, {}
_LOGGED = 500
"""Characters of an error in the log."""
_CLIENT_CLOSED = 499
"""The status in the log where the client closed the connection before its answer."""


class Rest:
    """Answers HTTP requests for the models of a repository."""

    def __init__(self, repository: Repository, options: Options, log: Log, sync: WorkerSync):
        self._repository, self._options, self._log = repository, options, log
        self._handlers = Handlers(repository, options, sync)
        self._parser = ParsingProcess()
        self._prefix, self._count = token_hex(4).encode(), 0
        self._loopback_only = options.token is None and options.host in _LOOPBACK
        """Whether requests that change what is loaded must name this machine as their host."""
        self._token = None if options.token is None else f"Bearer {options.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as an ASGI application."""
        if scope["type"] != "http":
            return
        request = self.new_request(scope["method"], scope["path"], dict(scope["headers"]), receive)
        try:
            answer = await self._answer(request)
        except Disconnected:
            self._log_request(request, _CLIENT_CLOSED)
            return
        except Exception as error:
            answer = self._error_answer(error, request)
        lines, body = self.finish(request, answer)
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": lines})
            await send({"type": "http.response.body", "body": body})
        except RuntimeError as error:
            if "is closed" not in str(error):  # uvloop's text where the client hung up while it was answered
                raise
            self._log_request(request, _CLIENT_CLOSED)

    def new_request(self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Receive) -> HttpRequest:
        """A request that came now; its id is the client's x-request-id, or one of ours."""
        self._count += 1
        identity = headers.get(b"x-request-id")
        if identity is None or len(identity) > 128:
            identity = b"%s-%x" % (self._prefix, self._count)
        return HttpRequest(method, path, headers, receive, identity, perf_counter())

    def fast_model(self, url: bytes) -> LoadedModel | None:
        """The loaded model whose infer path this is; None where the request must be looked at by ``__call__``."""
        if self._token is not None:
            return None
        route, parameters = find_route(url.decode("latin-1")) or _NOWHERE
        if route is None or not route.infer:
            return None
        try:
            return self._repository.find(parameters["model"], parameters.get("version"))
        except Refusal:
            return None

    def infer(
        self,
        model: LoadedModel,
        request: HttpRequest,
        body: bytes | InferRequest,
        respond: Callable[[Answer], None],
    ) -> asyncio.Future[Arrays] | None:
        """Give a request to its model, and its answer, with tensors or an error, to ``respond``; counts it.

        ``body`` is parsed here, unless it is. The future is the model's, and may be cancelled; None if there is an
        answer already.
        """
        regions = self._repository.regions

        def fail(error: Exception) -> None:
            model.count_refusal(error)
            respond(self._error_answer(error, request))

        def deliver(outputs: asyncio.Future[Arrays]) -> None:
            if outputs.cancelled():
                return
            try:
                content, length = format_response(model.name, model.version, inputs, outputs.result(), regions)
            except Exception as error:
                return fail(error)
            model.count_answer(request.start)
            if length is None:
                return respond(Answer(content, rows=inputs.rows))
            headers = ((b"inference-header-content-length", b"%d" % length),)
            respond(Answer(content, b"application/octet-stream", headers=headers, rows=inputs.rows))

        try:
            parsed = isinstance(body, InferRequest)
            inputs = body if parsed else parse_request(body, _json_length(request), model.signature, regions)
            outputs = model.infer(inputs.feed, inputs.rows, inputs.timeout)
        except Exception as error:
            return fail(error)
        outputs.add_done_callback(deliver)
        return outputs

    def finish(self, request: HttpRequest, answer: Answer) -> tuple[Lines, bytes | memoryview]:
        """Log a request; the header lines of its answer, and the body in one piece."""
        if answer.status >= 400 or self._log.requests:
            self._log_request(request, answer.status, answer.rows, answer.error)
        body = answer.body[0] if len(answer.body) == 1 else b"".join(answer.body)
        lines = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request.identity),
        ]
        if self._repository.stopping:
            lines.append((b"connection", b"close"))  # the client's next request goes to another server
        return [*lines, *answer.headers], body

    async def _answer(self, request: HttpRequest) -> Answer:
        method, path = request.method, request.path
        route, parameters = find_route(path) or _NOWHERE
        if route is None or not route.free:
            self._check_token(request)
        if method == "POST":
            self._refuse_other_sites(request, route)
        if route is None:
            raise Unknown(f"nothing is at {path[:200]}: the paths are in /openapi.json")
        if route.method != ("GET" if method == "HEAD" else method):
            raise NotAllowed(f"{path[:200]} takes {route.method}, not {method}")
        if route.handler is None:
            return await self._infer(request, parameters)
        return await route.handler(self._handlers, request, parameters)

    def _check_token(self, request: HttpRequest) -> None:
        if self._token is not None and not compare_digest(request.headers.get(b"authorization", b""), self._token):
            raise Unauthorised("this server requires a bearer token: Authorization: Bearer ...")

    def _refuse_other_sites(self, request: HttpRequest, route: Route | None) -> None:
        """Any page that a user of this machine opens may send it requests; the browser says whose page it is."""
        host, origin = request.headers.get(b"host", b""), request.headers.get(b"origin")
        own = origin is None or origin.partition(b"://")[2] == host
        if not own or request.headers.get(b"sec-fetch-site") == b"cross-site":
            raise Forbidden("the request comes from a page of another site: only this server's own page may ask it")
        if self._loopback_only and route is not None and route.local and _host_name(host) not in _LOOPBACK:
            raise Forbidden("without a token, models are loaded and unloaded through localhost only")

    async def _infer(self, request: HttpRequest, parameters: Parameters) -> Answer:
        model = self._repository.find(parameters["model"], parameters.get("version"))
        body: bytes | InferRequest
        try:
            body = await read_body(request, self._options.max_body)
            length = _json_length(request)
            if (len(body) if length is None else length) > LARGE_JSON:
                body = await self._parser.parse(body, length, model.signature)
        except Refusal as refusal:
            model.count_refusal(refusal)
            raise
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def respond(result: Answer) -> None:
            if not answer.done():
                answer.set_result(result)

        outputs = self.infer(model, request, body, respond)
        if outputs is None:  # there is an answer already
            return answer.result()
        try:
            return await answer
        except asyncio.CancelledError:
            outputs.cancel()
            raise

    def _error_answer(self, error: Exception, request: HttpRequest) -> Answer:
        """The answer that says what went wrong; the cause of a defect is only in the log."""
        refusal = error
        if not isinstance(refusal, Refusal):
            identity = request.identity.decode("latin-1")
            self._log.failure(identity, error)
            refusal = Defect(f"internal error; the log of request {identity} has it")
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if isinstance(refusal, Busy | NotReady):
            headers = ((b"retry-after", b"1"),)
        if isinstance(refusal, Unauthorised):
            headers = ((b"www-authenticate", b"Bearer"),)
        if isinstance(refusal, TooLarge | Late):  # the rest of the body is not worth reading
            headers = ((b"connection", b"close"),)
        content = orjson.dumps({"error": str(refusal)})
        return Answer([content], status=refusal.status, headers=headers, error=str(refusal))

    def close(self) -> None:
        """End the process that parses large bodies."""
        self._parser.close()

    def _log_request(self, request: HttpRequest, status: int, rows: int | None = None, error: str = "") -> None:
        operation, seconds = f"{request.method} {request.path[:200]}", perf_counter() - request.start
        more = ({} if rows is None else {"rows": rows}) | ({"error": error[:_LOGGED]} if error else {})
        self._log.request(request.identity.decode("latin-1"), "rest", operation, status, seconds, **more)


def _json_length(request: HttpRequest) -> int | None:
    """The bytes of JSON before the tensors; None where the whole body is JSON. Raises Malformed."""
    length = request.headers.get(b"inference-header-content-length")
    return None if length is None else parse_length(length)


def _host_name(host: bytes) -> str:
    """The name in a Host header, without the port."""
    name = host.decode("latin-1")
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
