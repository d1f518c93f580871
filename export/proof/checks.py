"""The proof as a list of checks, ``CHECKS``, in the order in which they run: from the cheapest to the dearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from runtime import InputError, ModelError

from .as_called import compare_as_called
from .eager import EagerModule, run_graph
from .inputs import USUAL, batch_inputs, data_warnings, plan_inputs
from .instrumented import LEVELS, Instrumented, LayerResults
from .interface import compare_interface, declared_names
from .layer_bounds import LayerCheck
from .network import answers, end_to_end
from .probes import probe_constants, probe_ranges, unguarded
from .report import counted
from .rows import absolute_difference
from .rules import RULES
from .running import FileRunner
from .state import Proof, Result
from .structure import match

_MOST_EXEMPT = 0.01
"""The share of a layer's elements, on one set of usual rows, that may be without a bound."""


def _interface(proof: Proof) -> Iterator[Result]:
    if proof.said:
        proof.names_checked = True
        yield compare_interface(proof.model, proof.spec, proof.said, proof.graph.inputs)
    elif names := declared_names(proof.model, proof.graph):
        proof.names_checked = False
        hint = "What to do: give the spec (--spec), or rely on positions alone"
        yield "warning", f"names not checked: the file declares {_list(names)}, and a module does not say them. {hint}"


