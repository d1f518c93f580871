"""The V2 protocol over gRPC: the port, the token, errors and the log, around the methods of ``grpc_methods``."""

from __future__ import annotations

import asyncio
import socket
import ssl
from hmac import compare_digest
from secrets import token_hex
from time import perf_counter
from typing import Any

from runtime.errors import InputError, OutputError
from runtime.extras import imported

from .dynamic_batching import Arrays
from .grpc_calls import GrpcCall, UnaryCall
from .grpc_methods import FREE, PURPOSE, SERVICE, Begun, Method, Methods
from .http2 import Connection, Headers
from .http2_streams import Stream
from .logs import Log
from .options import Options
from .refusals import Busy, Defect, Malformed, NotAllowed, Refusal, Unauthorised
from .repository import Repository
from .worker_sync import WorkerSync

_SWEEP_SECONDS = 1.0
_LOOK_SECONDS = 0.05


async def start(
    repository: Repository,
    options: Options,
    log: Log,
    sync: WorkerSync,
    port: int,
    local: socket.socket | None = None,
) -> GrpcServer:
    """A server that takes requests on a port, and on the Unix socket ``local``.

    Raises OutputError: the port cannot be bound; InputError: TLS's files cannot be read; MissingPackageError.
    """
    service = Service(Methods(repository, sync), options, log)
    connections: set[Connection] = set()

    def connection() -> Connection:
        return Connection(service.accept, options.max_head, connections, options.connections)

    loop, tls = asyncio.get_running_loop(), _tls(options)
    address = socket.getaddrinfo(options.host, port, type=socket.SOCK_STREAM)[0][4][0]
    try:
        server = await loop.create_server(connection, str(address), port, reuse_port=True, backlog=4096, ssl=tls)
    except OSError:
        hint = "What to do: give another port (--grpc-port), or 0 for any free one"
        raise OutputError(f"cannot bind {options.host}:{port} for gRPC. {hint}") from None
    servers = [server]
    if local is not None:
        servers.append(await loop.create_unix_server(connection, sock=local, backlog=4096, ssl=tls))
    return GrpcServer(servers, connections, options)


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.certificate is None or options.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(options.certificate, options.key, password="")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{options.certificate}: cannot be read: {reason}. What to do: give files in PEM format"
        ) from None
    return context


class GrpcServer:
    """The port and its connections."""

    def __init__(self, servers: list[asyncio.Server], connections: set[Connection], options: Options):
        self._servers, self._connections, self._options = servers, connections, options
        self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """Close the connections of clients that take no answers, or are gone."""
        loop, options = asyncio.get_running_loop(), self._options
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            for connection in list(self._connections):
                silent = now - connection.heard
                connection.forgive()
                connection.end_overdue(options.read_timeout)
                stalled = connection.stalled is not None and now - connection.stalled > options.read_timeout
                if stalled or (connection.asked and silent > options.keep_alive + options.read_timeout):
                    connection.transport.abort()
                elif silent > options.keep_alive and not connection.asked:
                    connection.ping()

    async def stop(self, grace: float) -> None:
        """Take no more connections and requests; those in progress get ``grace`` seconds."""
        for server in self._servers:
            server.close()
        end = asyncio.get_running_loop().time() + grace
        for connection in list(self._connections):
            connection.leave()
        while self._connections and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK_SECONDS)
        for connection in list(self._connections):
            connection.transport.abort()
        self._sweeping.cancel()


