"""Packages whose own code runs the model: how often it checks the answers, and what a wrong one does to readiness."""

from __future__ import annotations

from export.errors import TargetError

from .target import Deployment, Target

VERIFY_EVERY = 60.0
"""Seconds: a check takes about three calls of the model, which nobody notices once a minute."""
_LONGEST = 31 * 24 * 3600
_MLSERVER = "`/v2/models/{name}/ready` and `/v2/health/ready` are 400, and requests are still answered"
MECHANISMS = {
    (
        "kserve",
        "custom",
    ): "`/v2/models/{name}/ready`, which the pod's readiness probe asks, is 503, and so are requests "
    "over REST (`/v2/health/ready` of the SDK does not depend on the model)",
    ("kserve", "mlserver"): _MLSERVER,
    ("mlserver", "onnxruntime"): _MLSERVER,
    ("ray-serve", "onnxruntime"): "`/v2/models/{name}/ready` and `/v2/health/ready` are 503, and the replica's "
    "`check_health` fails, so that Ray starts another after three failures",
    (
        "systemd",
        "onnxruntime",
    ): "`/v2/models/{name}/ready` and `/v2/health/ready` are 503, and a new file that is wrong "
    "does not replace one that is right",
    ("triton", "python"): "every request gets an error. Releases of Triton whose Python backend calls `is_ready` "
    "(2026) answer 400 at `/v2/models/{name}/ready` too; older ones cannot, and `verify/` gives the readiness. A model "
    "that is wrong at its start is not loaded",
}
"""What happens while a model is wrong, by the target and the backend."""


def verify_interval(target: Target, backend: str | None, seconds: float | None) -> float | None:
    """The interval of checks; None where another's code runs the model. Raises TargetError."""
    own = (target.name, backend) in MECHANISMS
    if seconds is None:
        return VERIFY_EVERY if own else None
    if not own:
        named = f"{target.name}, backend {backend}," if backend else target.name
        hint = "leave --verify-every out; mlpx verify --url --every checks any server (verify/ in the package)"
        raise TargetError(f"{named} runs no code of mlpx that could check the model. What to do: {hint}")
    if not 0 <= seconds <= _LONGEST:
        hint = "--verify-every 60, or 0 for no checks"
        raise TargetError(f"--verify-every is 0 to {_LONGEST:,} seconds, not {seconds:g}. What to do: {hint}")
    return seconds


def described(deployment: Deployment, target: Target) -> list[str]:
    """The section of the package's README; none where nothing is checked."""
    if not deployment.verify_every or deployment.backend is None:
        return []
    mechanism = MECHANISMS[target.name, deployment.backend].format(name=deployment.name)
    return [
        f"## Ready only when right\n\nAt its start and every {deployment.verify_every:g} s the model is asked for the "
        "rows of its certificate, by the way that requests take. While an answer is not within its proved bound, or "
        f"nearer to TF32's, bfloat16's or float16's, {mechanism}. The metric `mlpx_model_right` is 0 then, and the log "
        "says which row it is."
    ]
