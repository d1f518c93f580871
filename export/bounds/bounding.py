"""The bounds of a file over a box of inputs, step by step, and all that a report says of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.evaluation import threads_for
from export.proof.layer import Layer
from export.proof.rules.arithmetic import magnitude, roundings
from export.proof.rules.common import size
from export.proof.rules.constants import U
from export.proof.structure import Structure
from runtime import Port
from runtime.model.port import threshold

from .boxes import Box
from .enclosing import Enclosed, Network, NoBoundError, enclose
from .errors import OutputErrors, output_errors
from .report import BoundReport, LabelRecord, LayerShare, OutputBound, StepRecord
from .searching import Evaluation, eager, largest_errors, outputs
from .splitting import Parts, flat, split
from .substitution import tightening

SECONDS = 2.0
"""The default budget."""
_PRODUCTS_PER_SECOND = 2.0**33
"""About, of a matrix product in float64 on one core; it decides what is worth trying."""
_LEAST = 0.25
"""Seconds that are worth taking for narrower enclosures, whatever the budget is."""
_MARGIN = 1 + 2.0**-30


@dataclass
class _Steps:
    """The steps so far, with the bound of each output (values,) after the last."""

    start: float
    records: list[StepRecord] = field(default_factory=list[StepRecord])
    best: Tensor | None = None
    _last: float = 0.0

    def add(self, name: str, words: str, bound: Tensor) -> None:
        """A step that gives these bounds; smaller ones that are known stay."""
        self.best = bound if self.best is None else torch.minimum(self.best, bound)
        now = perf_counter() - self.start
        record = StepRecord(name=name, words=words, bound=float(self.best.max()), seconds=round(now - self._last, 3))
        self.records.append(record)
        self._last = now


@dataclass(frozen=True)
class Bounding:
    """What is to be bounded: the file of a structure whose operators were all matched, over a box of its inputs.

    ``evaluations`` run the file in float32, for the errors that are seen; PyTorch's own is added. ``data`` are rows of
    all inputs, for a classifier, whose output ``scored`` has labels.
    """

    structure: Structure
    box: Box
    file: str
    sha256: str
    seconds: float = SECONDS
    scored: Port | None = None
    evaluations: Sequence[Evaluation] = ()
    data: np.ndarray | None = None

    def report(self) -> BoundReport:
        """The bounds. Where there are none the report says why."""
        start = perf_counter()
        rows = {**self.box.shapes, **self.structure.wiring.outputs}
        shapes = {name: list(row) for name, row in rows.items()}
        empty = BoundReport(file=self.file, sha256=self.sha256, box=self.box.record(), shapes=shapes, outputs={})
        try:
            network = Network.of(self.structure)
            with threads_for(sum(layer.parameters for layer in network.layers)):
                found = self._found(network, start)
        except NoBoundError as reason:
            found = {"why": str(reason)}
        return empty.model_copy(update={**found, "seconds": round(perf_counter() - start, 3)})

    def _found(self, network: Network, start: float) -> dict[str, Any]:
        """What is found, by the report's keys. Raises NoBoundError."""
        steps, spans = _Steps(start), self.box.spans()
        work = _PRODUCTS_PER_SECOND * max(self.seconds, _LEAST) / 4
        with suppress(NoBoundError):  # narrower enclosures may have a bound
            carried = output_errors(enclose(network, spans), most=0).carried
            steps.add("intervals", "each layer's error carried by intervals", carried.amax(dim=0))
        enclosed = enclose(network, spans, tightening(work))
        errors = output_errors(enclosed, 4 * work)
        steps.add("enclosures", "the same with enclosures by linear forms", errors.carried.amax(dim=0))
        if errors.weights:
            words = "each layer's roundings times their effect on outputs"
            steps.add("sensitivities", words, errors.sensitivities.amax(dim=0))
            steps.add("at once", "the roundings of all layers on the same row", errors.at_once.amax(dim=0))
        parts = Parts.of(*flat(spans), enclosed, errors)
        corner = errors.corner[int(errors.bound.amax(dim=1).argmax())].numpy()
        seen = largest_errors(network, self.box, corner, [eager(network), *self.evaluations], work, self._rows)
        whole = len(parts.low)
        parts = split(network, parts, work, start + self.seconds)
        if len(parts.low) > whole:
            steps.add("splitting", f"the box in {len(parts.low):,} parts", parts.largest())
        assert steps.best is not None
        best = steps.best * _MARGIN
        return {
            "outputs": _outputs(network, best, seen, parts, _folding(network, enclosed, errors)),
            "steps": steps.records,
            "layers": _shares(network, errors, int(errors.sensitivities.amax(dim=0).argmax())),
            "boxes": len(parts.low),
            "labels": self._labels(network, best.numpy()),
        }

    @property
    def _rows(self) -> np.ndarray | None:
        """The rows of data in the box."""
        return None if self.data is None else self.data[self.box.holds(self.data)]

    def _labels(self, network: Network, bound: np.ndarray) -> LabelRecord | None:
        """The margin of a classifier's one output: the largest value is the label, or of one value its side.

        None for any other network.
        """
        port, several = self.scored, len(network.structure.wiring.outputs) > 1
        if port is None or port.labels is None or several or len(bound) not in (1, len(port.labels)):
            return None
        alone = len(bound) == 1
        margin = float(bound[0]) if alone else float(np.sort(bound)[-2:].sum())
        if (inside := self._rows) is None:
            return LabelRecord(margin=margin)
        exact = np.sort(outputs(network, inside, torch.float64), axis=1) if len(inside) else np.zeros((0, len(bound)))
        margins = np.abs(exact[:, 0] - threshold(port)) if alone else exact[:, -1] - exact[:, -2]
        return LabelRecord(margin=margin, rows=len(inside), above=int((margins > margin).sum()))


