"""Judges what a server says and answers by a certificate, without contacting the server.

Its metadata must have the names, datatypes and shapes of the file. An answer is that of the proved file if every
value is within its bound of the exact one. That bound holds for every correct float32 evaluation, so it is wide where
many layers add up, and a reduced precision may be within it. Therefore the answers, all values of an output together,
must also be nearer (root mean square) to the exact ones than to those of each reduced precision. This is required only
where the two are far enough apart for float32 not to decide it: further than twice the bound, or than twice
``USUAL_RATIO`` times the largest difference that the file had when it was proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from runtime.model.certificate import Answers

from .probe import Exchange, Method
from .protocol import ModelInfo, Response, ServerError, TensorInfo, datatype_of
from .report import Asked, Finding

USUAL_RATIO = 8.0
"""How much larger than at proof time a difference may be without a warning: another order of the sums, or fused
multiply-adds, change it by a small factor, and the mildest reduced precision loses 13 bits, a factor of 8192."""


def judge_interface(info: ModelInfo, answers: Answers) -> tuple[list[Finding], list[str]]:
    """Findings on names, datatypes and shapes that differ from the file's, and warnings on what metadata leaves out."""
    findings: list[Finding] = []
    warnings: list[str] = []
    for kind, tensors, expected in (("input", info.inputs, answers.inputs), ("output", info.outputs, answers.exact)):
        if not tensors:
            warnings.append(f"its metadata names no {kind}s, so only the answers were judged")
            continue
        findings += [Finding("interface", words) for words in _differences(kind, tensors, expected)]
        extra = [tensor.name for tensor in tensors if tensor.name not in expected]
        if extra and kind == "output" and not findings:
            warnings.append(f"it has outputs that the file does not have: {', '.join(extra)}")
    return findings, warnings


def _differences(kind: str, tensors: Sequence[TensorInfo], expected: Mapping[str, np.ndarray]) -> list[str]:
    by_name = {tensor.name: tensor for tensor in tensors}
    if not by_name.keys() >= expected.keys() or (kind == "input" and by_name.keys() != expected.keys()):
        return [f"the {kind}s of the file are {', '.join(expected)}; the server's are {', '.join(by_name)}"]
    differences: list[str] = []
    for name, values in expected.items():
        tensor, datatype, row_shape = by_name[name], datatype_of(values), values.shape[1:]
        if tensor.datatype not in (datatype, f"TYPE_{datatype}"):
            differences.append(f"{kind} '{name}' is {datatype} in the file and {tensor.datatype} at the server")
        if not _shape_fits(tensor.shape, row_shape):
            sizes = f"{[-1, *row_shape]} in the file and {list(tensor.shape)} at the server"
            differences.append(f"{kind} '{name}' is {sizes}")
    return differences


def _shape_fits(shape: tuple[int, ...], row_shape: tuple[int, ...]) -> bool:
    """With the batch first as the protocol has it, or without, as some servers give it; -1 is any size."""
    sizes = shape[1:] if len(shape) == len(row_shape) + 1 else shape
    return len(sizes) == len(row_shape) and all(size in (-1, row) for size, row in zip(sizes, row_shape, strict=True))


def fixed_batch(info: ModelInfo, answers: Answers) -> int | None:
    """The number of rows that every batch has by the metadata; None if it is open."""
    for tensor in info.inputs:
        values = answers.inputs.get(tensor.name)
        if values is not None and len(tensor.shape) == values.ndim and tensor.shape[0] > 0:
            return tensor.shape[0]
    return None


