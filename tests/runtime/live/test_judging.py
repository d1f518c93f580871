"""Judging what a server answered: correct answers pass, wrong ones are found, and what they are like is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from builder import MLPSpec, assemble
from export import write_variant
from runtime import Session
from runtime.live import causes
from runtime.live.causes import CAUSES, causes_of
from runtime.live.judge import Judgement, judge
from runtime.live.probe import Exchange, Method
from runtime.live.protocol import OutputTensor, Response, ServerError
from runtime.model.certificate import Answers, Certificate
from tests.support.cases import network, randomised, specs
from tests.support.live import ROWS, case, with_certificate
from tests.support.repeats import examples

ALL_AT_ONCE = Method("all at once", "JSON")


def asked_of(certificate: Certificate) -> tuple[Answers, float | None]:
    assert certificate.answers is not None
    return certificate.answers, certificate.largest


def judged(answers: Answers, outputs: dict[str, np.ndarray], at_proof: float | None) -> Judgement:
    """The judgement on these answers to all rows at once."""
    tensors = {name: OutputTensor("FP32", values.shape, values.astype(np.float64)) for name, values in outputs.items()}
    exchange = Exchange(ALL_AT_ONCE, tuple(range(answers.rows)), "1", Response(tensors, id="1"))
    return judge(answers, [exchange], at_proof)


@given(specs(deepest=6, widest=64), st.integers(0, 9))
@settings(max_examples=examples(10, of=25), deadline=None)
def test_correct_float32_answers_pass(tmp_path_factory: pytest.TempPathFactory, spec: MLPSpec, seed: int) -> None:
    module = randomised(assemble(spec), seed)
    certificate, file = with_certificate(module, tmp_path_factory.mktemp("any"), spec)
    answers, at_proof = asked_of(certificate)
    (inputs,), (name,) = answers.inputs.values(), answers.exact
    with Session(file, "cpu") as session, torch.inference_mode():
        alone = np.concatenate([session.predict(row[None]) for row in inputs])
        for values in (session.predict(inputs), alone, module(torch.from_numpy(inputs)).numpy()):
            judgement = judged(answers, {name: values}, at_proof)
            assert judgement.findings == ()
            assert judgement.share <= 1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_single_value_beyond_its_bound_is_found(data: st.DataObject) -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()
    row, column = data.draw(st.integers(0, len(exact) - 1)), data.draw(st.integers(0, exact.shape[1] - 1))
    times = data.draw(st.floats(1.001, 1e30)) * data.draw(st.sampled_from([-1, 1]))
    values = exact.copy()
    values[row, column] += times * answers.bound[name][row, column]
    (finding,) = judged(answers, {name: values}, at_proof).findings
    assert finding.kind == "bound"
    assert f"(row {row}, value {column})" in finding.words
    assert f"1 of {10 * ROWS}" in finding.words


@given(st.permutations(range(ROWS)))
@settings(max_examples=60, deadline=None)
def test_any_permutation_of_rows_is_named(order: list[int]) -> None:
    assume(order != sorted(order))
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()
    judgement = judged(answers, {name: exact[order]}, at_proof)
    row = next(i for i, other in enumerate(order) if i != other)
    assert causes_of(judgement)[0].startswith(f"rows are mixed up: row {row} has the answer of row {order[row]}")


@pytest.mark.parametrize("precision", ["TF32", "TF32, truncated", "bfloat16", "float16"])
def test_a_reduced_precision_is_named_even_within_the_bound(precision: str) -> None:
    answers, at_proof = asked_of(case())
    wide = replace(answers, bound={name: bound * 1e4 for name, bound in answers.bound.items()})
    for bounds in (answers, wide):
        judgement = judged(bounds, dict(answers.reduced[precision]), at_proof)
        assert any(f.kind == "precision" and f"what {precision} gives" in f.words for f in judgement.findings)
        assert causes_of(judgement)[0].startswith(f"{precision}: ")
        assert precision in judgement.told_apart
    assert {f.kind for f in judged(wide, dict(answers.reduced[precision]), at_proof).findings} == {"precision"}


def test_a_precision_that_the_rows_do_not_tell_is_not_accused() -> None:
    answers, at_proof = asked_of(case())
    right = {name: exact.astype("f4") for name, exact in answers.exact.items()}
    judgement = judged(replace(answers, reduced={"TF32": right}), right, at_proof)
    assert judgement.findings == ()
    assert judgement.told_apart == ()


@pytest.mark.parametrize("precision", ["TF32", "TF32, truncated", "bfloat16", "float16"])
def test_a_reduced_precision_that_answers_now_and_then_is_found(precision: str) -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()
    wide = replace(answers, bound={name: answers.bound[name] * 1e4})
    values = exact.astype("f4")
    values[3] = answers.reduced[precision][name][3]
    (finding,) = judged(wide, {name: values}, at_proof).findings
    assert finding.kind == "precision"


def test_a_precision_that_overflows_is_told_from_float32() -> None:
    answers, at_proof = asked_of(case())
    right = {name: exact.astype("f4") for name, exact in answers.exact.items()}
    overflowed = {"float16": {name: np.full(exact.shape, np.nan, "f4") for name, exact in answers.exact.items()}}
    judgement = judged(replace(answers, reduced=overflowed), right, at_proof)
    assert judgement.findings == ()
    assert judgement.told_apart == ("float16",)


def softmax(y: np.ndarray) -> np.ndarray:
    return np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)


WRONG: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "not numbers": (lambda y: np.where(y == y.max(), np.nan, y), "values that are not numbers"),
    "one answer": (lambda y: np.repeat(y[4:5], len(y), axis=0), "every row has the answer of row 4"),
    "zeros": (np.zeros_like, "every row has the same answer, all zeros"),
    "columns moved": (lambda y: y[:, ::-1], "in another order: those of 9, 8, 7, 6, 5, 4, 3, 2, 1, 0"),
    "transposed": (lambda y: np.ascontiguousarray(y.T).reshape(y.shape), "column by column"),
    "softmax": (softmax, "softmax is applied to"),
    "sigmoid": (lambda y: 1 / (1 + np.exp(-y)), "sigmoid is applied to"),
    "log-softmax": (lambda y: np.log(softmax(y)), "log-softmax is applied to"),
    "relu": (lambda y: np.maximum(y, 0), "relu is applied to"),
    "a scale": (lambda y: 2 * y + 1, "the right ones times (2, 2, 2, 2, …) plus (1, 1, 1, 1, …)"),
    "rounded": (lambda y: np.round(y, 2), "rounds its answers to 2 decimals"),
    "similar": (lambda y: y + np.random.default_rng(0).normal(0, 0.1 * y.std(), y.shape), "a network trained alike"),
    "unrelated": (lambda y: np.random.default_rng(0).normal(size=y.shape), "another file"),
}
"""What is done to right answers, and what is to be said of it."""


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_explained(name: str) -> None:
    answers, at_proof = asked_of(case())
    ((output, exact),) = answers.exact.items()
    judgement = judged(answers, {output: WRONG[name][0](exact)}, at_proof)
    assert not {finding.kind for finding in judgement.findings} - {"bound", "not a number"}
    assert judgement.findings
    assert WRONG[name][1] in causes_of(judgement)[0]


def test_answers_that_are_the_same_for_every_row_by_right_are_not_explained_by_that() -> None:
    answers, at_proof = asked_of(case())
    ((output, exact),) = answers.exact.items()
    constant = replace(answers, exact={output: np.ones_like(exact)})
    judgement = judged(constant, {output: np.full_like(exact, 2)}, at_proof)
    assert causes_of(judgement) == ["the figures do not show the cause"]


def test_right_answers_that_differ_by_rounding_alone_are_not_correlated_with() -> None:
    answers, at_proof = asked_of(case())
    ((output, exact),) = answers.exact.items()
    rounding = 1e-9 * np.random.default_rng(0).standard_normal(exact.shape)
    alike = replace(answers, exact={output: 1 + rounding}, bound={output: np.full_like(exact, 1e-6)})
    judgement = judged(alike, {output: np.random.default_rng(1).standard_normal(exact.shape)}, at_proof)
    assert causes_of(judgement) == ["the figures do not show the cause"]


def test_few_rows_do_not_show_a_scale() -> None:
    answers, at_proof = asked_of(case())
    ((output, exact),) = answers.exact.items()
    for rows, shown in ((5, False), (6, True)):
        values = 2 * exact[:rows] + 1
        answer = Response({output: OutputTensor("FP32", values.shape, values)})
        judgement = judge(answers, [Exchange(ALL_AT_ONCE, tuple(range(rows)), "1", answer)], at_proof)
        assert ("the right ones times (2, 2" in causes_of(judgement)[0]) == shown


def test_without_the_difference_at_proof_time_a_precision_is_told_from_the_bound_alone() -> None:
    answers, _ = asked_of(case())
    right = {name: exact.astype("f4") for name, exact in answers.exact.items()}
    for factor, told_apart in ((1, True), (1e6, False)):
        bounds = replace(answers, bound={name: factor * bound for name, bound in answers.bound.items()})
        judgement = judged(bounds, right, None)
        assert judgement.findings == ()
        assert ("bfloat16" in judgement.told_apart) == told_apart


def test_a_function_that_is_left_out_is_named(tmp_path: Path) -> None:
    spec, module = network([{"linear": 16}, "relu", {"linear": 5}, "softmax"], features=9)
    answers, at_proof = asked_of(with_certificate(module, tmp_path, spec)[0])
    ((name, _),) = answers.exact.items()
    (inputs,) = answers.inputs.values()
    with torch.inference_mode():
        logits = module[:-1](torch.from_numpy(inputs)).numpy()
    assert causes_of(judged(answers, {name: logits}, at_proof))[0].startswith("softmax is left out of")


def test_files_in_fewer_bits_are_found_and_called_alike(tmp_path: Path) -> None:
    spec, module = network([{"linear": 64}, "relu", {"linear": 64}, "relu", {"linear": 10}], features=32)
    certificate, file = with_certificate(module, tmp_path, spec)
    answers, at_proof = asked_of(certificate)
    (inputs,), (name,) = answers.inputs.values(), answers.exact
    for kind in ("float16", "weights8"):
        with Session(write_variant(file, kind).path, "cpu") as session:
            judgement = judged(answers, {name: session.predict(inputs)}, at_proof)
        assert judgement.findings
        assert "similar to the right ones" in causes_of(judgement)[0]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.left(x), self.right(x)


def test_outputs_that_are_exchanged_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    answers, at_proof = asked_of(with_certificate(Two().eval(), tmp_path)[0])
    first, second = answers.exact
    exchanged = {first: answers.exact[second], second: answers.exact[first]}
    assert f"'{first}' holds what belongs to '{second}'" in causes_of(judged(answers, exchanged, at_proof))[0]
    unlike = {first: answers.exact[first], second: answers.exact[second][::-1]}
    assert causes_of(judged(answers, unlike, at_proof))[0].startswith("rows are mixed up")


def test_a_batch_that_is_wrong_where_rows_alone_are_right_is_said() -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()

    def exchange(how: str, rows: tuple[int, ...], values: np.ndarray) -> Exchange:
        return Exchange(Method(how, "JSON"), rows, "", Response({name: OutputTensor("FP32", values.shape, values)}))

    alone = [exchange("one by one", (i,), exact[i : i + 1]) for i in range(ROWS)]
    judgement = judge(answers, [*alone, exchange("all at once", tuple(range(ROWS)), exact[::-1])], at_proof)
    batching, cause = causes_of(judgement)
    assert batching == "it depends on how the rows are sent: right one by one; wrong all at once"
    assert cause.startswith("rows are mixed up")
    assert "rows sent all at once (JSON)" in judgement.findings[0].words


def response(shape: tuple[int, ...], datatype: str = "FP32", name: str = "output") -> Response:
    return Response({name: OutputTensor(datatype, shape, None if datatype == "BYTES" else np.zeros(shape))})


FORMS: dict[str, tuple[Response | ServerError, str, str]] = {
    "nothing": (ServerError("HTTP 500: out of memory", 500), "no answer", "HTTP 500: out of memory"),
    "another name": (response((ROWS, 10), name="scores"), "form", "there are scores"),
    "no output": (Response({}), "form", "there are none"),
    "float64": (response((ROWS, 10), "FP64"), "form", "FP64 instead of FP32"),
    "text": (response((ROWS, 10), "BYTES"), "form", "BYTES instead of FP32"),
    "turned": (response((10, ROWS)), "form", "in reverse order"),
    "one row": (response((1, 10)), "form", f"[1, 10] instead of [{ROWS}, 10]"),
    "another request": (Response({}, id="2"), "form", "the id of another request"),
}


@pytest.mark.parametrize("name", FORMS)
def test_answers_of_another_form_are_found(name: str) -> None:
    answers, at_proof = asked_of(case())
    answer, kind, words = FORMS[name]
    (finding,) = judge(answers, [Exchange(ALL_AT_ONCE, tuple(range(ROWS)), "1", answer)], at_proof).findings
    assert finding.kind == kind
    assert words in finding.words


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_whatever_comes_is_judged(data: st.DataObject) -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()
    numbers = st.one_of(st.floats(), st.sampled_from([0.0, 1e308, -1e308, 1e-320, float(exact[0, 0])]))
    values = data.draw(st.lists(numbers, min_size=1, max_size=20))
    judgement = judged(answers, {name: np.resize(np.array(values), exact.shape)}, at_proof)
    assert judgement.findings
    assert causes_of(judgement)
    json.dumps([judgement.largest, judgement.share, judgement.asked[0].largest], allow_nan=False)


def test_the_causes_are_tried_in_the_documented_order() -> None:
    lines = [line for line in (causes.__doc__ or "").splitlines() if line.startswith("    ")]
    documented = [line.split("  ")[2].strip() for line in lines]
    assert documented == [check.__name__.strip("_").replace("_", " ") for check in CAUSES]
