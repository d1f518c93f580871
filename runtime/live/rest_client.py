"""A V2 client over HTTP, with tensors as JSON or in the binary extension."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, RemoteDisconnected
from threading import Timer
from typing import Any

import numpy as np

from runtime.json_types import Json

from .connection import Connection
from .protocol import ModelInfo, OutputTensor, Response, ServerError, ServerInfo, TensorInfo, encode

_MAX_METADATA = 2**22
"""Bytes of metadata that are read."""
_HEADER_LENGTH = "Inference-Header-Content-Length"
_JSON = {"Content-Type": "application/json"}
_DISCONNECTED = RemoteDisconnected, BrokenPipeError, ConnectionResetError


class RestClient:
    """One connection, kept open between requests. A request is given up when the timeout is over, whatever comes.

    Raises InputError: the CA file cannot be used.
    """

    def __init__(self, connection: Connection):
        self._address, self._timeout = connection.address, connection.timeout
        self._max_response = connection.max_response
        self._headers = {"Accept": "application/json"}
        if connection.token:
            self._headers["Authorization"] = f"Bearer {connection.token}"
        host, port = self._address.host, self._address.port
        if self._address.encrypted:
            context = tls_context(connection)
            self._http: HTTPConnection = HTTPSConnection(host, port, timeout=self._timeout, context=context)
        else:
            self._http = HTTPConnection(host, port, timeout=self._timeout)

    def server_info(self) -> ServerInfo:
        """The server's metadata."""
        record = self.metadata(self._address.server_path)
        name, version = (str(record.get(key) or "") for key in ("name", "version"))
        return ServerInfo(name, version, _strings(record.get("extensions")))

    def model_info(self, version: str | None) -> ModelInfo:
        """The metadata of a version of the model; None: of the one that the server chooses."""
        record = self.metadata(self._address.model_path(version))
        inputs, outputs = (_tensor_infos(record.get(key)) for key in ("inputs", "outputs"))
        parameters: Json = record.get("parameters")
        sha256: Json = parameters.get("sha256") if isinstance(parameters, dict) else None
        return ModelInfo(_strings(record.get("versions")), inputs, outputs, sha256 if isinstance(sha256, str) else None)

    def model_names(self) -> list[str]:
        """All models of the server, by its repository index."""
        _, body = self.request("POST", f"{self._address.server_path}/repository/index", b"{}", _JSON)
        record = _parsed(body)
        rows: list[Json] = record if isinstance(record, list) else []
        return [str(row["name"]) for row in rows if isinstance(row, dict) and "name" in row]

    def infer(self, inputs: Mapping[str, np.ndarray], request_id: str, version: str | None, binary: bool) -> Response:
        """Send rows (rows, ...) by input name, as JSON or in the binary extension."""
        tensors: list[dict[str, Any]] = []
        data: list[bytes] = []
        for name, values in inputs.items():
            datatype, encoded = encode(values)
            tensors.append({"name": name, "shape": list(values.shape), "datatype": datatype})
            if binary:
                data.append(encoded)
                tensors[-1]["parameters"] = {"binary_data_size": len(encoded)}
            else:
                tensors[-1]["data"] = values.ravel().tolist()
        record: dict[str, Any] = {"id": request_id, "inputs": tensors}
        if binary:
            record["parameters"] = {"binary_data_output": True}
        header = json.dumps(record).encode()
        headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))} if binary else _JSON
        path, body = f"{self._address.model_path(version)}/infer", b"".join([header, *data])
        return _decode(*self.request("POST", path, body, headers, self._max_response))

    def close(self) -> None:
        """Close the connection; another request opens it again."""
        self._http.close()

    def metadata(self, path: str) -> dict[str, Any]:
        """The JSON object at a path. Raises ServerError."""
        record = _parsed(self.request("GET", path, None, {})[1])
        if not isinstance(record, dict):
            raise ServerError("a JSON object was expected")
        return record

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], max_response: int = _MAX_METADATA
    ) -> tuple[Mapping[str, str], bytes]:
        """Headers (names in lower case) and body of a response with status 200. Raises ServerError.

        The request is sent again if the server had closed the idle connection, as it may.
        """
        arguments = method, path, body, {**self._headers, **headers}, max_response
        reused = self._http.sock is not None
        try:
            try:
                response, body = self._send(*arguments)
            except _DISCONNECTED:
                if not reused:
                    raise
                response, body = self._send(*arguments)
        except _DISCONNECTED as error:
            hint = "" if reused or self._address.encrypted else "perhaps it speaks TLS: give https://"
            message = f"it closed the connection without an answer ({error})"
            raise ServerError(message, unreachable=not reused, hint=hint) from None
        headers = {name.lower(): value for name, value in response.headers.items()}
        if response.status != 200:
            raise _http_error(response.status, headers, body)
        return headers, body

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], max_response: int
    ) -> tuple[HTTPResponse, bytes]:
        """Send a request and read the response. Raises ServerError, or one of ``_DISCONNECTED``."""
        connected = self._connected_socket()
        late = ServerError(f"no complete answer within {self._timeout:g} s", 504)
        expired: list[bool] = []

        def expire() -> None:
            expired.append(True)
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # ends a blocked read, of TLS too

        timer = Timer(self._timeout, expire)  # a socket's own timeout starts again with every byte
        timer.daemon = True
        timer.start()
        keep, response = False, None
        try:
            self._http.request(method, path, body, headers)
            response = self._http.getresponse()
            data = response.read(max_response + 1)
            if expired:  # the shutdown may have cut the body short without an error
                raise late
            if len(data) > max_response:
                raise ServerError(f"an answer of more than {max_response:,} bytes")
            keep = not response.will_close
            return response, data
        except (OSError, HTTPException, ValueError) as error:
            if expired or isinstance(error, TimeoutError):
                raise late from None
            if isinstance(error, _DISCONNECTED):
                raise
            reason = str(error) or type(error).__name__
            message = f"what came is not HTTP ({reason}); a gRPC port answers like this: give grpc://"
            raise ServerError(message, unreachable=True) from None
        finally:
            timer.cancel()
            if not keep:
                if response is not None:
                    response.close()  # it holds the connection where its end would be the end of the answer
                self.close()

    def _connected_socket(self) -> socket.socket:
        try:
            if self._http.sock is None:
                self._http.connect()
            assert self._http.sock is not None
            return self._http.sock
        except (OSError, UnicodeError) as error:
            self.close()
            untrusted = isinstance(error, ssl.SSLCertVerificationError)
            hint = "name its authority's certificate with --ca-file" if untrusted else ""
            raise ServerError(_connect_failure(error, self._timeout), unreachable=True, hint=hint) from None


