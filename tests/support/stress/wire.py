"""HTTP by hand, for clients that no library would be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse

from tests.support.serving import PATIENCE, read

Headers = dict[str, str]


def request(path: str, body: bytes = b"", headers: Headers | None = None, method: str = "POST") -> bytes:
    """A whole request; Content-Length is that of the body unless the headers have another."""
    given = {"Host": "loopback", "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A connection, closed at the end."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        yield connection


def answered(connection: socket.socket) -> tuple[int, bytes, Headers]:
    """The next answer of a connection: status, body, headers in lower case."""
    response = HTTPResponse(connection)
    try:
        response.begin()
        return read(response)
    finally:
        response.close()


def ended(connection: socket.socket) -> bool:
    """Whether the server closes a connection without another word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
