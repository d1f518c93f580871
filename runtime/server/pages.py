"""The server's own page: the files of a small application that talks to the V2 API."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class File:
    """One of the page's files."""

    name: str
    kind: bytes

    def content(self) -> bytes:
        return _read(self.name)


@cache
def _read(name: str) -> bytes:
    return (_HERE / name).read_bytes()


_SCRIPTS = ("ports.js", "form.js", "bars.js", "page.js")
FILES = {
    "": File("page.html", b"text/html; charset=utf-8"),
    "page.css": File("page.css", b"text/css; charset=utf-8"),
    **{name: File(name, b"text/javascript; charset=utf-8") for name in _SCRIPTS},
}
"""By their path."""