def _outputs(
    network: Network, best: Tensor, seen: np.ndarray, parts: Parts, folding: Tensor | None
) -> dict[str, OutputBound]:
    """The record of each output."""
    found: dict[str, OutputBound] = {}
    intervals = torch.stack([parts.lowest.amin(dim=0), parts.highest.amax(dim=0)], dim=1).numpy()
    start = 0
    for name, row in network.structure.wiring.outputs.items():
        places = slice(start, start + prod(row))
        found[name] = OutputBound(
            bound=best[places].numpy().tolist(),
            seen=seen[places].tolist(),
            interval=intervals[places].tolist(),
            folding=None if folding is None else folding[places].numpy().tolist(),
        )
        start += prod(row)
    return found


def _shares(network: Network, errors: OutputErrors, value: int) -> list[LayerShare]:
    """What each layer adds to the bound of one output value."""
    shares = {name: float(part[:, value].max()) for name, part in errors.shares.items()}
    return [
        LayerShare(path=layer.path, op=layer.op, error=shares[layer.output])
        for layer in network.structure.layers
        if shares.get(layer.output, 0.0) > 0
    ]


def _folding(network: Network, enclosed: Enclosed, errors: OutputErrors) -> Tensor | None:
    """How far folded layers are from the module's, at the outputs (values,); None where nothing is folded.

    And where the effect of layers on outputs is not known.
    """
    folded = [layer for layer in network.structure.layers if len(layer.source_nodes) > 1]
    if not folded or not errors.weights:
        return None
    total = torch.zeros_like(errors.carried)
    for layer in folded:
        if layer.output in errors.weights:
            moved = _rounded_constants(layer, enclosed.inputs(layer)[0].largest)
            total += (errors.weights[layer.output] * moved.reshape(len(moved), 1, -1)).sum(dim=-1)
    return total.amax(dim=0) * _MARGIN


def _rounded_constants(layer: Layer, largest: Tensor) -> Tensor:
    """How far a folded map is from the chain that it was composed of in float64, as ``merged`` derives it."""
    chain, terms = size(largest), magnitude(layer.expected, largest)
    for node in layer.source_nodes:
        chain = magnitude(node, chain)
    c = sum(roundings(node) + 4 for node in layer.source_nodes)
    return U * (1 + 2.0**-20) * terms + c * 2.0**-53 * chain
