"""The checks of a proof, one after the other, and what each found."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from export.graph import Graph, Rows, Shape
from export.onnxfile.reading import Model
from export.trace import Signature
from runtime import InputError, ModelError, Port

from .answers import answers
from .calling import Called, apart, disagreement, same_bits, traced
from .end_to_end import measured
from .exposing import Exposing
from .findings import Findings, Stop, counted
from .grouping import LEVELS
from .inputs import USUAL, Inputs, batches, planned
from .layerwise import BINS, Element, LayerCheck, without_bound
from .own_data import looked_at
from .probes import probe_constants, probe_ranges
from .recording import Recording
from .records import constant_record, element_record, layer_records
from .report import AnswersRecord, EndToEnd, InputsRecord
from .rows import Domain, in_shape, output_shapes, row_shape, rows_of_inputs
from .rules.constants import CONSTANTS
from .running import Opener, Running, opened, outputs
from .structure import Structure, match

_MOST_EXEMPT = 0.01
"""The share of a layer's values, on one set of usual rows, that may go without a bound."""


class Examination:
    """One file against one module; ``run`` makes the checks, ``record`` says what they found."""

    def __init__(
        self, model: Model, port: Port, opener: Opener, seed: int, stop_early: bool, recording: Recording | None = None
    ):
        self.recording = recording
        self.model, self.port, self.opener, self.seed = model, port, opener, seed
        self.found = Findings(stop_early)
        self.layers: list[LayerCheck] = []
        self.ranges: dict[str, float] = {}
        self.inputs: list[Inputs] = []
        self.searched = 0
        self.failures: list[Element] = []
        self.end: EndToEnd | None = None
        self.shapes: dict[str, Shape] = {}
        self.rows_depend = False
        self.shipped: list[np.ndarray] = []
        self.answers: AnswersRecord | None = None

    def run(self, module: nn.Module, signature: Signature, graph: Graph, data: np.ndarray | None, origin: str) -> None:
        """Make every check, from the cheapest to the dearest."""
        self.signature = signature
        self._plan(graph, data, origin)
        try:
            self._examine(module, graph)
        except Stop:
            return
        except (ModelError, InputError) as error:  # the data was looked at before
            self.found.unproved("running", f"the file does not run on the module's rows: {error}")

    def _examine(self, module: nn.Module, graph: Graph) -> None:
        self._weights(graph)
        structure = self._structure(graph)
        if structure.complete:
            self._probes(structure)
        self._calls(module, structure.graph)
        if not structure.complete:
            self._only_outputs(structure)
            raise Stop
        self._layers(structure)
        self._end_to_end(module, structure)
        if self.found.verdict == "proved":
            self.answers = answers(structure, self.inputs)

    def _weights(self, graph: Graph) -> None:
        tensors = [t for node in graph.nodes if node.op != "where" for t in node.tensors.values()]
        # A computed constant may be infinite, as a mask of attention is.
        wrong = [np.isnan(t.values) if t.computed else ~np.isfinite(t.values) for t in tensors]
        bad = next((tensor for tensor, where in zip(tensors, wrong, strict=True) if where.any()), None)
        if bad is not None:
            wrong = ~np.isfinite(bad.values)
            count, size, first = int(wrong.sum()), bad.values.size, np.argwhere(wrong)[0].tolist()
            words = (
                f"the module's own '{bad.name}' is NaN or infinite in {count:,} of {size:,} values, first at {first}"
            )
            self.found.unproved("module", f"{words}; nothing can be proved of it. What to do: look at the training")
            raise Stop

    def _structure(self, graph: Graph) -> Structure:
        structure = match(graph, self.model)
        self.shapes, self.rows_depend = structure.graph.shapes, graph.rows_depend
        lost = without_bound(structure.layers)
        if structure.problem is not None:
            self.found.unproved("structure", structure.problem)
        elif lost is not None:
            self.found.unproved("structure", f"no rule bounds {lost.op} at '{lost.path}'")
            raise Stop
        else:
            operators = counted(len(self.model.nodes), "operator")
            layers = counted(len(structure.layers), "layer")
            self.found.passed("structure", f"{operators} for the {layers} of the module, no Dropout")
        differences = [difference for layer in structure.layers for difference in layer.differences]
        if differences:
            held = [layer for layer in structure.layers if layer.held.tensors]
            every = len(held) > 1 and all(layer.differences for layer in held)
            hint = "; every layer's constants differ: is it the same module, with the same weights?" if every else ""
            self.found.failed("constants", f"{differences[0]}{hint}")
        elif structure.complete:
            count = sum(layer.parameters for layer in structure.layers)
            self.found.passed(
                "constants", f"{count:,} weights and constants have the module's bits, attributes its values"
            )
        return structure

    def _plan(self, graph: Graph, data: np.ndarray | None, origin: str) -> None:
        shape = row_shape(rows_of_inputs(graph.inputs))
        other = self.port.ranges is not None and len(self.port.ranges) != prod(shape)
        port = replace(self.port, ranges=None) if other else self.port  # a file of another shape fails for that
        data = looked_at(data, origin, port, shape, self.found)
        self.inputs = planned(graph, port, data, origin, self.seed)

    def _calls(self, module: nn.Module, graph: Graph) -> None:
        if self.recording is not None and self.recording.called is not None:
            return self.found.passed("module", self.recording.called)
        problem = None
        rows = sum(len(given.rows) for given in self.inputs)
        try:
            single = Called(module, self.signature, graph, double=False)
            if all(same_bits(single, graph, given) for given in self.inputs):
                return self._called_alike(
                    f"its operators give the bits of the module as it is called, on {rows:,} rows"
                )
            for double in (True, False):
                called = Called(module, self.signature, graph, double=double)
                problem = problem or next(filter(None, (disagreement(called, graph, g) for g in self.inputs)), None)
        except Exception as error:  # the caller's code: it may raise anything
            problem = f"the module does not run: {type(error).__name__}: {error}"
        if problem is not None:
            self.found.unproved("module", f"{problem}. What to do: take Python state and randomness out of forward")
            raise Stop
        self._called_alike(f"its operators are the module as it is called, in float64 and float32, on {rows:,} rows")

    def _called_alike(self, words: str) -> None:
        self.found.passed("module", words)
        if self.recording is not None:
            self.recording.called = words

    def _only_outputs(self, structure: Structure) -> None:
        """Where the structure is another, the outputs may still show that the file is wrong."""
        with opened(self.model.path, self.opener) as running:
            for given in self.inputs:
                if given.kind == "extremes":  # where another correct program may overflow
                    continue
                found = self._output(structure, running, given.rows)
                exact = traced(structure.graph, given.rows, torch.float64)
                if found.shape != exact.shape:
                    shapes = f"rows of shape {list(found.shape[1:])}, not {list(exact.shape[1:])}"
                    return self.found.failed("outputs", f"{structure.problem}; it gives {shapes}")
                difference = apart(found, exact).reshape(len(found), -1).max(axis=1)
                row = int(np.argmax(difference))
                largest = np.abs(exact[np.isfinite(exact)]).max(initial=0.0)
                if difference[row] > 1e-2 * largest:
                    off = f"row {row} of '{given.kind}' is off by {difference[row]:.3g}"
                    off += f", where outputs reach {largest:.3g}"
                    return self.found.failed("outputs", f"{structure.problem}; and {off}")

    def _output(self, structure: Structure, running: Running, rows: np.ndarray) -> np.ndarray:
        values = outputs(self.model, structure.wiring, running, rows)
        for name, row in zip(structure.wiring.outputs, output_shapes(structure.graph).values(), strict=True):
            if self.model.recovering:
                values[name] = in_shape(values[name], len(rows), (Rows(), *row))
            if values[name].shape != (len(rows), *row):
                found = f"of shape {list(values[name].shape)} for {counted(len(rows), 'row')}"
                raise ModelError(f"its output '{name}' is {found}, and the module's has rows of shape {list(row)}")
        return structure.wiring.output(values)

    def _probes(self, structure: Structure) -> None:
        probed = probe_constants(self.model, structure.layers, self.opener, self.seed)
        if probed.mismatches:
            first = probed.mismatches[0]
            words = (
                f"'{first.path}' at {first.probe}: output {first.output} is {first.found!r} and must be {first.exact!r}"
            )
            rest = f"{sum(m.count for m in probed.mismatches):,} mismatches"
            self.found.failed(
                "exact probes", f"{words}; the runtime does not use the module's weights in float32 ({rest})"
            )
        else:
            skipped = f", {probed.skipped:,} beyond the normal numbers skipped" if probed.skipped else ""
            layers = counted(probed.layers, "layer")
            words = f"{layers} with constants, {probed.elements:,} results, every bit right{skipped}"
            self.found.passed("exact probes", words)
            if probed.rounded_twice:
                layers = counted(probed.rounded_twice, "linear layer")
                self.found.warned("exact probes", f"{layers} with an alpha or beta held only against their bounds")
        for check in probe_ranges(self.model, structure, self.opener, self.seed):
            op = check.layers[0].held.op
            self.ranges[op] = max(check.ratio, self.ranges.get(op, 0.0))
            self._say_failure("whole range", check)
        if self.ranges and all(ratio <= 1 for ratio in self.ranges.values()):
            name, share = max(self.ranges.items(), key=lambda item: item[1])
            self.found.passed("whole range", f"{', '.join(self.ranges)}; {name} took most of its bound, {share:.2f}")

    def _say_failure(self, name: str, check: LayerCheck) -> None:
        if check.failure is None:
            return
        e = check.failure
        self.failures.append(e)
        place = f"'{e.layer}', row {e.row} of '{e.inputs}', output {e.index}"
        values = f"the file gives {e.found:.9g}, eager PyTorch {e.eager:.9g}, exact is {e.exact:.9g}"
        self.found.failed(name, f"{place}: {values}; the bound is {e.bound:.3g} (error / bound {e.ratio:.3g})")

    def _layers(self, structure: Structure) -> None:
        runs = [*self.inputs, *batches(self.inputs[0])]
        with opened(self.model.path, self.opener) as running:
            runs = self._that_run(structure, running, runs)
            self.shipped = [self._output(structure, running, given.rows) for given in runs]
        given = (self.model, structure, self.inputs, runs, self.shipped, self.opener, self.seed)
        domain = Domain(structure.graph.inputs)
        exposed = Exposing(*given, stop_early=self.found.stop_early, domain=domain, recording=self.recording).finest()
        self.layers, self.searched = exposed.checks, exposed.searched
        if not exposed.repeats:
            return self.found.unproved(
                "shipped file",
                "with layers' values as outputs the file gives other bits, so what it computes without cannot be seen",
            )
        failed = next((check for check in self.layers if check.failure is not None), None)
        unbounded = max(self.layers, key=lambda check: check.unbounded)
        if failed is not None:
            self._say_failure("layer bounds", failed)
        elif unbounded.unbounded > _MOST_EXEMPT:
            share = f"{unbounded.unbounded:.1%} of the values of '{unbounded.path}' have no bound on usual rows"
            hint = "scale the inputs or the weights, or put a Standardize in front"
            self.found.unproved("layer bounds", f"{share}: float32 may overflow there, or cancel. What to do: {hint}")
        else:
            self.found.passed("layer bounds", exposed.words())
        rows = f"on {sum(len(given.rows) for given in runs):,} rows"
        if exposed.level == 0:
            self.found.passed("shipped file", f"the same bits as with the value of every layer as an output, {rows}")
        else:
            words = f"the runtime fuses layers, so {LEVELS[exposed.level]} was held against its bound"
            self.found.warned("shipped file", f"{words}; the same bits with these values as outputs, {rows}")
        self._rows_alone(runs)
        likely = next((check for check in self.layers if check.likely > 1 >= check.ratio), None)
        if likely is not None:
            words = f"'{likely.path}' is above its probabilistic line, {likely.likely:.2g} of it"
            self.found.warned("probabilistic bounds", words)

    def _that_run(self, structure: Structure, running: Running, runs: list[Inputs]) -> list[Inputs]:
        """Files of other tools may not take an empty batch: ``Reshape`` to (0, -1) is such a one."""
        try:
            self._output(structure, running, self.inputs[0].rows[:0])
        except ModelError:
            self.found.warned("batches", "the file does not run on an empty batch")
            return [given for given in runs if len(given.rows)]
        return runs

    def _rows_alone(self, runs: list[Inputs]) -> None:
        """Each was held against its bound; what is said is how far they are apart."""
        whole = self.shipped[0].astype(np.float64)
        if self.rows_depend:
            sizes = ", ".join(map(str, sorted({len(given.rows) for given in runs})))
            words = f"batches of {sizes} rows, each within its bound; a row's result depends on the rows beside it"
            return self.found.passed("batches", words)
        single = [self.shipped[i] for i, given in enumerate(runs) if given.kind == "row alone"]
        difference = max((float(apart(one[0], whole[i]).max()) for i, one in enumerate(single)), default=0.0)
        chosen = ("kinks", "extremes")
        sizes = ", ".join(map(str, sorted({len(given.rows) for given in runs if given.kind not in chosen})))
        if self.model.batch is not None:
            words = f"the file takes batches of exactly {counted(self.model.batch, 'row')}, and was given its rows so"
            return self.found.passed("batches", words)
        alike = f"differ by at most {difference:.2g}" if difference else "give the same bits"
        words = f"batches of {sizes} rows; {counted(len(single), 'row')} alone and in a batch {alike}"
        within = ", each within its bound" if difference and all(not check.failure for check in self.layers) else ""
        self.found.passed("batches", words + within)

    def _end_to_end(self, module: nn.Module, structure: Structure) -> None:
        usual = [(given, self.shipped[i]) for i, given in enumerate(self.inputs) if given.kind in USUAL]
        single = Called(module, self.signature, structure.graph, double=False)
        self.end = measured(single, structure, usual, self.seed)
        end = self.end
        words = f"from float64 {end.from_float64:.2g}, from eager PyTorch {end.from_eager:.2g}, where outputs reach"
        words += f" {end.magnitude:.3g}; {end.bound_share:.2g} of the first-order bound"
        beyond = end.bound_share > 1 or not np.isfinite(end.from_float64)
        say = self.found.warned if beyond else self.found.passed
        sampled = f"{counted(end.sampled_rows, 'row')} and {counted(end.sampled_outputs, 'output')} sampled"
        say("end to end", f"{words} ({sampled})")

    def record(self) -> dict[str, Any]:
        """The parts of the report that the checks found."""
        # A layer on a row of the network says more than one on its own over the whole range.
        failures = sorted(self.failures, key=lambda element: element.inputs == "whole range")
        inputs = [InputsRecord(kind=g.kind, words=g.words, rows=len(g.rows)) for g in self.inputs]
        if self.searched:
            words = f"{self.searched:,} rows of a search that drives error / bound up"
            inputs.append(InputsRecord(kind="search", words=words, rows=self.searched))
        return {
            "verdict": self.found.verdict,
            "why": self.found.why,
            "checks": self.found.checks,
            "layers": layer_records(self.layers, self.shapes),
            "inputs": inputs,
            "failure": element_record(failures[0]) if failures else None,
            "end_to_end": self.end,
            "constants": [constant_record(name, self.ranges.get(name.partition(" ")[0])) for name in self._used()],
            "bins": list(BINS),
            "answers": self.answers,
        }

    def _used(self) -> list[str]:
        nodes = [member for check in self.layers for layer in check.layers for member in layer.members]
        used = {f"{n.op} tanh" if n.attributes.get("approximate") == "tanh" else n.op for n in nodes}
        return [name for name in CONSTANTS if name in used]
