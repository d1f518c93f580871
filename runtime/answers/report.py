"""The report on answers that were saved on another machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Worst:
    """The value that is off most, as a part of what is allowed there."""

    row: int
    """Counted from 1."""
    output: str
    index: int
    """Of the value in a row of the output."""
    feature: str
    """Its name, or its index where the file gives none."""
    saved: float
    file: float
    difference: float
    allowed: float


@dataclass(frozen=True)
class AnswersReport:
    """The verdict on a file and saved answers, and what it rests on.

    Examples:
        >>> import numpy as np
        >>> from runtime import check_answers
        >>> np.savez("wrong.npz", air=np.array([[21.0, 45.0]], np.float32), comfort=np.array([[0.1, 0.9]], np.float32))
        >>> report = check_answers("comfort.onnx", "wrong.npz", device="cpu")
        >>> report.agree, report.rows, report.rows_beyond
        (False, 1, 1)
    """

    path: str
    answers: str
    """The file of inputs and answers."""
    device: str
    rows: int
    judged: int
    """The rows that have a bound; the others were not judged."""
    values: int
    """Of the judged rows."""
    beyond: int
    """The values that are off by more than is allowed."""
    rows_beyond: int
    worst: Worst
    share: float
    """The largest difference as a part of what is allowed there; above 1 the answers differ."""
    rests_on: tuple[str, ...]
    """Where the bounds are from, in words."""
    causes: tuple[str, ...]
    """What explains the differences, as far as the figures allow."""
    notes: tuple[str, ...]
    seconds: float

    @property
    def agree(self) -> bool:
        """Whether every judged value is one that a correct runtime may give."""
        return not self.beyond
