"""What a spec declares of the input and the output, as a file holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from builder import InputSpec, MLPSpec
from builder.spec import FeatureSpec
from runtime import Port


def declared_input(port: Port, given: InputSpec) -> Port:
    """The port with the features, units and ranges that the spec gives it, and nothing else of its own."""
    limits = (given.range[0], given.range[1]) if given.range else None
    return replace(port, range=limits, **_features(given.listed))


def declared_output(port: Port, spec: MLPSpec) -> Port:
    """The port with the labels, or the features, units and ranges, that the spec gives it."""
    labels = tuple(spec.output.labels) if spec.output.labels else None
    scores = spec.scores if labels else None
    return replace(port, labels=labels, scores=scores, **_features(spec.output.listed))


def _features(listed: Sequence[FeatureSpec] | None) -> dict[str, Any]:
    units = tuple(feature.unit for feature in listed or ())
    ranges = tuple((feature.range[0], feature.range[1]) if feature.range else None for feature in listed or ())
    return {
        "features": tuple(feature.name for feature in listed) if listed else None,
        "units": units if any(units) else None,
        "ranges": ranges if any(ranges) else None,
    }
