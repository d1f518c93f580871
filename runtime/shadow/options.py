"""The options of a shadow: the two servers, what is mirrored, and how much of it may wait."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runtime.errors import InputError
from runtime.live.connection import Address, parse_url
from runtime.model.bound import Bound
from runtime.model.certificate import read_certificate

_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer/?")
_ANY = "any"
"""Stands for the model where a URL names a server only."""


@dataclass(frozen=True)
class Side:
    """A server, or one model of it, and what is said of its bound."""

    address: Address
    model: str | None
    """None: every model of the server."""
    bound: Bound | float | None = None
    """Of a certificate, or a number that holds for every input; None: ask the server."""

    def __str__(self) -> str:
        return str(self.address) if self.model else str(self.address).removesuffix(f"/v2/models/{_ANY}")

    def asked(self, target: str) -> tuple[str, str | None] | None:
        """The model and the version that an inference request to this path asks; None: it is none, or another's."""
        match = _INFER.fullmatch(target.partition("?")[0].removeprefix(self.address.prefix))
        if match is None:
            return None
        model, version = unquote(match[1]), None if match[2] is None else unquote(match[2])
        return None if self.model not in (None, model) else (model, version)

    def model_path(self, model: str, version: str | None) -> str:
        """Where a model is asked that the client asked by this name and version."""
        if self.model is None:
            return replace(self.address, model=model).model_path(version)
        return self.address.model_path(self.address.version)


def parse_side(url: str, *, certificate: Path | None = None, bound: float | None = None) -> Side:
    """A side by its URL: ``http://host:8000`` or ``http://host:8000/v2/models/NAME[/versions/V]``, https too.

    Raises InputError: another URL, a certificate that cannot be used, or a bound of several models at once.
    """
    parts = urlsplit(url)
    if parts.scheme in ("grpc", "grpcs"):
        hint = "give the server's REST port, as http://host:8000"
        raise InputError(f"the URL {url!r}: requests over gRPC are not mirrored. What to do: {hint}")
    whole = parts.path in ("", "/") and not parts.query and not parts.fragment
    address = parse_url(f"{url.rstrip('/')}/v2/models/{_ANY}" if whole else url)
    if whole and (certificate is not None or bound is not None):
        hint = f"give its URL, {url.rstrip('/')}/v2/models/NAME"
        raise InputError(f"{url} is a server, and a bound is that of one model. What to do: {hint}")
    if certificate is not None and bound is not None:
        raise InputError("both a certificate and a number are given as the bound. What to do: give one of them")
    if bound is not None and not 0 <= bound < float("inf"):
        raise InputError(f"the bound {bound:g} is no size of an error. What to do: give a number of 0 or more")
    known = bound if certificate is None else _certified(certificate)
    return Side(address, None if whole else address.model, known)


def _certified(path: Path) -> Bound:
    certificate = read_certificate(path)
    if not certificate.proved or certificate.bound is None or certificate.bound.largest is None:
        why = certificate.why if not certificate.proved else "it has no bound for every input of a box"
        hint = "make one with ranges of the inputs (mlpx bound), or give a number instead"
        raise InputError(f"{path}: {why}. What to do: {hint}")
    return certificate.bound


@dataclass(frozen=True)
class Options:
    """How to shadow; sizes in bytes, times in seconds."""

    old: Side
    new: Side
    host: str = "127.0.0.1"
    port: int = 8010
    """0: any free port."""
    share: float = 1.0
    """Of the inference requests, at random, that are mirrored."""
    parallel: int = 4
    """Requests that the new server has at once, at most."""
    queue: int = 1000
    """Requests that may wait for the new server; further ones are not mirrored."""
    queue_bytes: int = 256 * 2**20
    """Their bytes, with the old answers."""
    max_body: int = 64 * 2**20
    """A larger request or answer is passed on, and not mirrored."""
    timeout: float = 10.0
    """For an answer of the new server."""
    grace: float = 30.0
    """For requests in progress when the proxy stops."""
    token: str | None = None
    """The bearer token that the new server gets, and the old one where its metadata are asked for."""
    ca_file: Path | None = None
    """The authority of both servers' certificates, PEM; None: the system's."""
    metrics: tuple[str, int] | None = None
    """Host and port of /metrics."""
