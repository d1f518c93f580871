"""What explains saved answers that a file does not give, as far as the figures allow.

The likely faults are tried one by one: the file is run on inputs, or its answers are taken, as they would be with the
fault, and a fault that gives the saved answers is the cause. Tried are

    steps of outputs   what the file applies last (scale, clip) left out, or applied twice
    steps of inputs    what it applies first (clip, normaliser) left out, or applied twice
    joints             the joints of the inputs, of the outputs or of both in another order
    history            the newest value first
    columns            outputs in another order
    rows               answers that are a row late or early

Then those of ``runtime.live.causes``, which look at the answers alone: a factor and an offset for each output, rounded
decimals, a reduced precision, another file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from runtime.contracts import Contract
from runtime.contracts.steps import Step
from runtime.live import causes as live
from runtime.live.judge import Evidence, Judgement, rms
from runtime.live.probe import Method
from runtime.model.certificate import Answers

from .bypassed import Bypassed, choices, named
from .evidence import Compared
from .orders import input_orders, output_orders
from .reduced import reduced
from .saved import Saved

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
_UNEXPLAINED = 0.01
"""The part of the difference that a fault may leave unexplained."""
_MOST_ROWS = 256
_PRECISION = (
    ": products were rounded to it where the answers were computed; switch it off there "
    "(torch.backends.cuda.matmul.allow_tf32 = False, no autocast), or compare with a file of that precision"
)


def causes_of(compared: Compared, policy: Contract, saved: Saved, run: Run, path: Path) -> list[str]:
    """The causes, the likeliest first; one sentence that says so where none is found."""
    trial = _Trial(compared, policy, saved, run, path)
    with np.errstate(all="ignore"):
        clipped = trial.clipped()
        words, left = min(trial.faults(), key=lambda fault: fault[1], default=("", np.inf))
        is_clip = bool(clipped) and ": the clip, applied" in words
        causes = [words] if left <= _UNEXPLAINED and not is_clip else clipped or trial.alone()
    return causes or [
        "the figures do not show the cause; mlpx recover --compare names what differs between two policies"
    ]


class _Trial:
    """The rows on which faults are tried: those that are furthest off, and others."""

    def __init__(self, compared: Compared, policy: Contract, saved: Saved, run: Run, path: Path):
        self.policy, self.run, self.compared, self.inputs, self.path = policy, run, compared, saved.inputs, path
        wrong = np.any([values.any(axis=1) for values in compared.beyond.values()], axis=0)
        self.chosen = np.sort(np.argsort(~wrong, kind="stable")[:_MOST_ROWS])

    def rows(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """The rows that are tried."""
        return {name: values[self.chosen] for name, values in arrays.items()}

    def left(self, candidate: Arrays) -> float:
        """The part of the difference that is left if the file's answers were these: the largest of all outputs."""
        parts: list[float] = []
        for name, saved in self.rows(self.compared.saved).items():
            before, after = saved - self.compared.file[name][self.chosen], saved - candidate[name]
            finite = np.isfinite(before)
            if self.compared.beyond[name].any():
                left = rms(after[finite]) / rms(before[finite]) if rms(before[finite]) else np.inf
                parts.append(left if np.isfinite(left) else np.inf)
            else:  # an output that is right must stay so
                parts.append(
                    0.0 if (np.abs(after) <= self.compared.allowed[name][self.chosen] + 1e-6).all() else np.inf
                )
        return max(parts)

    def faults(self) -> Iterator[tuple[str, float]]:
        """Each fault in words, and what it leaves unexplained."""
        file = self.rows(self.compared.file)
        yield from self._left_out()
        yield from self._twice(file)
        yield from self._columns(file)
        inputs = self.rows(self.inputs)
        for words, name, order, renamed in input_orders(self.policy):
            turned = inputs[name].reshape(len(self.chosen), -1)[:, list(order)].reshape(inputs[name].shape)
            results = self.run({**inputs, name: turned})
            yield words, self.left(results)
            for output, back in output_orders(self.policy, renamed):
                moved = results[output][:, list(back)]
                yield f"{words}, and so are those of '{output}'", self.left({**results, output: moved})
        yield from self._shifted()

    def _left_out(self) -> Iterator[tuple[str, float]]:
        inputs = self.rows(self.inputs)
        bypassed = Bypassed(self.path, self.policy)
        for kind, interfaces in (("first", self.policy.inputs), ("last", self.policy.outputs)):
            for each in interfaces:
                for chosen in choices(each.steps, last=kind == "last"):
                    results = bypassed.run(each, chosen, inputs)
                    called = named([each.steps[index] for index in chosen])
                    words = (
                        f"'{each.port.name}': {called}, applied {kind} in the file, left out where the answers are from"
                    )
                    also = ", or the saved inputs went through it already" if kind == "first" else ""
                    if results is not None:
                        yield words + also, self.left(results)

    def _twice(self, file: Arrays) -> Iterator[tuple[str, float]]:
        for each in self.policy.outputs:
            name = each.port.name
            for step in each.steps:
                if step.kind != "clip" and not step.is_identity:
                    words = f"'{name}': {named([step])} applied once more in the saved answers than in the file"
                    yield words, self.left({**file, name: step.apply(file[name])})
        inputs = self.rows(self.inputs)
        for each in self.policy.inputs:
            name, rows, done = each.port.name, inputs[each.port.name], list[Step]()
            for step in each.steps if rows.ndim == 2 and rows.dtype == np.float32 else ():
                rows = step.apply(rows)
                done.append(step)
                if step.kind != "clip" and not step.is_identity:
                    words = f"'{name}': {named(done)} applied twice where the answers are from"
                    yield words, self.left(self.run({**inputs, name: rows}))

    def _columns(self, file: Arrays) -> Iterator[tuple[str, float]]:
        """Outputs in another order, found by their values."""
        for each in self.policy.outputs:
            name = each.port.name
            saved, allowed = (self.rows(table)[name] for table in (self.compared.saved, self.compared.allowed))
            apart = np.abs(saved[:, :, None] - file[name][:, None, :]) <= allowed[:, None, :]
            fits = np.asarray(apart.all(axis=0))
            order = [i if fits[i, i] else int(fits[i].argmax()) if fits[i].any() else -1 for i in range(each.width)]
            if sorted(order) != list(range(each.width)) or order == sorted(order):
                continue
            labels = each.names or tuple(map(str, range(each.width)))
            moved = [f"{labels[i]} holds that of {labels[j]}" for i, j in enumerate(order) if i != j]
            listed = ", ".join(moved[:4]) + (f", and {len(moved) - 4} more" if len(moved) > 4 else "")
            yield (
                f"'{name}': the saved values are in another order: {listed}",
                self.left({**file, name: file[name][:, order]}),
            )

    def _shifted(self) -> Iterator[tuple[str, float]]:
        count = len(next(iter(self.compared.file.values())))
        if count < 4:
            return
        for late, words in ((1, "a row late"), (-1, "a row early")):
            rows = (self.chosen - late) % count
            kept = {name: values[rows] for name, values in self.compared.file.items()}
            ends = rows == (count - 1 if late > 0 else 0)
            for name, values in kept.items():  # the first, or the last, has no row to be of
                values[ends] = self.compared.saved[name][self.chosen][ends]
            yield f"the saved answers are {words}: each belongs to the inputs beside it", self.left(kept)

    def clipped(self) -> list[str]:
        """A clip that one of the two does not apply, where just the rows that reach it are off."""
        beyond = np.any([values.any(axis=1) for values in self.compared.beyond.values()], axis=0)
        for each in self.policy.outputs:
            name, values = each.port.name, self.compared.file[each.port.name]
            wrong, saved = self.compared.beyond[name], self.compared.saved[name]
            for place, step in enumerate(each.steps):
                if step.kind != "clip" or not wrong.any():
                    continue
                for own in reversed(each.steps[place + 1 :]):
                    values, saved = own.undone(values), own.undone(saved)
                low, high = (step.value(role, each.width).astype(np.float64) for role in ("min", "max"))
                room = 1e-5 * np.maximum(np.abs(low), np.abs(high))
                outside = ((values <= low + room) & (saved < low)) | ((values >= high - room) & (saved > high))
                if (wrong <= outside).all():
                    features = _features(each.names, np.asarray(wrong.any(axis=0)))
                    limits = f"{low.min():g} to {high.max():g}"
                    return [f"'{name}': the saved answers are not clipped to {limits}, and the file's are: {features}"]
        for each in self.policy.inputs:
            rows = self.inputs[each.port.name]
            for step in each.steps if rows.ndim == 2 and rows.dtype.kind == "f" else ():
                if step.kind == "clip":
                    changed = step.apply(rows) != rows
                    if changed.any() and (beyond <= changed.any(axis=1)).all():
                        features = _features(each.names, changed[beyond].any(axis=0))
                        reach = f"just the rows that it changes are off ({features})"
                        words = f"the clip that the file applies first is left out, or has other limits: {reach}"
                        return [f"'{each.port.name}': {words}"]
                rows = step.apply(rows)
        return []

    def alone(self) -> list[str]:
        """The causes that a live check would name, of the answers alone."""
        judged = np.flatnonzero(self.compared.judged)
        tables = [{n: v[judged] for n, v in each.items()} for each in (self.compared.file, self.compared.allowed)]
        inputs = {name: values[judged] for name, values in self.inputs.items()}
        answers = Answers(len(judged), {}, tables[0], tables[1], reduced(self.path, inputs))
        found: list[str] = []
        for name, values in self.compared.saved.items():
            if not self.compared.beyond[name].any():
                continue
            method = Method("all at once", "saved")
            evidence = Evidence(name, method, np.arange(len(judged)), values[judged], answers, None, saved=True)
            if (precision := evidence.explained_by()) is not None:
                found.append(f"{precision}{_PRECISION}")
                continue
            found += live.causes_of(Judgement((), (), (evidence,), (), 0.0, 0.0, ()))
        return found


def _features(names: tuple[str, ...] | None, which: np.ndarray) -> str:
    listed = [names[index] if names is not None else str(index) for index in np.flatnonzero(which)]
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