def tls_context(connection: Connection) -> ssl.SSLContext:
    """What checks the server's certificate. Raises InputError: the CA file cannot be used."""
    certificates = connection.ca_certificates()
    try:
        return ssl.create_default_context(cadata=None if certificates is None else certificates.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise connection.ca_error("not a certificate in PEM format") from None


def _connect_failure(error: Exception, timeout: float) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS ({error.reason or error}); perhaps it speaks plain http://"
    if isinstance(error, TimeoutError):
        return f"no connection within {timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    return str(getattr(error, "strerror", None) or error)


def _http_error(status: int, headers: Mapping[str, str], body: bytes) -> ServerError:
    try:
        record: Json = json.loads(body)
        told: dict[str, Any] = record if isinstance(record, dict) else {}
        reason = next((told[key] for key in ("error", "detail", "message") if key in told), "")  # MLflow's is the last
    except (ValueError, RecursionError):
        reason = body[:200].decode("utf-8", "replace")
    if 300 <= status < 400:
        reason = f"moved to {headers.get('location', 'nowhere')}"
    message = f"HTTP {status}: {str(reason)[:300]}" if reason else f"HTTP {status}"
    wait = headers.get("retry-after", "")
    return ServerError(message, status, wait=float(wait) if wait.isascii() and wait.isdecimal() else 0.5)


def _parsed(body: bytes) -> Json:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ServerError(f"what came is not JSON: {body[:60].decode('utf-8', 'replace')!r}") from None


def _strings(items: Json) -> tuple[str, ...]:
    return tuple(map(str, items)) if isinstance(items, list) else ()


def _tensor_infos(rows: Any) -> tuple[TensorInfo, ...]:
    try:
        return tuple(
            TensorInfo(str(row["name"]), str(row["datatype"]), tuple(map(int, row["shape"]))) for row in rows or ()
        )
    except (KeyError, OverflowError, TypeError, ValueError):
        raise ServerError(f"its metadata does not follow the protocol: {str(rows)[:120]}") from None


def _decode(headers: Mapping[str, str], body: bytes) -> Response:
    record, outputs = decode_tensors(headers, body, "outputs")
    return Response(outputs, str(record.get("model_version") or ""), str(record.get("id") or ""))


def decode_tensors(headers: Mapping[str, str], body: bytes, key: str) -> tuple[dict[str, Any], dict[str, OutputTensor]]:
    """The JSON of a request or an answer, and its tensors by name; ``key`` is "inputs" or "outputs".

    Header names are in lower case. Raises ServerError.
    """
    length = headers.get(_HEADER_LENGTH.lower(), str(len(body)))
    if not (length.isascii() and length.isdecimal() and len(length) <= 15 and int(length) <= len(body)):
        raise ServerError(f"{_HEADER_LENGTH} is {length[:40]!r}, and {len(body)} bytes came")
    record, rest = _parsed(body[: int(length)]), memoryview(body)[int(length) :]
    if not isinstance(record, dict) or not isinstance(record.get(key), list):
        raise ServerError(f"{'an answer' if key == 'outputs' else 'a request'} without '{key}'")
    tensors: dict[str, OutputTensor] = {}
    row: Json
    for row in record[key]:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise ServerError(f"an {key[:-1]} without a name")
        name, data = row["name"], row.get("data")
        parameters: Json = row.get("parameters")
        size: Json = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(rest):
                raise ServerError(f"'{name}' claims {str(size)[:40]} bytes, and {len(rest)} are left")
            data, rest = rest[:size], rest[size:]
        tensors[name] = OutputTensor.decode(name, str(row.get("datatype")), row.get("shape"), data)
    return record, tensors
