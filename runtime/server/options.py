"""The options of a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How to serve a folder; sizes in bytes, times in seconds."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free port."""
    grpc_port: int | None = 8001
    """None: no gRPC."""
    workers: int = 1
    """Processes that answer requests, each with its own copy of the models."""
    device: str = "auto"
    threads: int | None = None
    """Threads of one call of a model; None: as ``Session`` chooses."""
    coalesce: bool = True
    """Whether requests that wait together share a call."""
    max_batch: int = 1024
    """The most rows of a call that requests share."""
    max_rows: int = 65_536
    """The most rows of one request."""
    queue_rows: int = 131_072
    """The most rows that may wait for a model; requests beyond are refused with 429."""
    max_body: int = 16 * 2**20
    max_head: int = 16 * 2**10
    timeout: float = 30.0
    """From a request's arrival to the start of its call, unless the request asks for less."""
    read_timeout: float = 30.0
    """For a whole request to arrive, and for a client to take its answer."""
    keep_alive: float = 75.0
    connections: int = 12_000
    """The most connections of a worker; one more is answered with 503."""
    grace: float = 30.0
    """For requests in progress when the server stops."""
    poll: float | None = None
    """The time between two looks at the folder; None: only on SIGUSR1 and when a client asks."""
    verify_every: float = 60.0
    """The time between two checks of each proved model by the rows of its certificate; 0: none, not even at its start.
    """
    only_proved: bool = False
    """Whether a file without a certificate of its own bytes is refused."""
    trusted_keys: tuple[Path, ...] = ()
    """Public keys: a file without a proving certificate that is signed with one of them is refused."""
    control: bool = True
    """Whether clients may load and unload models."""
    token: str | None = None
    """The bearer token that every request except health must carry."""
    certificate: Path | None = None
    """For TLS, PEM."""
    key: Path | None = None
    otel: bool = False
    """Whether requests are traced by OpenTelemetry."""
    uds: Path | None = None
    """A Unix socket for REST; that for gRPC is beside it, with ``.grpc`` behind its name."""
    shared_memory: bool = False
    """Whether clients may register shared memory of this machine."""
    log_requests: bool = False
    """Whether every request is logged, or only those that fail."""
