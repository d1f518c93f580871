"""Whether a server of MLflow is there, before MLflow itself tries again for minutes."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from ssl import SSLError
from urllib.parse import urlsplit

from runtime import UnreachableError

_SECONDS = 10
"""How long a server may take to answer."""


def require_server(uri: str, what: str, state: str, cause: BaseException | None = None) -> None:
    """Raise UnreachableError if nothing answers at the URI of a server; ``state`` says what is there by then.

    ``what`` it is: "tracking server" or "registry". Any answer will do, also one that is refused or whose certificate
    only MLflow's settings trust. URIs of files, of databases and of other services are not asked.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    server = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")  # without a password
    try:
        with urllib.request.urlopen(f"{server}/health", timeout=_SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        return
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, SSLError):
            return
    hint = "" if "What to do" in state else ". What to do: check MLFLOW_TRACKING_URI, and that the server runs"
    raise UnreachableError(f"the {what} {server} does not answer: {reason}; {state}{hint}") from cause
