"""The checks of a proof, one after the other, and what each found."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from export.graph import Graph, Rows
from export.onnxfile.model import Model
from export.trace import Signature
from runtime import InputError, ModelError, Port

from .eager import Called, disagreement, same_bits, traced
from .inputs import USUAL, Inputs, batches, planned
from .instrumented import LEVELS, Exposing, Recording
from .layer_bounds import BINS, LayerCheck, layer_records
from .network import answers, end_to_end
from .probes import probe_constants, probe_ranges
from .report import AnswersRecord, ConstantRecord, ElementRecord, EndToEnd, Findings, InputsRecord, Stop, counted
from .rows import apart, in_shape
from .rules import RULES
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
        self.failures: list[ElementRecord] = []
        self.end: EndToEnd | None = None
        self.shipped: list[np.ndarray] = []
        self.answers: AnswersRecord | None = None

    def run(self, module: nn.Module, signature: Signature, graph: Graph, data: np.ndarray | None, origin: str) -> None:
        """Make every check, from the cheapest to the dearest."""
        self.signature = signature
        self.inputs = planned(graph, self.port, data, origin, self.seed, self.found)
        try:
            self._weights(graph)
            structure = self._structure(graph)
            if structure.problem is None:
                self._probes(structure)
            self._calls(module, structure.graph)
            if structure.problem is not None:
                return self._only_outputs(structure)
            self._layers(structure)
            self._end_to_end(module, structure)
            if self.found.verdict == "proved":
                self.answers = answers(structure, self.inputs)
        except Stop:
            return
        except (ModelError, InputError) as error:  # the data was looked at before
            self.found.unproved("running", f"the file does not run on the module's rows: {error}")

    def _weights(self, graph: Graph) -> None:
        tensors = [t for node in graph.nodes if node.op != "where" for t in node.tensors.values()]
        # A computed constant may be infinite, as a mask of attention is.
        for tensor in tensors:
            wrong = ~np.isfinite(tensor.values)
            if np.isnan(tensor.values).any() if tensor.computed else wrong.any():
                places = f"{int(wrong.sum()):,} of {wrong.size:,} values, first at {np.argwhere(wrong)[0].tolist()}"
                words = f"the module's own '{tensor.name}' is NaN or infinite in {places}"
                self.found.unproved("module", f"{words}; nothing can be proved of it. What to do: look at the training")
                raise Stop

    def _structure(self, graph: Graph) -> Structure:
        structure = match(graph, self.model)
        lost = next((m for layer in structure.layers for m in layer.members if m.op not in RULES), None)
        if structure.problem is not None:
            self.found.unproved("structure", structure.problem)
        elif lost is not None:
            self.found.unproved("structure", f"no rule bounds {lost.op} at '{lost.path}'")
            raise Stop
        else:
            have, need = counted(len(self.model.nodes), "operator"), counted(len(structure.layers), "layer")
            self.found.passed("structure", f"{have} for the {need} of the module, no Dropout")
        differences = [difference for layer in structure.layers for difference in layer.differences]
        if differences:
            held = [layer for layer in structure.layers if layer.held.tensors]
            every = len(held) > 1 and all(layer.differences for layer in held)
            hint = "; every layer's constants differ: is it the same module, with the same weights?" if every else ""
            self.found.failed("constants", f"{differences[0]}{hint}")
        elif structure.problem is None:
            words = f"{sum(layer.parameters for layer in structure.layers):,} weights and constants"
            self.found.passed("constants", f"{words} have the module's bits, attributes its values")
        return structure

    def _calls(self, module: nn.Module, graph: Graph) -> None:
        if self.recording is not None and self.recording.called is not None:
            return self.found.passed("module", self.recording.called)
        rows = f"on {sum(len(given.rows) for given in self.inputs):,} rows"
        words, problem = f"its operators give the bits of the module as it is called, {rows}", None
        try:
            single = Called(module, self.signature, graph, torch.float32)
            if not all(same_bits(single, given) for given in self.inputs):
                words = f"its operators are the module as it is called, in float64 and float32, {rows}"
                for precision in (torch.float64, torch.float32):
                    called = Called(module, self.signature, graph, precision)
                    problem = problem or next(filter(None, (disagreement(called, g) for g in self.inputs)), None)
        except ModelError as error:
            problem = str(error)
        except Exception as error:  # the caller's code: it may raise anything
            problem = f"the module does not run: {type(error).__name__}: {error}"
        if problem is not None:
            self.found.unproved("module", f"{problem}. What to do: take Python state and randomness out of forward")
            raise Stop
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
        for name, row in structure.wiring.outputs.items():
            if self.model.recovering:
                values[name] = in_shape(values[name], len(rows), (Rows(), *row))
            if values[name].shape != (len(rows), *row):
                found = f"of shape {list(values[name].shape)} for {counted(len(rows), 'row')}"
                raise ModelError(f"its output '{name}' is {found}, and the module's has rows of shape {list(row)}")
        return structure.wiring.output(values)

    def _probes(self, structure: Structure) -> None:
        probed = probe_constants(self.model, structure.layers, self.opener, self.seed)
        if probed.mismatches:
            rest = f"the runtime does not use the module's weights in float32 ({probed.mismatches:,} mismatches)"
            self.found.failed("exact probes", f"{probed.first}; {rest}")
        else:
            skipped = f", {probed.skipped:,} beyond the normal numbers skipped" if probed.skipped else ""
            words = f"{counted(probed.layers, 'layer')} with constants, {probed.elements:,} results, every bit right"
            self.found.passed("exact probes", f"{words}{skipped}")
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
        values = f"the file gives {e.file:.9g}, eager PyTorch {e.eager:.9g}, exact is {e.exact:.9g}"
        self.found.failed(name, f"{place}: {values}; the bound is {e.bound:.3g} (error / bound {e.ratio:.3g})")

    def _layers(self, structure: Structure) -> None:
        runs = [*self.inputs, *batches(self.inputs[0])]
        with opened(self.model.path, self.opener) as running:
            try:
                self._output(structure, running, self.inputs[0].rows[:0])
            except ModelError:  # files of other tools may not take one: Reshape to (0, -1) is such
                self.found.warned("batches", "the file does not run on an empty batch")
                runs = [given for given in runs if len(given.rows)]
            self.shipped = [self._output(structure, running, given.rows) for given in runs]
        given = (self.model, structure, self.inputs, runs, self.shipped, self.opener, self.seed)
        exposed = Exposing(*given, stop_early=self.found.stop_early, recording=self.recording).finest()
        self.layers, self.searched = exposed.checks, exposed.searched
        if not exposed.repeats:
            words = "with layers' values as outputs the file gives other bits"
            return self.found.unproved("shipped file", f"{words}, so what it computes without cannot be seen")
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
        self._rows_alone(runs, structure.graph.rows_depend)
        likely = next((check for check in self.layers if check.likely > 1 >= check.ratio), None)
        if likely is not None:
            words = f"'{likely.path}' is above its probabilistic line, {likely.likely:.2g} of it"
            self.found.warned("probabilistic bounds", words)

    def _rows_alone(self, runs: list[Inputs], rows_depend: bool) -> None:
        """Each was held against its bound; what is said is how far they are apart."""
        whole = self.shipped[0].astype(np.float64)
        if rows_depend:
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
        single = Called(module, self.signature, structure.graph, torch.float32)
        self.end = end = end_to_end(single, structure, usual, self.seed)
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
            "layers": layer_records(self.layers),
            "inputs": inputs,
            "failure": failures[0] if failures else None,
            "end_to_end": self.end,
            "constants": self._constants(),
            "bins": list(BINS),
            "answers": self.answers,
        }

    def _constants(self) -> list[ConstantRecord]:
        """Of the activations, and how much of its bound each took over the whole range."""
        nodes = [member for check in self.layers for layer in check.layers for member in layer.members]
        used = {f"{n.op} tanh" if n.attributes.get("approximate") == "tanh" else n.op for n in nodes}
        shares = {name: self.ranges.get(name.partition(" ")[0]) for name in CONSTANTS if name in used}
        known = [(name, *CONSTANTS[name].limits, CONSTANTS[name].source, share) for name, share in shares.items()]
        return [
            ConstantRecord(block=name, absolute=a, relative=r, argument=m, source=source, share=share)
            for name, a, r, m, source, share in known
        ]
