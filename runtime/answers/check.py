"""Compares what a file gives on this device with answers that were saved where its network was trained.

The file's network in exact arithmetic lies between the two: a correct float32 runtime is within its bound of it, here
and there. So the two may differ by twice the bound, or by once the bound where the answers were computed in float64,
whose own error is smaller by a factor of 2^29. The bound is that of the certificate, for rows within its box. For
other rows, and where a difference is larger than the file ever showed, a ``Bounder`` gives the bound of each row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.contracts import Contract, contract
from runtime.errors import InputError
from runtime.files import through_link
from runtime.live.judge import USUAL_RATIO
from runtime.model.bound import Bound
from runtime.model.certificate import Certificate, read_certificate
from runtime.session.session import Session
from runtime.timing.rows import batches

from .causes import causes_of
from .evidence import Compared
from .report import AnswersReport, Worst
from .saved import Saved, read_saved

Arrays = Mapping[str, np.ndarray]
Bounder = Callable[[Path, Arrays], Arrays]
"""Of a file, and inputs by name: the bound of each value of each row by itself, infinite without one."""
_IN_FLOAT64 = 1 + 2.0**-20
"""The part of the bound that answers computed in float64 may be off, with room for their own error."""
_NOT_FLOAT32 = 2.0**-50
"""Of an answer: the rounding of a float64 number, with room."""
_MOST_ROWS, _FURTHEST = 256, 64
"""The rows without another bound that get one of their own, those furthest off first; and others that are far off."""
_HINT = 'What to do: pip install "mlpx[build]", with which each row gets a bound of its own, or declare ranges'


def check_answers(
    path: str | Path,
    answers: str | Path,
    *,
    certificate: Certificate | str | Path | None = None,
    device: str = "auto",
    bounder: Bounder | None = None,
) -> AnswersReport:
    """Check whether a file, on this device, gives the answers in a ``.npz`` or ``.csv`` file; see ``read_saved``.

    ``certificate`` is by default NAME.parity.json beside the file. ``report.agree`` is the verdict.

    Raises InputError: the answers or the certificate cannot be read, or no row has a bound; ModelError: the file cannot
    be read or run; ProviderError: the device is not available.

    Examples:
        >>> import numpy as np
        >>> from mlpx import Session
        >>> from runtime import check_answers
        >>> rows = np.array([[21.0, 45.0], [30.0, 80.0]], np.float32)
        >>> np.savez("answers.npz", air=rows, comfort=Session("comfort.onnx", device="cpu").predict(rows))
        >>> check_answers("comfort.onnx", "answers.npz", device="cpu").agree
        True
    """
    start, path = time.monotonic(), through_link(path)
    policy = contract(path)
    saved = read_saved(answers, [each.port for each in policy.inputs], [each.port for each in policy.outputs])
    known = _certificate(path, certificate)
    with Session(path, device) as session:

        def run(rows: Arrays) -> Arrays:
            parts = [session.run(part) for part, _ in batches(dict(rows), session.inputs[0].shape[0])]
            count = len(next(iter(rows.values())))
            whole = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
            return {name: values.reshape(count, -1).astype(np.float64) for name, values in whole.items()}

        outputs = run(saved.inputs)
        bounds = _Bounds(path, policy, saved, known)
        compared = bounds.compare(outputs)
        if bounder is not None and len(rows := bounds.wanted(compared)):
            bounds.add(rows, bounder(path, {name: values[rows] for name, values in saved.inputs.items()}))
            compared = bounds.compare(outputs)
        if bounds.missing.all():
            raise InputError(f"{answers}: {bounds.why}, so nothing says how far they may be off. {bounds.hint}")
        notes = [*saved.notes, *bounds.notes(compared)]
        causes = causes_of(compared, policy, saved, run, path) if compared.wrong else []
        return replace(
            _report(compared, policy, path, Path(answers), session.device),
            rests_on=tuple(bounds.rests_on),
            causes=tuple(causes),
            notes=tuple(notes),
            seconds=time.monotonic() - start,
        )


def _certificate(path: Path, given: Certificate | str | Path | None) -> Certificate | None:
    """The certificate of this file; None without one beside it. Raises InputError: a given one is of another."""
    if given is None:
        with suppress(InputError):
            beside = read_certificate(path.with_name(f"{path.stem}.parity.json"))
            return beside if beside.is_of(path) else None
        return None
    known = given if isinstance(given, Certificate) else read_certificate(given)
    if not known.is_of(path):
        raise InputError(f"{known.path}: is of another file than {path}. What to do: give the certificate of this file")
    return known


def _is_unusual(compared: Compared, known: Certificate | None) -> bool:
    """Whether the answers differ by more than another order of the sums explains, though they may be in the bound."""
    return known is None or known.largest is None or compared.largest > USUAL_RATIO * max(known.largest, 2.0**-24)


class _Bounds:
    """The bound of each value, and where it is from."""

    def __init__(self, path: Path, policy: Contract, saved: Saved, known: Certificate | None):
        self._saved, self._known, self._policy = saved, known, policy
        self.bounds = {each.port.name: np.full((saved.rows, each.width), np.inf) for each in policy.outputs}
        self.rests_on: list[str] = []
        self._own = False
        self.why = f"{path.name} has no certificate beside it with a bound for its declared ranges"
        bound = None if known is None else known.bound
        if bound is not None and bound.largest is not None:
            inside = self._inside(bound)
            for name, found in bound.outputs.items():
                if name in self.bounds and len(found.bound) == self.bounds[name].shape[1]:
                    self.bounds[name][inside] = found.bound
            words = f"the certificate's bound for every input of the declared ranges, of {int(inside.sum()):,} rows"
            self.rests_on += [words] if inside.any() else []
            self.why = "every row is outside the declared ranges"

    @property
    def missing(self) -> np.ndarray:
        """(rows,): which rows have a value without a bound."""
        return np.any([~np.isfinite(values).all(axis=1) for values in self.bounds.values()], axis=0)

    @property
    def hint(self) -> str:
        """What to do about rows without a bound."""
        return "What to do: compare fewer rows, or declare ranges that hold them" if self._own else _HINT

    def _inside(self, bound: Bound) -> np.ndarray:
        inside = np.ones(self._saved.rows, bool)
        for name, values in self._saved.inputs.items():
            low, high = np.array(bound.box[name], np.float64).T if name in bound.box else (np.nan, np.nan)
            rows = values.reshape(len(values), -1)
            with np.errstate(invalid="ignore"):
                inside &= ((rows >= np.float32(low)) & (rows <= np.float32(high))).all(axis=1)
        return inside

    def wanted(self, compared: Compared) -> np.ndarray:
        """The rows whose own bounds are wanted: those without one, and the furthest off where that is unusual."""
        far = np.max([np.nan_to_num(each, nan=np.inf).max(axis=1) for each in compared.difference.values()], axis=0)
        first = np.argsort(-far, kind="stable")
        missing = first[self.missing[first]][:_MOST_ROWS]
        return np.union1d(missing, first[:_FURTHEST] if _is_unusual(compared, self._known) else missing)

    def add(self, rows: np.ndarray, bounds: Arrays) -> None:
        """Bounds of these rows by themselves."""
        self._own = True
        for name, values in bounds.items():
            self.bounds[name][rows] = np.minimum(self.bounds[name][rows], values)
        count = int((~np.any([np.isinf(values).any(axis=1) for values in bounds.values()], axis=0)).sum())
        self.rests_on += [f"a bound of each row by itself, of {count:,} rows"] if count else []

    def compare(self, outputs: Arrays) -> Compared:
        """The answers beside what the file gives, with what is allowed."""
        saved, bound = self._saved, None if self._known is None else self._known.bound
        allowed: dict[str, np.ndarray] = {}
        for name, values in self.bounds.items():
            folding = None if bound is None or name not in bound.outputs else bound.outputs[name].folding
            allowed[name] = values * (_IN_FLOAT64 if name in saved.in_float64 else 2) + saved.slack[name]
            allowed[name] = allowed[name] + (0.0 if folding is None else np.array(folding))
            if name in saved.in_float64:
                allowed[name] = allowed[name] + _NOT_FLOAT32 * np.abs(saved.outputs[name])
        return Compared(saved.outputs, {name: outputs[name] for name in allowed}, allowed)

    def notes(self, compared: Compared) -> list[str]:
        """What a reader must know of the verdict."""
        saved, notes = self._saved, list[str]()
        if count := int(self.missing.sum()):
            notes.append(f"{count:,} of {saved.rows:,} rows have no bound, and were not judged. {self.hint}")
        if saved.in_float64:
            notes.append("the answers were computed in float64, so they may be off by once the bound")
        written = [name for name in saved.slack if (saved.slack[name] > compared.allowed[name] / 2).any()]
        if written:
            notes.append("the answers are written with so few digits that this decides how far they may be off")
        if self._policy.notes and (self._known is None or self._known.bound is None):
            notes.append("layers were folded into one in the file, which moves its results by about a rounding more")
        if self._known is not None and not self._known.proved:
            notes.append(f"{self._known.path.name} gives the file the verdict '{self._known.verdict}'")
        if not compared.wrong and _is_unusual(compared, self._known) and self._known is not None:
            notes.append(
                f"the largest difference, {compared.largest:.2g}, is more than another order of the sums explains, and "
                "within the bound; TF32 or float16 may be on where the answers were saved"
            )
        return notes


def _report(compared: Compared, policy: Contract, path: Path, answers: Path, device: str) -> AnswersReport:
    name, row, index = compared.worst
    port = next(each for each in policy.outputs if each.port.name == name)
    beyond = compared.beyond
    worst = Worst(
        row=row + 1,
        output=name,
        index=index,
        feature=port.names[index] if port.names is not None else str(index),
        saved=float(compared.saved[name][row, index]),
        file=float(compared.file[name][row, index]),
        difference=float(compared.difference[name][row, index]),
        allowed=float(compared.allowed[name][row, index]),
    )
    judged = compared.judged
    return AnswersReport(
        path=str(path),
        answers=str(answers),
        device=device,
        rows=len(judged),
        judged=int(judged.sum()),
        values=sum(int(np.isfinite(values).sum()) for values in compared.allowed.values()),
        beyond=sum(int(values.sum()) for values in beyond.values()),
        rows_beyond=int(np.any([values.any(axis=1) for values in beyond.values()], axis=0).sum()),
        worst=worst,
        share=compared.share,
        rests_on=(),
        causes=(),
        notes=(),
        seconds=0.0,
    )
