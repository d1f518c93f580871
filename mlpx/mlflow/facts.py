"""What a certificate says, as metrics and tags that MLflow can sort and search by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from runtime import Certificate
from runtime.model.bound import format_bound

_NOT_IN_NAMES = re.compile(r"[^\w.\-/: ]", re.ASCII)
"""What a name of MLflow may not hold."""


def metrics_of(certificate: Certificate) -> dict[str, float]:
    """The verdict (1 for proved) and the figures of the proof; what is not known is left out.

    ``mlpx.largest_difference`` is that of the file from exact arithmetic on the rows of the proof, and
    ``mlpx.bound_of_rows`` the largest bound of any row in the certificate. ``mlpx.bound`` holds for every input of the
    declared ranges; ``mlpx.bound.OUTPUT`` is that of one output, ``mlpx.margin`` that of a classifier's labels.
    """
    answers, bound = certificate.answers, certificate.bound
    found: dict[str, float | None] = {
        "mlpx.proved": float(certificate.proved),
        "mlpx.largest_difference": certificate.largest,
        "mlpx.bound_of_rows": None if answers is None else _largest(answers.bound),
        "mlpx.bound": None if bound is None else bound.largest,
        "mlpx.margin": None if bound is None else bound.margin,
    }
    if bound is not None:
        found |= {_name(f"mlpx.bound.{name}"): max(output.bound) for name, output in bound.outputs.items()}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def tags_of(certificate: Certificate) -> dict[str, str]:
    """The verdict, what was proved where and when, and the words of the bound."""
    found = {
        "mlpx.verdict": certificate.verdict,
        "mlpx.why": certificate.why,
        "mlpx.sha256": certificate.sha256,
        "mlpx.certificate_sha256": certificate.digest,
        "mlpx.weights_sha256": certificate.weights_sha256,
        "mlpx.proved_on": certificate.device,
        "mlpx.proved_at": certificate.made,
        "mlpx.version": certificate.mlpx_version,
        "mlpx.bound": "" if certificate.bound is None else format_bound(certificate.bound),
    }
    return {name: value for name, value in found.items() if value}


def _largest(bounds: Mapping[str, np.ndarray]) -> float | None:
    return max((float(values.max()) for values in bounds.values() if values.size), default=None)


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)
