"""A V2 server over HTTP, with tensors as JSON or in the binary extension."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from threading import Timer
from typing import Any

import numpy as np

from .protocol import Fault, ModelInfo, Output, Question, Reply, ServerInfo, TensorInfo
from .tensors import DTYPES, datatype_of, from_bytes, from_list, shape_of
from .url import Address

_METADATA = 2**22
"""Bytes of metadata, or of an error, that are read at most."""
_LENGTH = "Inference-Header-Content-Length"


class RestClient:
    """One connection, kept open between requests; a request that takes ``timeout`` seconds in all is given up."""

    def __init__(self, address: Address, timeout: float, token: str | None, context: ssl.SSLContext | None):
        self._address, self._timeout = address, timeout
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http: HTTPConnection = (
            HTTPConnection(address.host, address.port, timeout=timeout)
            if context is None
            else HTTPSConnection(address.host, address.port, timeout=timeout, context=context)
        )

    def server(self) -> ServerInfo:
        found = self._object(*self._ask("GET", self._address.path(None, model=False)))
        extensions = found.get("extensions")
        names = tuple(str(name) for name in extensions) if isinstance(extensions, list) else ()
        return ServerInfo(str(found.get("name") or ""), str(found.get("version") or ""), names)

    def model(self, version: str | None) -> ModelInfo:
        found = self._object(*self._ask("GET", self._address.path(version)))
        versions, parameters = found.get("versions"), found.get("parameters")
        sha256 = parameters.get("sha256") if isinstance(parameters, dict) else None
        return ModelInfo(
            tuple(str(name) for name in versions) if isinstance(versions, list) else (),
            str(found.get("platform") or ""),
            _infos(found.get("inputs")),
            _infos(found.get("outputs")),
            sha256 if isinstance(sha256, str) else None,
        )

    def models(self) -> list[str]:
        path = f"{self._address.path(None, model=False)}/repository/index"
        _, _, body = self._ask("POST", path, b"{}", {"Content-Type": "application/json"})
        found = _parsed(body)
        return (
            [str(row["name"]) for row in found if isinstance(row, dict) and "name" in row]
            if isinstance(found, list)
            else []
        )

    def infer(self, question: Question) -> Reply:
        tensors, parts = [], []
        for name, rows in question.inputs.items():
            tensor: dict[str, Any] = {"name": name, "shape": list(rows.shape), "datatype": (kind := datatype_of(rows))}
            if question.binary:
                parts.append(np.ascontiguousarray(rows, DTYPES[kind]).tobytes())
                tensor["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                tensor["data"] = rows.ravel().tolist()
            tensors.append(tensor)
        said: dict[str, Any] = {"id": question.request, "inputs": tensors}
        headers = {"Content-Type": "application/json"}
        if question.binary:
            said["parameters"] = {"binary_data_output": True}
        header = json.dumps(said).encode()
        if question.binary:
            headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(header))}
        path = f"{self._address.path(question.version)}/infer"
        return _reply(*self._ask("POST", path, b"".join([header, *parts]), headers, question.most))

    def close(self) -> None:
        self._http.close()

    def _object(self, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        found = _parsed(body)
        if not isinstance(found, dict):
            raise Fault("a JSON object was expected", status)
        return found

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        most: int = _METADATA,
    ) -> tuple[int, Mapping[str, str], bytes]:
        reused = self._http.sock is not None
        try:
            status, found, data = self._once(method, path, body, headers or {}, most)
        except (RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if not reused:  # else the server closed an idle connection, which it may
                hint = "" if self._address.encrypted else "perhaps it speaks TLS: give https://"
                raise Fault(f"it closed the connection without an answer ({error})", where="way", hint=hint) from None
            try:
                status, found, data = self._once(method, path, body, headers or {}, most)
            except (RemoteDisconnected, BrokenPipeError, ConnectionResetError) as again:
                self.close()
                raise Fault(f"it closed the connection without an answer ({again})") from None
        if status != 200:
            wait = found.get("retry-after", "")
            seconds = float(wait) if wait.isascii() and wait.isdecimal() else 0.5
            raise Fault(_said(status, found, data), status, wait=seconds)
        return status, found, data

    def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], most: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        http, late = self._http, []
        try:
            if http.sock is None:
                http.connect()
        except (OSError, UnicodeError) as error:
            self.close()
            hint = "name its authority's certificate with --ca-file" if isinstance(error, _UNTRUSTED) else ""
            raise Fault(_unreachable(error, self._timeout), where="way", hint=hint) from None
        held: socket.socket = http.sock  # type: ignore[assignment]

        def give_up() -> None:
            late.append(True)
            with contextlib.suppress(OSError):
                socket.socket.shutdown(held, socket.SHUT_RDWR)  # wakes whoever reads; of TLS too

        timer = Timer(self._timeout, give_up)  # a socket's own timeout starts anew with every byte
        timer.daemon = True
        timer.start()
        try:
            http.request(method, path, body, {**self._headers, **headers})
            response = http.getresponse()
            data = response.read(most + 1)
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            if late or isinstance(error, TimeoutError):
                raise self._late() from None
            if isinstance(error, RemoteDisconnected | BrokenPipeError | ConnectionResetError):
                raise
            words = f"what came is not HTTP ({str(error) or type(error).__name__}); as from a port of gRPC, which is grpc://"
            raise Fault(words, where="way") from None
        finally:
            timer.cancel()
        if late:  # the body may have ended early and without a word
            self.close()
            raise self._late()
        if len(data) > most:
            self.close()
            raise Fault(f"an answer of more than {most:,} bytes")
        if response.will_close:
            self.close()
        return response.status, {name.lower(): value for name, value in response.headers.items()}, data

    def _late(self) -> Fault:
        return Fault(f"no whole answer within {self._timeout:g} s", 504)


_UNTRUSTED = ssl.SSLCertVerificationError


def _unreachable(error: Exception, timeout: float) -> str:
    if isinstance(error, _UNTRUSTED):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS ({error.reason or error}), as if it were http://"
    if isinstance(error, TimeoutError):
        return f"no connection within {timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    return str(getattr(error, "strerror", None) or error)


def _said(status: int, headers: Mapping[str, str], body: bytes) -> str:
    try:
        found = json.loads(body)
        words = found.get("error", found.get("detail", "")) if isinstance(found, dict) else ""
    except (ValueError, RecursionError):
        words = body[:200].decode("utf-8", "replace")
    if 300 <= status < 400:
        words = f"moved to {headers.get('location', 'nowhere')}"
    return f"HTTP {status}: {_line(str(words))}" if words else f"HTTP {status}"


def _line(words: str) -> str:
    """A server's words, in a line that cannot upset a terminal."""
    return "".join(c if c.isprintable() else " " for c in words)[:300].strip()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Fault(f"what came is not JSON: {_line(body[:60].decode('utf-8', 'replace'))!r}") from None


