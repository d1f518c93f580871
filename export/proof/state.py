"""The state of a proof: what its checks look at, and what they have found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import nn

from builder import MLPSpec, PortSpec
from export.declarations import Said
from export.graph import Graph
from export.onnxfile.model import Model
from export.trace import Signature
from runtime import Port

from .inputs import Inputs
from .instrumented import LayerResults, Recording
from .layer_bounds import BINS, layer_records
from .report import AnswersRecord, CheckRecord, ConstantRecord, ElementRecord, EndToEnd, InputsRecord, Verdict
from .rules.constants import CONSTANTS
from .running import FileRunner, Opener
from .structure import Structure

Outcome = Literal["passed", "warning", "failed", "unproved", "unprovable"]
"""Failed: the file is wrong; unproved: it was not shown to be right; unprovable: nor can any later check show it."""
Result = tuple[Outcome, str]
"""With the words for it."""


@dataclass
class Proof:
    """One file against one module: what the checks look at, and what each leaves for later ones and for the report."""

    model: Model
    port: Port
    opener: Opener
    seed: int
    spec: MLPSpec | None = None
    stop_early: bool = False
    """End with the first failure."""
    recording: Recording | None = None
    said: Said = field(default_factory=dict[str, PortSpec])
    """What is said of the inputs and outputs, by the spec or beside the module."""

    caller: nn.Module = field(init=False)
    """The caller's own; ``module`` is a copy of it in float32."""
    module: nn.Module = field(init=False)
    signature: Signature = field(init=False)
    graph: Graph = field(init=False)
    data: np.ndarray | None = None
    origin: str = ""
    """Where the data comes from."""

    verdict: Verdict = "proved"
    why: str = "every check passed"
    results: list[CheckRecord] = field(default_factory=list[CheckRecord])
    names_checked: bool | None = None
    """Whether what the file declares was compared with a spec; None if it declares nothing."""
    inputs: list[Inputs] = field(default_factory=list[Inputs])
    structure: Structure = field(init=False)
    runner: FileRunner = field(init=False)
    range_ratios: dict[str, float] = field(default_factory=dict[str, float])
    """The largest error / bound over the whole range of float32, by operator."""
    runs: list[Inputs] = field(default_factory=list[Inputs])
    """The inputs, and batches of other sizes; ``shipped`` are the file's own outputs of them."""
    shipped: list[np.ndarray] = field(default_factory=list[np.ndarray])
    layers: LayerResults = field(default_factory=lambda: LayerResults(0, []))
    failures: list[ElementRecord] = field(default_factory=list[ElementRecord])
    end_to_end: EndToEnd | None = None
    answers: AnswersRecord | None = None

    def add(self, name: str, outcome: Outcome, words: str) -> bool:
        """Record a result; returns whether to go on. The first failure, else the first doubt, is the verdict."""
        passes = outcome in ("passed", "warning")
        self.results.append(CheckRecord(name=name, outcome=outcome if passes else "failed", words=words))
        if outcome == "failed" and self.verdict != "failed":
            self.verdict, self.why = "failed", words
        elif not passes and self.verdict == "proved":
            self.verdict, self.why = "not proved", words
        return not (outcome == "unprovable" or (self.stop_early and outcome == "failed"))

    def record(self) -> dict[str, Any]:
        """The parts of the report that come from the checks."""
        # A layer on a row of the network says more than one on its own over the whole range.
        failures = sorted(self.failures, key=lambda element: element.inputs == "whole range")
        inputs = [InputsRecord(kind=each.kind, words=each.words, rows=len(each.rows)) for each in self.inputs]
        if searched := self.layers.searched:
            words = f"{searched:,} rows of a search that drives error / bound up"
            inputs.append(InputsRecord(kind="search", words=words, rows=searched))
        return {
            "verdict": self.verdict,
            "why": self.why,
            "checks": self.results,
            "layers": layer_records(self.layers.checks),
            "inputs": inputs,
            "failure": failures[0] if failures else None,
            "end_to_end": self.end_to_end,
            "constants": self._constants(),
            "bins": list(BINS),
            "answers": self.answers,
            "names_checked": self.names_checked,
        }

    def _constants(self) -> list[ConstantRecord]:
        """The constants of the activations, and how much of its bound each took over the whole range."""
        nodes = [node for check in self.layers.checks for layer in check.layers for node in layer.source_nodes]
        used = {f"{n.op} tanh" if n.attributes.get("approximate") == "tanh" else n.op for n in nodes}
        records: list[ConstantRecord] = []
        for name, constants in CONSTANTS.items():
            if name in used:
                (a, r, m), share = constants.limits, self.range_ratios.get(name.partition(" ")[0])
                source = constants.source
                records.append(
                    ConstantRecord(block=name, absolute=a, relative=r, argument=m, source=source, share=share)
                )
        return records
