"""The checks of a proof as they are made, and the verdict that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from .report import Check, Verdict


class Stop(Exception):
    """No further check is wanted, or can be made."""


@dataclass
class Findings:
    """The verdict: "failed" says that the file is wrong, "not proved" that it could not be shown right."""

    stop_early: bool = False
    checks: list[Check] = field(default_factory=list)
    verdict: Verdict = "proved"
    why: str = "every check passed"

    def passed(self, name: str, words: str) -> None:
        self.checks.append(Check(name=name, outcome="passed", words=words))

    def warned(self, name: str, words: str) -> None:
        self.checks.append(Check(name=name, outcome="warning", words=words))

    def unproved(self, name: str, words: str) -> None:
        """A check that could not be passed, without any sign that the file is wrong."""
        self.checks.append(Check(name=name, outcome="failed", words=words))
        if self.verdict == "proved":
            self.verdict, self.why = "not proved", words

    def failed(self, name: str, words: str) -> None:
        """The file is wrong. Raises Stop where the first failure is enough."""
        self.checks.append(Check(name=name, outcome="failed", words=words))
        if self.verdict != "failed":
            self.verdict, self.why = "failed", words
        if self.stop_early:
            raise Stop


def counted(count: int, noun: str) -> str:
    """A number and its noun: 1 layer, 2 layers."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
