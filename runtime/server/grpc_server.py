"""The V2 protocol over gRPC: the port, the token, errors and the log, around the methods of ``grpc_methods``."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from hmac import compare_digest
from secrets import token_hex
from time import perf_counter
from typing import Any

from runtime.errors import InputError, OutputError
from runtime.extras import imported

from .grpc_methods import FREE, PURPOSE, SERVICE, Context, Method, Methods
from .logs import Log
from .options import Options
from .refusals import Defect, Malformed, Refusal, Unauthorised
from .repository import Repository
from .worker_sync import WorkerSync


async def start(repository: Repository, options: Options, log: Log, sync: WorkerSync, port: int) -> Any:
    """A ``grpc.aio.Server`` that takes requests; ``await stop(grace)`` ends it.

    Raises OutputError: the port cannot be bound; InputError: TLS's files cannot be read; MissingPackageError.
    """
    grpc = imported("grpc", PURPOSE)
    imported("grpc.aio", PURPOSE)
    service = _Service(Methods(repository, sync), options, log)
    server = grpc.aio.server(options=_arguments(options), maximum_concurrent_rpcs=options.connections)
    server.add_generic_rpc_handlers(service.handlers())
    address = socket.getaddrinfo(options.host, port, type=socket.SOCK_STREAM)[0][4][0]
    endpoint = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    try:
        if options.certificate is None or options.key is None:
            server.add_insecure_port(endpoint)
        else:
            pair = options.key.read_bytes(), options.certificate.read_bytes()
            server.add_secure_port(endpoint, grpc.ssl_server_credentials([pair]))
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read: {error.strerror}. What to do: give files in PEM format"
        ) from None
    except RuntimeError:
        hint = "What to do: give another port (--grpc-port), or 0 for any free one"
        raise OutputError(f"cannot bind {options.host}:{port} for gRPC. {hint}") from None
    await server.start()
    return server


def _arguments(options: Options) -> list[tuple[str, int]]:
    """The channel's arguments; https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
    return [
        ("grpc.so_reuseport", 1),  # the workers share the port
        ("grpc.max_receive_message_length", options.max_body),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", options.max_head),
        ("grpc.absolute_max_metadata_size", options.max_head),
        ("grpc.max_allowed_incoming_connections", options.connections),
        ("grpc.keepalive_time_ms", round(options.keep_alive * 1000)),
        ("grpc.keepalive_timeout_ms", round(options.read_timeout * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


class _Service:
    """Wraps every method: checks the token, turns errors into gRPC statuses, and logs."""

    def __init__(self, methods: Methods, options: Options, log: Log):
        self._methods, self._log = methods, log
        self._grpc = imported("grpc", PURPOSE)
        self._decode_error: type[Exception] = imported("google.protobuf.message", PURPOSE).DecodeError
        self._prefix, self._count = token_hex(4), 0
        self._token = None if options.token is None else f"Bearer {options.token}".encode()

    def handlers(self) -> list[Any]:
        """For ``grpc.aio.Server.add_generic_rpc_handlers``.

        They take and give bytes, so that a message that cannot be decoded is the client's error, and not the server's.
        """
        unary, stream = self._grpc.unary_unary_rpc_method_handler, self._grpc.stream_stream_rpc_method_handler
        services = {
            service: {name: unary(self._wrap(name, *method)) for name, method in methods.items()}
            for service, methods in self._methods.unary().items()
        }
        services[SERVICE]["ModelStreamInfer"] = stream(self._stream)
        return [self._grpc.method_handlers_generic_handler(*service) for service in services.items()]

    def _wrap(self, name: str, kind: Any, method: Method) -> Callable[[bytes, Context], Awaitable[bytes]]:
        token, requests = self._token if name not in FREE else None, self._log.requests

        async def handle(content: bytes, context: Context) -> bytes:
            start = perf_counter()
            try:
                if token is not None:
                    _authorise(context, token)
                response = await method(self._parse(kind, content), context, start)
                if requests:
                    self._log_request(self._identity(context), name, "OK", start)
                return response.SerializeToString()
            except Exception as error:
                identity = self._identity(context)
                refusal = self._refusal(error, identity)
                self._log_request(identity, name, refusal.code, start, str(refusal))
            return await self._abort(context, refusal, identity)

        return handle

    async def _stream(self, contents: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Answers in the order of the requests; an error is an answer too, and the stream goes on."""
        name = "ModelStreamInfer"
        if self._token is not None:
            try:
                _authorise(context, self._token)
            except Unauthorised as refusal:
                await self._abort(context, refusal, self._identity(context))
        pb = self._methods.pb
        async for content in contents:
            start, request = perf_counter(), None
            try:
                request = self._parse(pb.ModelInferRequest, content)
                response = {"infer_response": await self._methods.infer(request, context, start)}
            except Exception as error:
                identity = self._identity(context)
                refusal = self._refusal(error, identity)
                self._log_request(identity, name, refusal.code, start, str(refusal))
                empty = pb.ModelInferResponse(id="" if request is None else request.id)
                response = {"error_message": str(refusal), "infer_response": empty}
            yield pb.ModelStreamInferResponse(**response).SerializeToString()

    def _parse(self, kind: Any, content: bytes) -> Any:
        try:
            return kind.FromString(content)
        except self._decode_error:
            raise Malformed(f"the message is not a {kind.DESCRIPTOR.name}") from None

    def _refusal(self, error: Exception, identity: str) -> Refusal:
        """The client's error; the cause of a defect is only in the log."""
        if isinstance(error, Refusal):
            return error
        self._log.failure(identity, error)
        return Defect(f"internal error; the log of request {identity} has it")

    async def _abort(self, context: Context, refusal: Refusal, identity: str) -> Any:
        code = getattr(self._grpc.StatusCode, refusal.code)
        await context.abort(code, str(refusal), (("x-request-id", identity),))

    def _identity(self, context: Context) -> str:
        """The client's x-request-id, or one of ours."""
        self._count += 1
        identity = dict(context.invocation_metadata() or ()).get("x-request-id")
        if isinstance(identity, str) and 0 < len(identity) <= 128:
            return identity
        return f"{self._prefix}-g{self._count:x}"

    def _log_request(self, identity: str, name: str, code: str, start: float, error: str = "") -> None:
        more = {"error": error[:500]} if error else {}
        self._log.request(identity, "grpc", name, code, perf_counter() - start, **more)


def _authorise(context: Context, token: bytes) -> None:
    header = dict(context.invocation_metadata() or ()).get("authorization", "")
    if not compare_digest(header.encode() if isinstance(header, str) else header, token):
        raise Unauthorised("this server requires a bearer token in the metadata: authorization: Bearer ...")