class Service:
    """Makes a call of each stream: checks the token, turns errors into gRPC statuses, and logs."""

    def __init__(self, methods: Methods, options: Options, log: Log):
        self.methods: Methods = methods
        self.log: Log = log
        self._max_body, self._most = options.max_body, options.connections
        self._decode_error: type[Exception] = imported("google.protobuf.message", PURPOSE).DecodeError
        self._prefix, self._count = token_hex(4), 0
        self._token = None if options.token is None else f"Bearer {options.token}".encode()
        self._table = {
            f"/{service}/{name}".encode(): (name, *method)
            for service, entries in methods.unary().items()
            for name, method in entries.items()
        }
        self._infer, self._stream = (f"/{SERVICE}/{name}".encode() for name in ("ModelInfer", "ModelStreamInfer"))

    def accept(self, stream: Stream, headers: Headers | None) -> GrpcCall:
        """The call of a new stream; ``headers`` is None where they were too large."""
        if headers is None:
            return _refused(self, stream, Busy("the metadata are larger than this server takes"))
        if headers.get(b":method") != b"POST" or not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            return _refused(self, stream, Malformed("this port takes POST requests of the type application/grpc"))
        path = headers.get(b":path", b"")
        if path == self._infer and self._token is None:
            return InferCall(self, "ModelInfer", stream, headers, self._max_body)
        name, kind, method = self._table.get(path, ("", None, None))
        if name not in FREE and not self._authorised(headers):
            words = "this server requires a bearer token in the metadata: authorization: Bearer ..."
            return _refused(self, stream, Unauthorised(words), name or path[:80].decode("latin-1"))
        if path == self._infer:
            return InferCall(self, "ModelInfer", stream, headers, self._max_body)
        if path == self._stream:
            return StreamCall(self, "ModelStreamInfer", stream, headers, self._max_body)
        if method is None:
            words = f"there is no method {path[:200].decode('latin-1')}"
            return _refused(self, stream, NotAllowed(words), "unknown")
        return TaskCall(self, name, kind, method, stream, headers, self._max_body)

    def _authorised(self, headers: Headers) -> bool:
        return self._token is None or compare_digest(headers.get(b"authorization", b""), self._token)

    def parse(self, kind: Any, content: bytes) -> Any:
        """A message. Raises Malformed."""
        try:
            return kind.FromString(content)
        except self._decode_error:
            raise Malformed(f"the message is not a {kind.DESCRIPTOR.name}") from None

    def refusal(self, error: Exception, identity: str) -> Refusal:
        """The client's error; the cause of a defect is only in the log."""
        if isinstance(error, Refusal):
            return error
        self.log.failure(identity, error)
        return Defect(f"internal error; the log of request {identity} has it")

    def fail(self, call: GrpcCall, name: str, error: Exception) -> None:
        """End a call with an error."""
        identity = self.identity(call.headers)
        refusal = self.refusal(error, identity)
        self.logged(identity, name, refusal.code, call.start, str(refusal))
        call.status(refusal.code, str(refusal), [(b"x-request-id", identity.encode("latin-1"))])

    def identity(self, headers: Headers) -> str:
        """The client's x-request-id, or one of ours."""
        self._count += 1
        identity = headers.get(b"x-request-id", b"")
        return identity.decode("latin-1") if 0 < len(identity) <= 128 else f"{self._prefix}-g{self._count:x}"

    def logged(self, identity: str, name: str, code: str, start: float, error: str = "") -> None:
        """Log a request that was answered."""
        more = {"error": error[:500]} if error else {}
        self.log.request(identity, "grpc", name, code, perf_counter() - start, **more)


class InferCall(UnaryCall):
    """``ModelInfer``: from its last byte to its answer without a task."""

    def __init__(self, service: Service, name: str, stream: Stream, headers: Headers, max_body: int):
        super().__init__(stream, headers, max_body)
        self._service, self._name = service, name
        self._begun: Begun | None = None

    def run(self, content: bytes) -> None:
        """As ``UnaryCall.run``."""
        methods = self._service.methods
        request = self._service.parse(methods.pb.ModelInferRequest, content)
        begun = self._begun = methods.begin(request, self.time_remaining(), self.headers, self.start)

        def deliver(outputs: asyncio.Future[Arrays]) -> None:
            if outputs.cancelled():
                return
            try:
                self.answer(methods.response(begun))
                if self._service.log.requests:
                    self._service.logged(self._service.identity(self.headers), self._name, "OK", self.start)
            except Exception as error:  # a defect is an answer too, and in the log
                self.fail(error)

        begun.outputs.add_done_callback(deliver)

    def cancelled(self) -> None:
        """Ask the model for nothing any more."""
        if self._begun is not None and not self._begun.outputs.done():
            self._begun.gone()

    def fail(self, error: Exception) -> None:
        """As ``GrpcCall.fail``."""
        self._service.fail(self, self._name, error)


