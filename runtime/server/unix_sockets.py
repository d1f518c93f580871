"""Unix sockets for clients on the same machine: one for REST, and one for gRPC beside it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import OutputError

_MODE = 0o660
"""The server's user and group."""


def grpc_path(path: Path) -> Path:
    """Where the socket for gRPC is."""
    return path.with_name(f"{path.name}.grpc")


@contextmanager
def listening(path: Path) -> Generator[socket.socket]:
    """A Unix socket that listens; its file is gone afterwards. One that nobody listens on any more is replaced.

    Raises OutputError: something else is there, or it cannot be made.
    """
    hint = "What to do: give another path (--uds)"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        try:
            if path.exists():
                _remove_abandoned(path)
            bound.bind(str(path))
            path.chmod(_MODE)
            bound.listen(4096)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"cannot bind the Unix socket {path}: {reason}. {hint}") from None
        bound.set_inheritable(True)
        made = path.stat()
        try:
            yield bound
        finally:
            with suppress(OSError):
                if os.path.samestat(made, path.stat()):
                    path.unlink()


def _remove_abandoned(path: Path) -> None:
    """Raises OSError: it is no socket, or a server listens on it."""
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(None, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(None, "a server listens there")
