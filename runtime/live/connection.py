"""Where a model is, by its URL of the Open Inference Protocol (V2) or of MLflow, and what a client needs to connect."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from runtime.errors import InputError

_PATH = re.compile(
    r"(?P<prefix>.*?)/(?:v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/infer|/ready)?|invocations)/?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": None, "grpcs": None}


@dataclass(frozen=True)
class Address:
    """A model at a server, and its version if the URL names one."""

    scheme: str
    """"http", "https", "grpc" or "grpcs"."""
    host: str
    port: int
    prefix: str
    """The path before /v2 or /invocations; usually "", and always for gRPC."""
    model: str
    """"" for MLflow, whose servers have one model without a name."""
    version: str | None

    @property
    def grpc(self) -> bool:
        """Whether it speaks gRPC; otherwise REST."""
        return self.scheme.startswith("grpc")

    @property
    def mlflow(self) -> bool:
        """Whether it is ``/invocations`` of MLflow, and no path of the V2 protocol."""
        return not self.model

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS and checks the server's certificate."""
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        """``host:port``; an IPv6 address is in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def server_path(self) -> str:
        """The path of the server's own metadata, over REST."""
        return f"{self.prefix}/v2"

    def model_path(self, version: str | None) -> str:
        """The path of a version of the model; of the model itself for None."""
        path = f"{self.server_path}/models/{quote(self.model, safe='')}"
        return path if version is None else f"{path}/versions/{quote(version, safe='')}"

    def __str__(self) -> str:
        path = f"{self.prefix}/invocations" if self.mlflow else self.model_path(self.version)
        return f"{self.scheme}://{self.authority}{path}"


@dataclass(frozen=True)
class Connection:
    """All that a client needs to connect."""

    address: Address
    timeout: float
    """Seconds that a request may take."""
    token: str | None
    ca_file: Path | None
    max_response: int
    """Bytes."""

    def ca_certificates(self) -> bytes | None:
        """The content of the CA file; None without one. Raises InputError: it cannot be read."""
        try:
            return None if self.ca_file is None else self.ca_file.read_bytes()
        except OSError as error:
            raise self.ca_error(f"cannot be read: {error.strerror}") from None

    def ca_error(self, reason: str) -> InputError:
        """The error for a CA file that cannot be used."""
        hint = "name the PEM file of the authority that signed the server's certificate"
        return InputError(f"{self.ca_file}: {reason}. What to do: {hint}")


def parse_url(url: str) -> Address:
    """The parts of a URL such as ``http://host:8000/v2/models/NAME`` or ``grpc://host:8001/v2/models/NAME/versions/2``.

    ``http://host:5000/invocations`` is that of ``mlflow models serve``.

    Raises InputError: any other form, with what is expected.
    """

    def invalid(reason: str) -> InputError:
        without_password = re.sub(r"//[^/@]*@", "//…@", url)
        example = "http://host:8000/v2/models/NAME or grpc://host:8001/v2/models/NAME"
        hint = f"give one like {example}, optionally followed by /versions/V, or MLflow's http://host:5000/invocations"
        return InputError(f"the URL {without_password!r}: {reason}. What to do: {hint}")

    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise invalid(str(error)) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise invalid(f"expected http, https, grpc or grpcs before '://', got {parts.scheme or 'nothing'!r}")
    if parts.username is not None or parts.password is not None:
        raise invalid("it must not hold a user name or password; a token is read from the variable MLPX_TOKEN")
    if not host or re.search(r"[\s\x00-\x1f]", host):
        raise invalid("it names no host")
    if parts.query or parts.fragment:
        raise invalid("expected nothing after '?' or '#'")
    port = port if port is not None else _DEFAULT_PORTS[parts.scheme]
    if not port:
        raise invalid("it needs a port: gRPC has no default port (Triton uses 8001)")
    match = _PATH.fullmatch(parts.path)
    if match is None or (match["model"] is None and parts.scheme.startswith("grpc")):
        raise invalid(f"expected the path /v2/models/NAME, got {parts.path or '/'!r}")
    if parts.scheme.startswith("grpc") and match["prefix"]:
        raise invalid(f"gRPC has no paths, so nothing may come before /v2: {match['prefix']!r}")
    if re.search(r"[^!-~]", match["prefix"]):
        raise invalid("its path holds characters that a URL cannot have")
    version = None if match["version"] is None else unquote(match["version"])
    return Address(parts.scheme, host, port, match["prefix"], unquote(match["model"] or ""), version)