class TaskCall(UnaryCall):
    """Any other method: a task of its own."""

    def __init__(
        self,
        service: Service,
        name: str,
        kind: Any,
        method: Method,
        stream: Stream,
        headers: Headers,
        max_body: int,
    ):
        super().__init__(stream, headers, max_body)
        self._service, self._name, self._kind, self._method = service, name, kind, method
        self._task: asyncio.Task[None] | None = None

    def run(self, content: bytes) -> None:
        """As ``UnaryCall.run``."""
        self._task = asyncio.get_running_loop().create_task(self._run(content))

    async def _run(self, content: bytes) -> None:
        try:
            response = await self._method(self._service.parse(self._kind, content))
            if self._service.log.requests:
                self._service.logged(self._service.identity(self.headers), self._name, "OK", self.start)
            self.answer(response.SerializeToString())
        except Exception as error:  # a defect is an answer too, and in the log
            self.fail(error)

    def cancelled(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()

    def fail(self, error: Exception) -> None:
        """As ``GrpcCall.fail``."""
        self._service.fail(self, self._name, error)


class StreamCall(GrpcCall):
    """``ModelStreamInfer``: answers in the order of the requests; an error is an answer too, and the stream goes on."""

    def __init__(self, service: Service, name: str, stream: Stream, headers: Headers, max_body: int):
        super().__init__(stream, headers, max_body)
        self._service, self._name = service, name
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def message(self, content: bytes) -> None:
        """As ``GrpcCall.message``."""
        self._messages.put_nowait(content)

    def ended(self) -> None:
        """As ``GrpcCall.ended``."""
        self._messages.put_nowait(None)

    @property
    def busy(self) -> bool:
        """As ``GrpcCall.busy``."""
        return not self._messages.empty()

    async def _run(self) -> None:
        service, pb = self._service, self._service.methods.pb
        while (content := await self._messages.get()) is not None:
            if not self.busy:
                self._since = None if self._since is None else perf_counter()  # it waited for us
                self.stream.connection.taken(self.stream)
            start, request = perf_counter(), None
            try:
                request = service.parse(pb.ModelInferRequest, content)
                begun = service.methods.begin(request, self.time_remaining(), self.headers, start)
                try:
                    await asyncio.wait({begun.outputs})
                except asyncio.CancelledError:
                    begun.gone()
                    raise
                answer = pb.ModelInferResponse.FromString(service.methods.response(begun))
                response = {"infer_response": answer}
            except Exception as error:  # of this request; the stream goes on
                identity = service.identity(self.headers)
                refusal = service.refusal(error, identity)
                service.logged(identity, self._name, refusal.code, start, str(refusal))
                empty = pb.ModelInferResponse(id="" if request is None else request.id)
                response = {"error_message": str(refusal), "infer_response": empty}
            self.answer(pb.ModelStreamInferResponse(**response).SerializeToString(), last=False)
            await self.stream.sent()  # a client that takes no answers gets no more
        self.status("OK")

    def cancelled(self) -> None:
        """End the task."""
        self._task.cancel()

    def fail(self, error: Exception) -> None:
        """As ``GrpcCall.fail``."""
        self._task.cancel()
        self._service.fail(self, self._name, error)


class _Refused(UnaryCall):
    """A call that is answered before its message comes."""

    def run(self, content: bytes) -> None:
        """It was answered."""

    def fail(self, error: Exception) -> None:
        """It was answered."""


def _refused(service: Service, stream: Stream, refusal: Refusal, name: str = "") -> GrpcCall:
    call = _Refused(stream, {}, 0)
    service.fail(call, name, refusal)
    return call
