"""Where a model is: the URL of the Open Inference Protocol (V2), over REST or gRPC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from runtime.errors import InputError

_PATH = re.compile(r"(?P<prefix>.*?)/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/infer|/ready)?/?")
_PORTS = {"http": 80, "https": 443, "grpc": None, "grpcs": None}


@dataclass(frozen=True)
class Address:
    """A model of a server, and its version if the URL names one."""

    scheme: str
    """"http", "https", "grpc" or "grpcs"."""
    host: str
    port: int
    prefix: str
    """Of the path, before /v2; "" as a rule, and always for gRPC."""
    model: str
    version: str | None

    @property
    def grpc(self) -> bool:
        """Whether it is asked over gRPC; over REST otherwise."""
        return self.scheme.startswith("grpc")

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS, the server's certificate checked."""
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def path(self, version: str | None, model: bool = True) -> str:
        """The path of the model or of a version of it; without ``model``, of the server's own metadata."""
        found = f"{self.prefix}/v2"
        if model:
            found += f"/models/{quote(self.model, safe='')}"
        return found if version is None else f"{found}/versions/{quote(version, safe='')}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path(self.version)}"


def address_of(url: str) -> Address:
    """The parts of a URL such as ``http://host:8000/v2/models/NAME`` or ``grpc://host:8001/v2/models/NAME/versions/2``.

    Raises InputError: anything else, with what is expected.
    """

    def wrong(why: str) -> InputError:
        like = "http://host:8000/v2/models/NAME or grpc://host:8001/v2/models/NAME, with /versions/V behind it or not"
        return InputError(f"the URL {shown!r}: {why}. What to do: give one like {like}")

    shown = re.sub(r"//[^/@]*@", "//…@", url)
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise wrong(str(error)) from None
    if parts.scheme not in _PORTS:
        raise wrong(f"expected http, https, grpc or grpcs before '://', got {parts.scheme or 'nothing'!r}")
    if parts.username is not None or parts.password is not None:
        raise wrong("a name or a password does not belong into it; a token is read from the variable MLPX_TOKEN")
    if not host or re.search(r"[\s\x00-\x1f]", host):
        raise wrong("it names no host")
    if parts.query or parts.fragment:
        raise wrong("expected nothing behind '?' or '#'")
    port = port if port is not None else _PORTS[parts.scheme]
    if not port:
        raise wrong("it needs a port: gRPC has no usual one (8001 at Triton)")
    match = _PATH.fullmatch(parts.path)
    if match is None:
        raise wrong(f"expected the path /v2/models/NAME, got {parts.path or '/'!r}")
    if parts.scheme.startswith("grpc") and match["prefix"]:
        raise wrong(f"gRPC has no paths, so nothing can stand before /v2: {match['prefix']!r}")
    if re.search(r"[^!-~]", match["prefix"]):
        raise wrong("its path holds characters that a URL cannot have")
    version = None if match["version"] is None else unquote(match["version"])
    return Address(parts.scheme, host, port, match["prefix"], unquote(match["model"]), version)