@dataclass(frozen=True)
class Evidence:
    """All answers to one method for one output, flat rows (K, values) of float64, and what they should be."""

    output: str
    method: Method
    rows: np.ndarray
    """(K,): the row of the certificate that each one answers."""
    values: np.ndarray
    answers: Answers
    at_proof: float | None
    saved: bool = False
    """Whether the answers were saved in a file, and no server gave them."""

    def expected(self, table: Mapping[str, np.ndarray], output: str | None = None) -> np.ndarray:
        """(K, values): what a table of the certificate holds for these rows."""
        values = table[output or self.output]
        return values.reshape(len(values), -1)[self.rows].astype(np.float64)

    @cached_property
    def exact(self) -> np.ndarray:
        """(K, values): the exact answers."""
        return self.expected(self.answers.exact)

    @cached_property
    def bound(self) -> np.ndarray:
        """(K, values): how far a float32 evaluation may be from the exact answers."""
        return self.expected(self.answers.bound)

    @cached_property
    def error(self) -> np.ndarray:
        """(K, values): the difference from the exact answers."""
        return self.values - self.exact

    @property
    def beyond(self) -> np.ndarray:
        """(K, values): which are not within the bound; NaN never is."""
        return ~(np.abs(self.error) <= self.bound)

    @property
    def largest(self) -> float:
        """The largest finite difference from an exact answer."""
        return float(np.max(np.abs(self.error), initial=0.0, where=np.isfinite(self.error)))

    @property
    def share(self) -> float:
        """The largest difference as a part of the bound there."""
        size = np.abs(self.error)
        share = np.divide(size, self.bound, out=np.where(size > 0, np.inf, 0.0), where=self.bound > 0)
        return float(np.nan_to_num(share).max(initial=0.0))

    def from_reduced(self, precision: str) -> np.ndarray:
        """(K, values): the difference from the answers in a reduced precision."""
        return self.values - self.expected(self.answers.reduced[precision])

    def nearest_reduced(self) -> str | None:
        """The reduced precision whose answers are nearer than the exact ones, the nearest of several; None if none is.

        Of all answers together, or else of single rows: a server that changes its precision may answer most correctly.
        """
        for shape in ((1, -1), self.values.shape):
            errors = _row_rms(self.error.reshape(shape))
            distances = {name: _row_rms(self.from_reduced(name).reshape(shape)) for name in self.answers.reduced}
            nearer = {name: self._distinguishes(name, shape) & (distances[name] < errors) for name in distances}
            best = max(nearer, key=lambda name: (nearer[name].sum(), -np.nansum(distances[name])), default=None)
            if best is not None and nearer[best].any():
                return best
        return None

    def explained_by(self) -> str | None:
        """The nearest reduced precision, if it leaves less than half of the distance from the exact answers."""
        name = self.nearest_reduced()
        return name if name is not None and rms(self.from_reduced(name)) < rms(self.error) / 2 else None

    def distinguishable(self) -> list[str]:
        """The reduced precisions that these rows together distinguish from float32."""
        return [name for name in self.answers.reduced if self._distinguishes(name, (1, -1)).all()]

    def _distinguishes(self, precision: str, shape: tuple[int, ...]) -> np.ndarray:
        """For each row of the values in this shape: is the precision far enough from float32? NaN and infinity are."""
        margin = np.minimum(_row_rms(self.bound.reshape(shape)), self._usual_error())
        distance = self.expected(self.answers.reduced[precision]) - self.exact
        return ~(_row_rms(distance.reshape(shape)) <= 2 * margin)

    def _usual_error(self) -> float:
        """The difference from the exact answers that float32 may well have, judged by the one at proof time."""
        if self.at_proof is None:
            return float("inf")
        return USUAL_RATIO * max(self.at_proof, float(np.spacing(np.float32(np.abs(self.exact).max(initial=0)))))


@dataclass(frozen=True)
class Judgement:
    """Findings, and the figures that they rest on."""

    findings: tuple[Finding, ...]
    asked: tuple[Asked, ...]
    bad: tuple[Evidence, ...]
    """The evidence with values beyond the bound, or nearer to a reduced precision."""
    good: tuple[Evidence, ...]
    largest: float
    share: float
    told_apart: tuple[str, ...]


