"""What explains wrong results on this device, as far as the figures allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.live.judge import Evidence, Judgement

from .precisions import HINTS
from .probes import Probed

_MOST = 0.9
"""The part of the answers that a precision must explain within float32's bound."""


def causes_of(layers: Sequence[Probed], judgement: Judgement | None) -> list[str]:
    """A reduced precision; the batches that are wrong; whether it is the products or something else."""
    wrong_layers = [probed for probed in layers if probed.wrong]
    bad = () if judgement is None else judgement.bad
    precisions = {probed.precision for probed in wrong_layers} or {_precision(evidence) for evidence in bad}
    few = all(2 * probed.wrong < probed.elements for probed in wrong_layers)
    which = ("some products" if few else "products") if wrong_layers else "values on the way to the answers"
    causes = [f"{which} are rounded to {name}: {HINTS[name.partition(',')[0]]}" for name in precisions if name]
    causes += _batches(wrong_layers, judgement)
    if wrong_layers and None in precisions:
        causes.append("this ONNX Runtime multiplies wrongly on this processor: use another release, and report it")
    elif bad and not wrong_layers and not causes:
        explained = "this ONNX Runtime computes another operator differently here"
        edited = "the certificate was edited, or its file was"
        exact = "the linear layers multiply the file's weights exactly" if layers else "no linear layer was run alone"
        causes.append(f"{exact}, so either {explained}, or {edited}")
    return causes


def _precision(evidence: Evidence) -> str | None:
    """The precision whose answers these are, and not only nearer to than to the exact ones, which may be edited."""
    name = evidence.explained_by()
    if name is None or (np.abs(evidence.from_reduced(name)) <= evidence.bound).mean() < _MOST:
        return None
    return name


def _batches(wrong_layers: Sequence[Probed], judgement: Judgement | None) -> list[str]:
    """Which batches are wrong, where others are right: by the probes, or else by the rows."""
    sizes = sorted({size for probed in wrong_layers for size in probed.batches})
    wrong = [size for size in sizes if not all(probed.batches.get(size, True) for probed in wrong_layers)]
    if wrong and len(wrong) < len(sizes):
        right = [size for size in sizes if size not in wrong]
        listed = (", ".join(map(str, numbers)) for numbers in (wrong, right))
        return ["products are wrong in batches of {} rows, and right in those of {}".format(*listed)]
    if wrong_layers or judgement is None:
        return []
    hows = dict.fromkeys(evidence.method.how for evidence in judgement.bad)
    others = dict.fromkeys(evidence.method.how for evidence in judgement.good if evidence.method.how not in hows)
    return [f"it depends on the batch: wrong {', '.join(hows)}; right {', '.join(others)}"] if hows and others else []
