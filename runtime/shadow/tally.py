"""Counters of a shadow: by model, in Prometheus' format, and in words at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from runtime.prometheus import head, line

from .outcomes import DIFFERENCES, LEFT_OUT, MEANING, Outcome

_MOST = 1000
OTHERS = "(others)"
"""Counts what asks for further models: the names are the clients'."""


@dataclass
class ModelTally:
    """Of one model."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    """By kind."""
    rows: int = 0
    moved: int = 0
    apart: float = 0.0
    """The largest difference."""
    share: float | None = None
    """The largest difference over what is allowed there."""
    old_seconds: float = 0.0
    new_seconds: float = 0.0
    """Sums, over the outcomes with an answer of the new server."""
    answered: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.outcomes[outcome.kind] += 1
        self.rows += outcome.rows
        self.moved += outcome.moved
        self.apart = max(self.apart, outcome.apart or 0.0)
        if outcome.share is not None:
            self.share = max(self.share or 0.0, outcome.share)
        if outcome.new_seconds is not None:
            self.answered += 1
            self.old_seconds += outcome.old_seconds
            self.new_seconds += outcome.new_seconds

    def join(self, other: ModelTally) -> None:
        """Add what another process counted."""
        self.outcomes.update(other.outcomes)
        self.apart = max(self.apart, other.apart)
        self.share = other.share if self.share is None else max(self.share, other.share or 0.0)
        for name in ("rows", "moved", "old_seconds", "new_seconds", "answered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Tally:
    """Of everything since the start."""

    requests: int = 0
    """Inference requests that the old server answered."""
    mirrored: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])
    """By the reason, a key of ``LEFT_OUT``."""
    models: dict[str, ModelTally] = field(default_factory=dict[str, ModelTally])
    bounds: dict[str, str] = field(default_factory=dict[str, str])
    """What is known of the bounds of each model, in words."""

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self._of(outcome.model).add(outcome)

    def join(self, other: Tally) -> None:
        """Add what another process counted."""
        self.requests += other.requests
        self.mirrored += other.mirrored
        self.left_out.update(other.left_out)
        self.bounds |= other.bounds
        for name, model in other.models.items():
            self._of(name).join(model)

    def _of(self, model: str) -> ModelTally:
        known = model in self.models or len(self.models) < _MOST
        return self.models.setdefault(model if known else OTHERS, ModelTally())

    @property
    def compared(self) -> int:
        """Requests with an outcome."""
        return sum(model.outcomes.total() for model in self.models.values())

    @property
    def differences(self) -> int:
        """Answers that say that the new server computes something else."""
        return sum(model.outcomes[kind] for model in self.models.values() for kind in DIFFERENCES)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        models = {
            name: {
                "outcomes": {kind: model.outcomes[kind] for kind in MEANING},
                "rows": model.rows,
                "moved": model.moved,
                "apart": model.apart,
                "share": model.share,
                "old_ms": _mean_ms(model.old_seconds, model.answered),
                "new_ms": _mean_ms(model.new_seconds, model.answered),
                "bounds": self.bounds.get(name),
            }
            for name, model in sorted(self.models.items())
        }
        left_out = {reason: self.left_out[reason] for reason in LEFT_OUT}
        counts = {"requests": self.requests, "mirrored": self.mirrored, "compared": self.compared}
        return {**counts, "differences": self.differences, "left_out": left_out, "models": models}

    def words(self) -> Iterator[str]:
        """The summary, a line each."""
        yield f"{self.requests:,} requests, {self.mirrored:,} mirrored, {self.compared:,} compared"
        for reason, words in LEFT_OUT.items():
            if count := self.left_out[reason]:
                yield f"{count:,} not mirrored: {words}"
        for name, model in sorted(self.models.items()):
            yield f"{name}: {self.bounds.get(name, 'no bound was asked for')}"
            for kind, words in MEANING.items():
                if count := model.outcomes[kind]:
                    yield f"{name}: {count:,} {kind} ({words})"
            if model.apart:
                share = "" if model.share is None else f", {model.share:.3g} of what the bounds allow there at most"
                moved = f"; another largest value in {model.moved:,} of {model.rows:,} rows" if model.moved else ""
                yield f"{name}: largest difference {model.apart:.3g}{share}{moved}"
            if model.answered:
                old, new = (_mean_ms(each, model.answered) for each in (model.old_seconds, model.new_seconds))
                yield f"{name}: an answer took {old:.2f} ms from the old server, {new:.2f} ms from the new one (means)"

    def metrics(self) -> str:
        """In Prometheus' text format."""
        return "\n".join(self._metrics()) + "\n"

    def _metrics(self) -> Iterator[str]:
        yield from head("mlpx_shadow_requests_total", "counter", "Inference requests that the old server answered.")
        yield line("mlpx_shadow_requests_total", self.requests)
        yield from head("mlpx_shadow_mirrored_total", "counter", "Requests that were given to the comparing process.")
        yield line("mlpx_shadow_mirrored_total", self.mirrored)
        yield from head("mlpx_shadow_left_out_total", "counter", "Requests that were not mirrored, by the reason.")
        for reason in LEFT_OUT:
            yield line("mlpx_shadow_left_out_total", self.left_out[reason], reason=reason)
        name = "mlpx_shadow_outcomes_total"
        yield from head(name, "counter", "Mirrored requests, by what the comparison came to.")
        models = [(_escaped(name), model) for name, model in sorted(self.models.items())]
        for model, tally in models:
            for kind in MEANING:
                yield line(name, tally.outcomes[kind], model=model, outcome=kind)
        for name, kind, text, attribute in (
            ("mlpx_shadow_rows_total", "counter", "Rows that were compared.", "rows"),
            ("mlpx_shadow_moved_rows_total", "counter", "Rows whose largest value is another one.", "moved"),
            ("mlpx_shadow_largest_difference", "gauge", "The largest difference of two numbers.", "apart"),
            ("mlpx_shadow_largest_share", "gauge", "The largest difference over what the bounds allow.", "share"),
            ("mlpx_shadow_old_seconds_total", "counter", "Seconds of the old server's answers.", "old_seconds"),
            ("mlpx_shadow_new_seconds_total", "counter", "Seconds of the new server's answers.", "new_seconds"),
            ("mlpx_shadow_answers_total", "counter", "Answers of the new server that were timed.", "answered"),
        ):
            yield from head(name, kind, text)
            for model, tally in models:
                if (value := getattr(tally, attribute)) is not None:
                    yield line(name, value, model=model)


def _mean_ms(seconds: float, count: int) -> float | None:
    return 1e3 * seconds / count if count else None


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
