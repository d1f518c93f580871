"""Runs the rows of a certificate on this device, in the batches that users send, for the judge of live checks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from runtime.errors import InputError
from runtime.live.judge import Judgement, judge
from runtime.live.probe import Exchange, Method
from runtime.live.protocol import OutputTensor, Response
from runtime.model.certificate import Answers

from .running import Running

_SIZES = 2, 3, 5, 8, 16
_LARGE = 256


def run_rows(running: Running, answers: Answers, batch: int | None, at_proof: float | None) -> Judgement:
    """Run every row all at once, one by one, in small batches and in a large one that repeats them, and judge.

    ``batch`` is the number of rows that the file fixes: then all batches have it. Raises ModelError: it cannot be run;
    InputError: the rows are not of the file.
    """
    _refuse_uneven(answers)
    exchanges: list[Exchange] = []
    for how, rows in _batches(answers.rows, batch):
        outputs = running.run({name: values[rows] for name, values in answers.inputs.items()})
        tensors = {name: OutputTensor("FP32", y.shape, y.astype(np.float64)) for name, y in outputs.items()}
        exchanges.append(Exchange(Method(how, running.device), tuple(rows.tolist()), "", Response(tensors)))
    return judge(answers, exchanges, at_proof)


def _refuse_uneven(answers: Answers) -> None:
    """Raise InputError where the tables of a certificate, which may be edited, do not fit together."""
    shapes = {name: values.shape for name, values in answers.exact.items()}
    tables = answers.bound, *answers.reduced.values()
    even = all({name: values.shape for name, values in table.items()} == shapes for table in tables)
    if not (answers.inputs and shapes and even):
        hint = "make it again with mlpx build, export or verify -o"
        raise InputError(f"the certificate's answers have no inputs, or outputs that differ. What to do: {hint}")


def _batches(rows: int, batch: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """How the rows of a batch are sent, and which they are."""
    if batch is not None:
        for start in range(0, rows, batch):
            yield "in batches", (start + np.arange(batch)) % rows
        return
    yield "all at once", np.arange(rows)
    for row in range(rows):
        yield "one by one", np.array([row])
    for size in _SIZES:
        for start in range(0, rows, size):
            yield "in batches", (size - start - np.arange(size)) % rows  # in another order
    yield f"in a batch of {_LARGE}", np.arange(_LARGE) % rows
