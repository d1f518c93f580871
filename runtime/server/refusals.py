"""Errors of requests, with their status over REST and over gRPC.

Refusal
 ├─ Malformed    400 INVALID_ARGUMENT    the request is malformed, or does not fit the model
 ├─ Unauthorised 401 UNAUTHENTICATED     the bearer token is missing or wrong
 ├─ Forbidden    403 PERMISSION_DENIED   forbidden by an option of the server
 ├─ Unknown      404 NOT_FOUND           no such model, version or path
 ├─ NotAllowed   405 UNIMPLEMENTED       the path has another method
 ├─ TooSlow      408 DEADLINE_EXCEEDED   the request did not arrive in time
 ├─ TooLarge     413 INVALID_ARGUMENT    more bytes or rows than the server takes
 ├─ Encoded      415 UNIMPLEMENTED       a Content-Encoding that the server does not read
 ├─ Busy         429 RESOURCE_EXHAUSTED  the queue is full; Retry-After says when to try again
 ├─ Defect       500 INTERNAL            the model failed; the log has the cause
 ├─ NotReady     503 UNAVAILABLE         not loaded yet, or shutting down
 └─ Late         504 DEADLINE_EXCEEDED   the deadline passed before the model ran
"""

from __future__ import annotations


class Refusal(Exception):
    """An error that the client gets: ``status`` over REST, ``code``, the name of a ``grpc.StatusCode``, over gRPC."""

    status: int = 500
    code: str = "INTERNAL"


class Malformed(Refusal):
    """400: the request is malformed, or does not fit the model."""

    status = 400
    code = "INVALID_ARGUMENT"


class Unauthorised(Refusal):
    """401: the bearer token is missing or wrong."""

    status = 401
    code = "UNAUTHENTICATED"


class Forbidden(Refusal):
    """403: an option of the server forbids it."""

    status = 403
    code = "PERMISSION_DENIED"


class Unknown(Refusal):
    """404: there is no such model, version or path."""

    status = 404
    code = "NOT_FOUND"


class NotAllowed(Refusal):
    """405: the path has another method."""

    status = 405
    code = "UNIMPLEMENTED"


class TooSlow(Refusal):
    """408: the request did not arrive in time."""

    status = 408
    code = "DEADLINE_EXCEEDED"


class TooLarge(Refusal):
    """413: more bytes or rows than the server takes."""

    status = 413
    code = "INVALID_ARGUMENT"


class Encoded(Refusal):
    """415: a Content-Encoding that the server does not read."""

    status = 415
    code = "UNIMPLEMENTED"


class Busy(Refusal):
    """429: the queue is full; Retry-After says when to try again."""

    status = 429
    code = "RESOURCE_EXHAUSTED"


class Defect(Refusal):
    """500: the model failed; the cause is in the log, never in the answer."""


class NotReady(Refusal):
    """503: the model is not loaded yet, or the server is shutting down."""

    status = 503
    code = "UNAVAILABLE"


class Late(Refusal):
    """504: the deadline passed before the model ran."""

    status = 504
    code = "DEADLINE_EXCEEDED"
