"""A proxy before a server, which fails where a test wants it to."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FailingProxy:
    """Requests whose method and path hold ``fails`` get a 500; with ``ends`` nothing answers from then on."""

    def __init__(self, server: str):
        self.server, self.fails, self.ends = server, "no request", False
        self.failed = False
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.failed and proxy.ends:
                    self.close_connection = True
                    return
                if proxy.fails in f"{self.command} {self.path}":
                    proxy.failed = True
                    self._answer(500, b"planted", "text/plain")
                    return
                kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                request = urllib.request.Request(proxy.server + self.path, body or None, kept, method=self.command)
                try:
                    with urllib.request.urlopen(request, timeout=30) as response:
                        self._answer(response.status, response.read(), response.headers["Content-Type"])
                except urllib.error.HTTPError as error:
                    with error:
                        self._answer(error.code, error.read(), error.headers["Content-Type"])

            def _answer(self, status: int, body: bytes, kind: str | None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind or "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._http.server_port}"

    def plant(self, fails: str, *, ends: bool = False) -> None:
        """From now on, this fails."""
        self.fails, self.ends, self.failed = fails, ends, False


@contextmanager
def failing_proxy(server: str) -> Iterator[FailingProxy]:
    """A proxy before ``server``, until the block ends."""
    proxy = FailingProxy(server)
    thread = threading.Thread(target=proxy._http.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy._http.shutdown()
        proxy._http.server_close()
        thread.join()
