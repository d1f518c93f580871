"""Why a request is not answered with tensors, as REST and gRPC say it.

Refusal
 ├─ Malformed    400 INVALID_ARGUMENT    the request is not one, or does not fit the model
 ├─ Unauthorised 401 UNAUTHENTICATED     the bearer token is missing or another
 ├─ Forbidden    403 PERMISSION_DENIED   what the server was told not to do
 ├─ Unknown      404 NOT_FOUND           no such model, version or path
 ├─ NotAllowed   405 UNIMPLEMENTED       the path takes another method
 ├─ TooSlow      408 DEADLINE_EXCEEDED   the request did not arrive in time
 ├─ TooLarge     413 INVALID_ARGUMENT    more bytes or rows than the server takes
 ├─ Encoded      415 UNIMPLEMENTED       a Content-Encoding that it does not read
 ├─ Busy         429 RESOURCE_EXHAUSTED  the queue is full; Retry-After says when to come again
 ├─ Defect       500 INTERNAL            the model failed; the log has the cause
 ├─ NotReady     503 UNAVAILABLE         not loaded yet, or shutting down
 └─ Late         504 DEADLINE_EXCEEDED   the deadline passed before the model ran
"""

from __future__ import annotations


class Refusal(Exception):
    """An answer that is an error: ``status`` over REST, the name of a ``grpc.StatusCode`` over gRPC."""

    status = 500
    code = "INTERNAL"


class Malformed(Refusal):
    status, code = 400, "INVALID_ARGUMENT"


class Unauthorised(Refusal):
    status, code = 401, "UNAUTHENTICATED"


class Forbidden(Refusal):
    status, code = 403, "PERMISSION_DENIED"


class Unknown(Refusal):
    status, code = 404, "NOT_FOUND"


class NotAllowed(Refusal):
    status, code = 405, "UNIMPLEMENTED"


class TooSlow(Refusal):
    status, code = 408, "DEADLINE_EXCEEDED"


class TooLarge(Refusal):
    status, code = 413, "INVALID_ARGUMENT"


class Encoded(Refusal):
    status, code = 415, "UNIMPLEMENTED"


class Busy(Refusal):
    status, code = 429, "RESOURCE_EXHAUSTED"


class Defect(Refusal):
    """The cause is in the log, never in the answer."""


class NotReady(Refusal):
    status, code = 503, "UNAVAILABLE"


class Late(Refusal):
    status, code = 504, "DEADLINE_EXCEEDED"