def rms(values: np.ndarray) -> float:
    """The root mean square; 0.0 of nothing."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _row_rms(values: np.ndarray) -> np.ndarray:
    """(K, values) to (K,): the root mean square of each row."""
    return np.sqrt(np.mean(np.square(values), axis=1)) if values.shape[1] else np.zeros(len(values))


@np.errstate(all="ignore")  # a server may send anything
def judge(answers: Answers, exchanges: Sequence[Exchange], at_proof: float | None) -> Judgement:
    """Findings on what the server answered: first missing and malformed answers, then values, then precisions."""
    failed: list[tuple[Exchange, str]] = []
    malformed: list[tuple[Exchange, str]] = []
    responses: list[tuple[Exchange, Response]] = []
    for exchange in exchanges:
        if isinstance(exchange.response, ServerError):
            failed.append((exchange, str(exchange.response)))
        elif (problem := _malformed(answers, exchange, exchange.response)) is not None:
            malformed.append((exchange, problem))
        else:
            responses.append((exchange, exchange.response))
    findings = [*_grouped("no answer", failed), *_grouped("form", malformed)]
    evidence = list(_evidence(answers, responses, at_proof))
    bad: list[Evidence] = []
    methods = {item.method for item in evidence}
    for output in answers.exact:
        for kind, check in _VALUE_CHECKS.items():
            problems = [(item, words) for item in evidence if item.output == output and (words := check(item))]
            if problems:
                findings.append(Finding(kind, f"{problems[0][1]}; {_format_methods(problems, methods)}"))
                bad += [item for item, _ in problems]
    told_apart = [n for n in answers.reduced if evidence and all(n in item.distinguishable() for item in evidence)]
    bad_ids = {id(item) for item in bad}
    return Judgement(
        findings=tuple(findings),
        asked=tuple(_asked(exchanges, evidence)),
        bad=tuple(item for item in evidence if id(item) in bad_ids),
        good=tuple(item for item in evidence if id(item) not in bad_ids),
        largest=max((item.largest for item in evidence), default=0.0),
        share=max((item.share for item in evidence), default=0.0),
        told_apart=tuple(told_apart),
    )


def joined(first: Judgement, second: Judgement) -> Judgement:
    """The judgement on the exchanges of both."""
    asked: dict[tuple[str, str], Asked] = {}
    for each in (*first.asked, *second.asked):
        same = asked.get(key := (each.how, each.tensors))
        if same is not None:
            requests, rows = same.requests + each.requests, same.rows + each.rows
            each = replace(each, requests=requests, rows=rows, largest=max(same.largest, each.largest))
        asked[key] = each
    return Judgement(
        findings=(*first.findings, *second.findings),
        asked=tuple(asked.values()),
        bad=(*first.bad, *second.bad),
        good=(*first.good, *second.good),
        largest=max(first.largest, second.largest),
        share=max(first.share, second.share),
        told_apart=first.told_apart,
    )


def _malformed(answers: Answers, exchange: Exchange, response: Response) -> str | None:
    """What is wrong with a response apart from its values."""
    if response.id and response.id != exchange.request_id:
        return "the answer has the id of another request"
    for name, exact in answers.exact.items():
        output, expected = response.outputs.get(name), (len(exchange.rows), *exact.shape[1:])
        if output is None:
            return f"no output '{name}'; there are {', '.join(response.outputs) or 'none'}"
        if output.datatype != "FP32":
            return f"'{name}' came as {output.datatype} instead of FP32"
        if output.shape != expected:
            transposed = ", its dimensions in reverse order" if output.shape == expected[::-1] else ""
            return f"'{name}' has the shape {list(output.shape)} instead of {list(expected)}{transposed}"
    return None


def _evidence(
    answers: Answers, responses: Sequence[tuple[Exchange, Response]], at_proof: float | None
) -> Iterable[Evidence]:
    for method in dict.fromkeys(exchange.method for exchange, _ in responses):
        group = [(exchange.rows, response.outputs) for exchange, response in responses if exchange.method == method]
        rows = np.concatenate([np.array(rows, np.intp) for rows, _ in group])
        for name in answers.exact:
            tensors = [values for _, outputs in group if (values := outputs[name].values) is not None]
            values = np.concatenate([tensor.reshape(len(tensor), -1) for tensor in tensors])
            yield Evidence(name, method, rows, values, answers, at_proof)


def _not_finite(evidence: Evidence) -> str | None:
    wrong = ~np.isfinite(evidence.values)
    if not wrong.any():
        return None
    return f"'{evidence.output}': {wrong.sum():,} of {wrong.size:,} values are NaN, null or infinite"


def _beyond_bound(evidence: Evidence) -> str | None:
    beyond = evidence.beyond & np.isfinite(evidence.values)
    if not beyond.any():
        return None
    excess = np.where(beyond, np.abs(evidence.error) - evidence.bound, -np.inf)
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    expected = f"{evidence.exact[worst]:.9g} ± {evidence.bound[worst]:.2g}"
    furthest = f"{evidence.values[worst]:.9g} instead of {expected} (row {evidence.rows[worst[0]]}, value {worst[1]})"
    count = f"{beyond.sum():,} of {beyond.size:,} values beyond the bound"
    return f"'{evidence.output}': {count}, the furthest {furthest}"


def _reduced_precision(evidence: Evidence) -> str | None:
    name = evidence.explained_by() or (None if evidence.beyond.any() else evidence.nearest_reduced())
    if name is None:  # far beyond the bound, which precision is nearer is chance
        return None
    near, far = rms(evidence.from_reduced(name)), rms(evidence.error)
    nearer = f"nearer to what {name} gives ({near:.2g} from it) than to the exact answers ({far:.2g})"
    return f"'{evidence.output}': {nearer}"


_VALUE_CHECKS = {"not a number": _not_finite, "bound": _beyond_bound, "precision": _reduced_precision}
"""By the kind of the finding, in the order in which they are reported."""


def _grouped(kind: str, problems: Sequence[tuple[Exchange, str]]) -> Iterable[Finding]:
    """One finding for each text, with how often and where it occurred."""
    for words in dict.fromkeys(words for _, words in problems):
        same = [problem for problem in problems if problem[1] == words]
        requests = f"{len(same)} requests" if len(same) > 1 else "a request"
        yield Finding(kind, f"{words} ({requests}, {_format_methods(same)})")


def _format_methods(problems: Sequence[tuple[Exchange | Evidence, str]], every: set[Method] | None = None) -> str:
    methods = dict.fromkeys(item.method for item, _ in problems)
    if every is not None and len(methods) == len(every):
        return "however the rows are sent"
    return f"rows sent {', '.join(map(str, methods))}"


def _asked(exchanges: Sequence[Exchange], evidence: Sequence[Evidence]) -> Iterable[Asked]:
    for method in dict.fromkeys(exchange.method for exchange in exchanges):
        sizes = [len(exchange.rows) for exchange in exchanges if exchange.method == method]
        largest = max((item.largest for item in evidence if item.method == method), default=0.0)
        yield Asked(method.how, method.tensors, requests=len(sizes), rows=sum(sizes), largest=largest)