def _infos(found: Any) -> tuple[TensorInfo, ...]:
    """What metadata says of inputs or outputs. Raises Fault: it is not what the protocol has there."""
    if not found:
        return ()
    try:
        return tuple(
            TensorInfo(str(row["name"]), str(row["datatype"]), tuple(int(size) for size in row["shape"]))
            for row in found
        )
    except (KeyError, OverflowError, TypeError, ValueError):
        raise Fault(f"its metadata is not of the protocol: {_line(str(found))[:120]}") from None


def _reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    length = headers.get(_LENGTH.lower())
    plain = length is None or (length.isascii() and length.isdecimal() and len(length) <= 15)
    if length is not None and not (plain and int(length) <= len(body)):
        raise Fault(f"{_LENGTH} is {_line(length)[:40]!r}, and {len(body)} bytes came")
    end = len(body) if length is None else int(length)
    said, rest = _parsed(body[:end]), memoryview(body)[end:]
    if not isinstance(said, dict) or not isinstance(said.get("outputs"), list):
        raise Fault("an answer without 'outputs'")
    outputs: dict[str, Output] = {}
    for row in said["outputs"]:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise Fault("an output without a name")
        name, datatype = row["name"], str(row.get("datatype"))
        shape = shape_of(row.get("shape"), name)
        parameters = row.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            outputs[name] = from_list(name, datatype, shape, row.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise Fault(f"'{name}' claims {str(size)[:40]} bytes, and {len(rest)} are left")
        outputs[name], rest = from_bytes(name, datatype, shape, rest[:size]), rest[size:]
    return Reply(outputs, str(said.get("model_version") or ""), str(said.get("id") or ""))