def _list(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _data(proof: Proof) -> Iterator[Result]:
    if proof.data is not None:
        for words in data_warnings(proof.data, proof.origin, proof.port):
            yield "warning", words
    proof.inputs = plan_inputs(proof.graph, proof.port, proof.data, proof.origin, proof.seed)


def _weights(proof: Proof) -> Iterator[Result]:
    tensors = [(node.op, t) for node in proof.graph.nodes if node.op != "where" for t in node.tensors.values()]
    for op, tensor in tensors:
        wrong = ~np.isfinite(tensor.values)
        # A computed constant may be infinite, such as a mask of attention, and so may a limit, which is none then.
        may_be_infinite = tensor.computed or op in ("maximum", "minimum")
        if np.isnan(tensor.values).any() if may_be_infinite else wrong.any():
            count = f"{int(wrong.sum()):,} of {wrong.size:,} values, first at {np.argwhere(wrong)[0].tolist()}"
            words = f"the module's own '{tensor.name}' is NaN or infinite in {count}"
            hint = "nothing can be proved of it. What to do: look at the training"
            yield "unprovable", f"{words}; {hint}"


def _structure(proof: Proof) -> Iterator[Result]:
    structure = proof.structure = match(proof.graph, proof.model)
    proof.runner = FileRunner(proof.model, structure.wiring, proof.opener)
    without = next((node for layer in structure.layers for node in layer.source_nodes if node.op not in RULES), None)
    if structure.problem is not None:
        yield "unproved", structure.problem
    elif without is not None:
        yield "unprovable", f"no rule bounds {without.op} at '{without.path}'"
    else:
        operators, layers = counted(len(proof.model.nodes), "operator"), counted(len(structure.layers), "layer")
        yield "passed", f"{operators} for the {layers} of the module, no Dropout"


def _constants(proof: Proof) -> Iterator[Result]:
    layers, known = proof.structure.layers, proof.model.constants
    matched = proof.structure.problem is None
    computed = proof.runner.computed_constants(proof.inputs[0].rows[:1]) if matched else dict[str, np.ndarray]()
    for name, own in computed.items():
        words = f"the file computes the constant '{name}'"
        if own.dtype != known[name].dtype or own.shape != known[name].shape:
            yield "failed", f"{words}, and the runtime gives {own.dtype} values of shape {list(own.shape)}"
            return
        if (differs := ~((own == known[name]) | ((own != own) & (known[name] != known[name])))).any():
            index = tuple(np.argwhere(differs)[0].tolist())
            values = f"the runtime gives {own[index].item()!r}, ONNX's reference {known[name][index].item()!r}"
            yield "failed", f"{words}; at {list(index)} {values}"
            return
    differences = [difference for layer in layers for difference in layer.differences]
    if differences:
        with_constants = [layer for layer in layers if layer.expected.tensors]
        every = len(with_constants) > 1 and all(layer.differences for layer in with_constants)
        hint = "; every layer's constants differ: is it the same module, with the same weights?" if every else ""
        yield "failed", f"{differences[0]}{hint}"
    elif proof.structure.problem is None:
        words = f"{sum(layer.parameters for layer in layers):,} weights and constants"
        yield "passed", f"{words} have the module's bits, attributes its values"
        for difference in (d for layer in layers for d in layer.recomputed):
            words = f"{difference}, which the forward computes: another library's last bit"
            yield "warning", f"{words}; the file is held to its own"


def _exact_probes(proof: Proof) -> Iterator[Result]:
    probed = probe_constants(proof.runner, proof.structure.layers, proof.seed)
    if probed.mismatches:
        rest = f"the runtime does not use the module's weights in float32 ({probed.mismatches:,} mismatches)"
        yield "failed", f"{probed.first}; {rest}"
        return
    skipped = f", {probed.skipped:,} beyond the normal numbers skipped" if probed.skipped else ""
    words = f"{counted(probed.layers, 'layer')} with constants, {probed.elements:,} results, every bit right"
    yield "passed", f"{words}{skipped}"
    if probed.rounded_twice:
        layers = counted(probed.rounded_twice, "linear layer")
        yield "warning", f"{layers} with an alpha or beta compared with their bounds only"


def _whole_range(proof: Proof) -> Iterator[Result]:
    ratios = proof.range_ratios
    if (layer := unguarded(proof.structure)) is not None:
        yield "unproved", f"the file's form of '{layer.path}' leaves float32's range before {layer.expected.op} does"
    for check in probe_ranges(proof.runner, proof.structure, proof.seed):
        op = check.layers[0].expected.op
        ratios[op] = max(check.ratio, ratios.get(op, 0.0))
        if check.failure is not None:
            yield _beyond_bound(proof, check)
    if ratios and all(ratio <= 1 for ratio in ratios.values()):
        name, share = max(ratios.items(), key=lambda item: item[1])
        yield "passed", f"{', '.join(ratios)}; {name} took most of its bound, {share:.2f}"


def _beyond_bound(proof: Proof, check: LayerCheck) -> Result:
    e = check.failure
    assert e is not None
    proof.failures.append(e)
    element = f"'{e.layer}', row {e.row} of '{e.inputs}', output {e.index}"
    values = f"the file gives {e.file:.9g}, eager PyTorch {e.eager:.9g}, exact is {e.exact:.9g}"
    return "failed", f"{element}: {values}; the bound is {e.bound:.3g} (error / bound {e.ratio:.3g})"


def _module(proof: Proof) -> Iterator[Result]:
    recording = proof.recording
    if recording is not None and recording.module_words is not None:
        yield "passed", recording.module_words
        return
    for outcome, words in compare_as_called(proof):
        if recording is not None and outcome == "passed":
            recording.module_words = words
        yield outcome, words


def _outputs(proof: Proof) -> Iterator[Result]:
    runner, graph, problem = proof.runner, proof.structure.graph, proof.structure.problem
    if proof.model.problem is not None:  # ONNX Runtime crashes on some such files
        return
    with runner.open() as run:
        for inputs in proof.inputs:
            if inputs.kind == "extremes":  # where another correct program may overflow
                continue
            values, exact = runner.output(run, inputs.rows), run_graph(graph, inputs.rows, torch.float64)
            if values.shape != exact.shape:
                shapes = f"rows of shape {list(values.shape[1:])}, not {list(exact.shape[1:])}"
                yield "failed", f"{problem}; it gives {shapes}"
                return
            difference = absolute_difference(values, exact).reshape(len(values), -1).max(axis=1)
            row = int(np.argmax(difference))
            largest = np.abs(exact[np.isfinite(exact)]).max(initial=0.0)
            if difference[row] > 1e-2 * largest:
                off = f"row {row} of '{inputs.kind}' is off by {difference[row]:.3g}"
                yield "failed", f"{problem}; and {off}, where outputs reach {largest:.3g}"
                return


def _any_batch(proof: Proof) -> Iterator[Result]:
    proof.runs = [*proof.inputs, *batch_inputs(proof.inputs[0])]
    with proof.runner.open() as run:
        try:
            proof.runner.output(run, proof.inputs[0].rows[:0])
        except ModelError:  # files of other tools may not take one, because of a Reshape to (0, -1)
            yield "warning", "the file does not run on an empty batch"
            proof.runs = [inputs for inputs in proof.runs if len(inputs.rows)]
        proof.shipped = [proof.runner.output(run, inputs.rows) for inputs in proof.runs]


def _layer_bounds(proof: Proof) -> Iterator[Result]:
    files = proof.runner, proof.structure, proof.inputs, proof.runs, proof.shipped
    results = proof.layers = Instrumented(*files, proof.seed, proof.stop_early, proof.recording).compare()
    if not results.repeats:  # the next check fails
        return
    beyond = next((check for check in results.checks if check.failure is not None), None)
    unbounded = max(results.checks, key=lambda check: check.unbounded)
    if beyond is not None:
        yield _beyond_bound(proof, beyond)
    elif unbounded.unbounded > _MOST_EXEMPT:
        share = f"{unbounded.unbounded:.1%} of the values of '{unbounded.path}' have no bound on usual rows"
        hint = "scale the inputs or the weights, or put a Standardize in front"
        yield "unproved", f"{share}: float32 may overflow there, or cancel. What to do: {hint}"
    else:
        yield "passed", _format_layers(results)


def _format_layers(results: LayerResults) -> str:
    """How many values were compared, and how near they came to their bounds."""
    checks = results.checks
    worst = max(checks, key=lambda check: check.ratio)
    compared, exempt, by_kind = (sum(getattr(c, name) for c in checks) for name in ("compared", "exempt", "by_kind"))
    words = f"{compared:,} values of {LEVELS[results.level]} within their bound, at most {worst.ratio:.2g} of it"
    words += f" ('{worst.path}')"
    rows = "of extreme rows " if not any(check.unbounded for check in checks) else ""
    words += f"; {exempt:,} {rows}that may overflow or cancel are exempt" if exempt else ""
    return words + (f", {by_kind:,} of them NaN or infinite as PyTorch's own kernel gives them" if by_kind else "")


def _shipped_file(proof: Proof) -> Iterator[Result]:
    rows = f"on {sum(len(inputs.rows) for inputs in proof.runs):,} rows"
    if not proof.layers.repeats:
        words = "with layers' values as outputs the file gives other bits"
        yield "unproved", f"{words}, so what it computes without them cannot be seen"
    elif proof.layers.level == 0:
        yield "passed", f"the same bits as with the value of every layer as an output, {rows}"
    else:
        words = f"the runtime fuses layers, so {LEVELS[proof.layers.level]} was compared with its bound"
        yield "warning", f"{words}; the same bits with these values as outputs, {rows}"


def _batches(proof: Proof) -> Iterator[Result]:
    """Each row was compared with its bound; here it is how far they are apart."""
    runs = proof.runs
    if not proof.layers.repeats:
        return
    if proof.structure.graph.rows_depend:
        sizes = ", ".join(map(str, sorted({len(inputs.rows) for inputs in runs})))
        yield "passed", f"batches of {sizes} rows, each within its bound; a row's result depends on the rows beside it"
    elif proof.model.batch is not None:
        rows = counted(proof.model.batch, "row")
        yield "passed", f"the file takes batches of exactly {rows}, and was given its rows so"
    else:
        together = proof.shipped[0].astype(np.float64)
        alone = [output for inputs, output in zip(runs, proof.shipped, strict=True) if inputs.kind == "row alone"]
        differences = (absolute_difference(row[0], together[i]) for i, row in enumerate(alone))
        difference = max((float(each.max()) for each in differences), default=0.0)
        sizes = sorted({len(inputs.rows) for inputs in runs if inputs.kind not in ("kinks", "extremes")})
        alike = f"differ by at most {difference:.2g}" if difference else "give the same bits"
        if difference and all(not check.failure for check in proof.layers.checks):
            alike += ", each within its bound"
        batches = f"batches of {', '.join(map(str, sizes))} rows"
        yield "passed", f"{batches}; {counted(len(alone), 'row')} alone and in a batch {alike}"


def _probabilistic_bounds(proof: Proof) -> Iterator[Result]:
    above = next((check for check in proof.layers.checks if check.likely > 1 >= check.ratio), None)
    if above is not None and proof.layers.repeats:
        yield "warning", f"'{above.path}' is above its probabilistic line, {above.likely:.2g} of it"


def _end_to_end(proof: Proof) -> Iterator[Result]:
    pairs = zip(proof.inputs, proof.shipped, strict=False)
    usual = [(inputs, output) for inputs, output in pairs if inputs.kind in USUAL]
    single = EagerModule(proof.module, proof.signature, proof.structure.graph, torch.float32)
    end = proof.end_to_end = end_to_end(single, proof.structure, usual, proof.seed)
    words = f"from float64 {end.from_float64:.2g}, from eager PyTorch {end.from_eager:.2g}, where outputs reach"
    words += f" {end.magnitude:.3g}; {end.bound_share:.2g} of the first-order bound"
    sampled = f"{counted(end.sampled_rows, 'row')} and {counted(end.sampled_outputs, 'output')} sampled"
    beyond = end.bound_share > 1 or not np.isfinite(end.from_float64)
    yield "warning" if beyond else "passed", f"{words} ({sampled})"


@dataclass(frozen=True)
class Check:
    """One check of the proof."""

    name: str
    when: Literal["always", "matched", "unmatched"]
    """Whether it needs operators that were all matched with the module's, or such as were not."""
    run: Callable[[Proof], Iterator[Result]]
    purpose: str


CHECKS = (
    Check("interface", "always", _interface, "The file declares what the spec declares; programs rely on it."),
    Check("data", "always", _data, "Your own rows are finite and within the declared ranges."),
    Check("module", "always", _weights, "The module's own weights are finite."),
    Check("structure", "always", _structure, "Each operator of the file matches a block of the module, in order."),
    Check("constants", "always", _constants, "The constants have the module's bits; folded weights are folded again."),
    Check("exact probes", "matched", _exact_probes, "Other weights, or products rounded to TF32, show in single bits."),
    Check("whole range", "matched", _whole_range, "Each other layer alone is within its bound on numbers of any size."),
    Check("module", "always", _module, "Your own module, as you call it and in any batch, is what was traced of it."),
    Check("outputs", "unmatched", _outputs, "Without a match, outputs may still show that the file is wrong."),
    Check("batches", "matched", _any_batch, "The file takes batches of any size, an empty one too."),
    Check("layer bounds", "matched", _layer_bounds, "Each layer is as near to float64 as float32 rounding allows."),
    Check("shipped file", "matched", _shipped_file, "Making layers' values outputs, to look inside, changed nothing."),
    Check("batches", "matched", _batches, "A row's result must not depend on the rows beside it."),
    Check("probabilistic bounds", "matched", _probabilistic_bounds, "A sharper line, which is only a warning."),
    Check("end to end", "matched", _end_to_end, "A figure, not part of the proof: how far rounding adds up."),
)
"""Every check of a proof; one without anything to say records no result."""


def run_checks(proof: Proof) -> None:
    """Make every check that can be made."""
    try:
        for check in CHECKS:
            if check.when != "always" and (check.when == "matched") != (proof.structure.problem is None):
                continue
            for outcome, words in check.run(proof):
                if not proof.add(check.name, outcome, words):
                    return
        if proof.verdict == "proved":
            proof.answers = answers(proof.structure, proof.inputs, proof.port)
    except (ModelError, InputError) as error:
        proof.add("running", "unproved", f"the file does not run on the module's rows: {error}")
