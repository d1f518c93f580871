"""What a monitor or a shadow found, over HTTP: /metrics for Prometheus, /ready and /health for probes."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Protocol

from runtime.errors import OutputError
from runtime.prometheus import CONTENT_TYPE

_TEXT = "text/plain; charset=utf-8"
_SECONDS = 10.0
"""That a client may take to send its request, or to read the answer."""


class Shown(Protocol):
    """What an endpoint shows."""

    @property
    def state(self) -> tuple[bool, str]:
        """Whether it is ready, and in words why or why not."""
        ...

    def metrics(self) -> str:
        """Counters in Prometheus' text format."""
        ...


@contextmanager
def endpoint(monitor: Shown, host: str, port: int) -> Generator[str]:
    """The URL of ``monitor``'s endpoint, which answers while the block runs; port 0 takes a free one.

    Raises OutputError: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = type("_Server", (_Server,), {"address_family": family})((host, port), _handler(monitor))
    except (OSError, OverflowError) as error:
        hint = "give another address or port with --metrics"
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{host}:{port} cannot be listened on: {reason}. What to do: {hint}") from None
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes is nothing to report."""


def _handler(monitor: Shown) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS
        server_version, sys_version = "mlpx", ""

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Probes come every few seconds."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/health":
                self._answer(200, "alive\n")
            elif path == "/ready":
                is_ready, words = monitor.state
                self._answer(200 if is_ready else 503, f"{words}\n")
            elif path == "/metrics":
                self._answer(200, monitor.metrics(), CONTENT_TYPE)
            else:
                self._answer(404, "there are /metrics, /ready and /health\n")

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, status: int, text: str, content_type: str = _TEXT) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler
