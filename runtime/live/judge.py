"""Answers of a server beside the exact ones. Nothing here asks: what came is given, and findings come out.

An answer is that of the certified file if every value is within its bound of the exact one. That bound holds for every
correct float32 evaluation, so it is wide where many layers add up, and a reduced precision may be within it. Therefore
the answers, all values of an output together, must also be nearer (root mean square) to the exact ones than to what
each reduced precision gives. That is asked only where the two are far enough apart for float32 not to decide it:
further than twice the bound, or than twice ``USUAL`` times the largest difference that the file had when it was proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.model.certificate import Answers

from .protocol import Fault, Reply
from .report import Asked, Finding

USUAL = 8.0
"""How much larger than at proof time a difference may be before it is remarked: another order of the sums, or fused
multiply-adds, change it by a small factor, and the mildest reduced precision loses 13 bits, a factor of 8192."""


@dataclass(frozen=True)
class Heard:
    """A request for rows of the certificate, and what came."""

    how: str
    tensors: str
    rows: tuple[int, ...]
    request: str
    came: Reply | Fault


@dataclass(frozen=True)
class Evidence:
    """All answers of one kind for one output, flat rows (K, values) of float64, beside what they should be."""

    output: str
    how: str
    tensors: str
    rows: np.ndarray
    """(K,): which row of the certificate each one answers."""
    got: np.ndarray
    answers: Answers
    at_proof: float | None = None

    def expected(self, table: Mapping[str, np.ndarray], output: str | None = None) -> np.ndarray:
        """(K, values): what a table of the certificate holds for the rows asked."""
        held = table[output or self.output]
        return held.reshape(len(held), -1)[self.rows].astype(np.float64)

    @property
    def exact(self) -> np.ndarray:
        return self.expected(self.answers.exact)

    @property
    def bound(self) -> np.ndarray:
        return self.expected(self.answers.bound)

    @property
    def beyond(self) -> np.ndarray:
        """(K, values): which are not within the bound; what is not a number is not."""
        return ~(np.abs(self.got - self.exact) <= self.bound)

    def nearest_reduced(self) -> str | None:
        """The reduced precision whose answers are nearer than the exact ones, if one is; of several the nearest.

        Of all answers together, or else of some alone: of a server that computes now so and now so, most may be right.
        """
        reduced = self.answers.reduced
        own = rms(self.got - self.exact)
        away = {name: rms(self.got - self.expected(reduced[name])) for name in self.tellable()}
        nearer = {name: far for name, far in away.items() if far < own}
        if nearer:
            return min(nearer, key=lambda name: nearer[name])
        each = _rms_of_rows(self.got - self.exact)
        alone = {name: _rms_of_rows(self.got - self.expected(reduced[name])) for name in reduced}
        told = {name: self._apart(name) & (far < each) for name, far in alone.items()}
        name = max(told, key=lambda name: (int(told[name].sum()), -float(np.nansum(alone[name]))), default=None)
        return name if name is not None and told[name].any() else None

    def explained_by(self) -> str | None:
        """The nearest reduced precision, where it leaves less than half of the distance from the exact answers."""
        name = self.nearest_reduced()
        if name is None:
            return None
        left = rms(self.got - self.expected(self.answers.reduced[name]))
        return name if left < rms(self.got - self.exact) / 2 else None

    def tellable(self) -> list[str]:
        """The reduced precisions that these rows tell from float32; NaN and infinity are told by the bound."""
        reduced, margin = self.answers.reduced, min(rms(self.bound), self._usual())
        return [name for name in reduced if not rms(self.expected(reduced[name]) - self.exact) <= 2 * margin]

    def _usual(self) -> float:
        """The difference that float32 may well have from the exact answers, by what it had at proof time."""
        if self.at_proof is None:
            return float("inf")
        return USUAL * max(self.at_proof, float(np.spacing(np.float32(np.abs(self.exact).max(initial=0)))))

    def _apart(self, name: str) -> np.ndarray:
        """(K,): which answers tell a reduced precision from float32, each by itself."""
        margin = np.minimum(_rms_of_rows(self.bound), self._usual())
        return _rms_of_rows(self.expected(self.answers.reduced[name]) - self.exact) > 2 * margin


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


def _rms_of_rows(values: np.ndarray) -> np.ndarray:
    """(K, values) to (K,): the root mean square of each row; NaN where a value is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.mean(values**2, axis=1)) if values.shape[1] else np.zeros(len(values))


def rms(values: np.ndarray) -> float:
    """The root of the mean square; 0.0 of nothing."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


@np.errstate(all="ignore")  # a server may send anything
def judge(answers: Answers, heard: Sequence[Heard], at_proof: float | None = None) -> Judgement:
    """Findings on what was heard: first what did not come or has another form, then values, then precisions."""
    informal = {id(one): words for one in heard if (words := _form(answers, one)) is not None}
    findings = list(_grouped("no answer", [(one, str(one.came)) for one in heard if isinstance(one.came, Fault)]))
    findings += _grouped("form", [(one, informal[id(one)]) for one in heard if id(one) in informal])
    evidence = list(_evidence(answers, [one for one in heard if id(one) not in informal], at_proof))
    for output in answers.exact:
        of_it = [one for one in evidence if one.output == output]
        for kind, tell in (("not a number", _not_numbers), ("bound", _beyond), ("precision", _precision)):
            told = [(one, words) for one in of_it if (words := tell(one)) is not None]
            if told:
                findings.append(Finding(kind, f"{told[0][1]}{_also([one for one, _ in told], evidence)}"))
    bad = [one for one in evidence if _not_numbers(one) or _beyond(one) or _precision(one)]
    away = [(np.abs(one.got - one.exact), one.bound) for one in evidence]
    shares = [np.nan_to_num(np.divide(a, b, out=np.where(a > 0, np.inf, 0.0), where=b > 0)) for a, b in away]
    told = [name for name in answers.reduced if evidence and all(name in one.tellable() for one in evidence)]
    return Judgement(
        findings=tuple(findings),
        asked=tuple(_asked(heard, evidence)),
        bad=tuple(bad),
        good=tuple(one for one in evidence if one not in bad),
        largest=max((_largest(a) for a, _ in away), default=0.0),
        share=max((float(share.max(initial=0.0)) for share in shares), default=0.0),
        told_apart=tuple(told),
    )


def _largest(away: np.ndarray) -> float:
    """Of what is finite."""
    return float(np.max(away, initial=0.0, where=np.isfinite(away)))


def _form(answers: Answers, one: Heard) -> str | None:
    """What is wrong with an answer before its values are looked at."""
    if isinstance(one.came, Fault):
        return None
    if one.came.request and one.came.request != one.request:
        return "the answer bears the identity of another request"
    for name, exact in answers.exact.items():
        output, expected = one.came.outputs.get(name), (len(one.rows), *exact.shape[1:])
        if output is None:
            return f"no output '{name}'; there are {', '.join(one.came.outputs) or 'none'}"
        if output.datatype != "FP32":
            return f"'{name}' came as {output.datatype} instead of FP32"
        if output.shape != expected:
            turned = ", its dimensions the other way round" if output.shape == expected[::-1] else ""
            return f"'{name}' has the shape {list(output.shape)} instead of {list(expected)}{turned}"
    return None


def _evidence(answers: Answers, heard: Iterable[Heard], at_proof: float | None) -> Iterable[Evidence]:
    groups: dict[tuple[str, str], list[tuple[tuple[int, ...], Reply]]] = {}
    for one in heard:
        if isinstance(one.came, Reply):
            groups.setdefault((one.how, one.tensors), []).append((one.rows, one.came))
    for (how, tensors), replies in groups.items():
        rows = np.concatenate([np.array(asked, np.intp) for asked, _ in replies])
        for name in answers.exact:
            values = [output.values for _, reply in replies if (output := reply.outputs[name]).values is not None]
            got = np.concatenate([one.reshape(len(one), -1) for one in values])
            yield Evidence(name, how, tensors, rows, got, answers, at_proof)


def _not_numbers(one: Evidence) -> str | None:
    wrong = ~np.isfinite(one.got)
    if not wrong.any():
        return None
    return f"'{one.output}': {wrong.sum():,} of {wrong.size:,} values are NaN, null or infinite"


def _beyond(one: Evidence) -> str | None:
    beyond = one.beyond & np.isfinite(one.got)
    if not beyond.any():
        return None
    over = np.where(beyond, np.abs(one.got - one.exact) - one.bound, -np.inf)
    row, column = np.unravel_index(int(np.argmax(over)), over.shape)
    value = f"{one.got[row, column]:.9g} instead of {one.exact[row, column]:.9g} ± {one.bound[row, column]:.2g}"
    where = f"row {one.rows[row]}, value {column}"
    return (
        f"'{one.output}': {beyond.sum():,} of {beyond.size:,} values beyond the bound, the furthest {value} ({where})"
    )


def _precision(one: Evidence) -> str | None:
    name = one.explained_by() or (None if one.beyond.any() else one.nearest_reduced())
    if name is None:  # far beyond the bound, what is nearer is chance
        return None
    near, far = rms(one.got - one.expected(one.answers.reduced[name])), rms(one.got - one.exact)
    return f"'{one.output}': nearer to what {name} gives ({near:.2g} from it) than to the exact answers ({far:.2g})"


def _also(told: Sequence[Evidence], every: Sequence[Evidence]) -> str:
    """In which of several ways of asking it was so."""
    ways = list(dict.fromkeys((one.how, one.tensors) for one in told))
    all_ways = {(one.how, one.tensors) for one in every}
    return f"; {_ways(ways, len(all_ways))}"


def _ways(ways: Sequence[tuple[str, str]], of: int) -> str:
    if len(ways) == of:
        return "however it is asked"
    return "asked " + ", ".join(f"{how} ({tensors})" for how, tensors in ways)


def _grouped(kind: str, told: Sequence[tuple[Heard, str]]) -> Iterable[Finding]:
    for words in dict.fromkeys(words for _, words in told):
        ways = list(dict.fromkeys((one.how, one.tensors) for one, said in told if said == words))
        number = sum(said == words for _, said in told)
        times = f"{number} requests" if number > 1 else "a request"
        yield Finding(kind, f"{words} ({times}, {_ways(ways, -1)})")


def _asked(heard: Sequence[Heard], evidence: Sequence[Evidence]) -> Iterable[Asked]:
    for how, tensors in dict.fromkeys((one.how, one.tensors) for one in heard):
        of_it = [one for one in heard if (one.how, one.tensors) == (how, tensors)]
        away = [np.abs(e.got - e.exact) for e in evidence if (e.how, e.tensors) == (how, tensors)]
        largest = max((_largest(a) for a in away), default=0.0)
        yield Asked(how, tensors, len(of_it), sum(len(one.rows) for one in of_it), largest)
