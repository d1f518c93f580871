"""Whether a model that is served still answers the rows of its certificate as was proved.

The rows go the way of requests, into the model's queue, in three patterns: all in one request; one alone, another in
every turn; and each in a request of its own, all at the same time, so that they share a call. They wait and are
computed among the requests of clients, and only the comparison runs on a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import numpy as np

from runtime.live.judge import judge
from runtime.live.probe import Exchange, Method
from runtime.live.protocol import OutputTensor, Response
from runtime.model.certificate import Answers

from .loaded_model import LoadedModel
from .logs import Log
from .refusals import Busy, Late
from .statistics import NOT_ASKED, RIGHT, WRONG

_PATIENCE = 60.0
"""Seconds in which a model answers, or a call of it ends; otherwise it is not right."""
_turns = count()


async def check(model: LoadedModel, log: Log | None) -> None:
    """Ask a model for the rows of its certificate; ``model.fault`` says what is wrong then, and a log any change.

    Nothing happens where no certificate proves the file, or where it has no answers.
    """
    answers = None if model.certificate is None else model.certificate.answers
    if answers is None or not model.proved:
        model.fault = ""  # which may be that of an older file
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            fault = await _fault(model, answers, next(_turns))
    except (Busy, Late):
        if model.calling_seconds <= _PATIENCE:
            model.statistics.count_check(NOT_ASKED)
            return
        fault = f"a call of the model has not ended within {_PATIENCE:g} s"
    except TimeoutError:
        fault = f"no answer to the rows of the certificate within {_PATIENCE:g} s"
    except Exception as error:  # a model that fails, or a certificate whose rows are not the file's
        fault = f"no answer to the rows of the certificate: {type(error).__name__}: {error}"
    model.statistics.count_check(WRONG if fault else RIGHT)
    if log is not None and bool(fault) != bool(model.fault):
        place = {"model": model.name, "version": model.version}
        if fault:
            log.event("model_wrong", **place, reason=fault)
        else:
            log.event("model_right", **place, rows=answers.rows)
    model.fault = fault


async def _fault(model: LoadedModel, answers: Answers, turn: int) -> str:
    """What is wrong with the answers; "" where nothing is. Raises what the model does."""
    exchanges: list[Exchange] = []
    for method, requests in _requests(model, answers.rows, turn):
        futures = [
            model.infer({name: values[rows] for name, values in answers.inputs.items()}, len(rows), None)
            for rows in requests
        ]
        results = await asyncio.gather(*futures, return_exceptions=True)
        for rows, outputs in zip(requests, results, strict=True):
            if isinstance(outputs, BaseException):
                raise outputs
            tensors = {name: OutputTensor("FP32", y.shape, y.astype(np.float64)) for name, y in outputs.items()}
            exchanges.append(Exchange(method, tuple(rows.tolist()), "", Response(tensors)))
    assert model.certificate is not None
    judgement = await asyncio.to_thread(judge, answers, exchanges, model.certificate.largest)
    return "; ".join(finding.words for finding in judgement.findings)


def _requests(model: LoadedModel, rows: int, turn: int) -> Iterator[tuple[Method, list[np.ndarray]]]:
    """How rows are sent, and those of each request: requests that are given together are sent together."""
    every, tensors = np.arange(rows), "arrays"
    fixed = next((port.batch for port in model.signature.inputs.values() if port.batch is not None), None)
    if fixed is not None:
        for start in range(0, rows, fixed):
            yield Method("in batches", tensors), [(start + np.arange(fixed)) % rows]
        return
    size = model.signature.max_rows
    for start in range(0, rows, size):
        yield Method("all at once", tensors), [every[start : start + size]]
    yield Method("one by one", tensors), [every[[turn % rows]]]
    if model.batched:
        most = min(rows, model.queue_rows)
        for start in range(0, rows, most):
            yield Method("at the same time", tensors), list(every[start : start + most, None])
