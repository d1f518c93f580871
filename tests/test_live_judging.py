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
from runtime.live.causes import CAUSES, causes_of
from runtime.live.judge import Heard, Judgement, judge
from runtime.live.protocol import Fault, Output, Reply
from runtime.model.certificate import Answers, Certificate

from .cases import network, randomised, specs
from .live import case, certified


def asked_of(certificate: Certificate) -> tuple[Answers, float | None]:
    assert certificate.answers is not None
    return certificate.answers, certificate.largest


def judged(
    answers: Answers, found: dict[str, np.ndarray], at_proof: float | None, how: str = "all at once"
) -> Judgement:
    outputs = {name: Output("FP32", values.shape, values.astype(np.float64)) for name, values in found.items()}
    heard = Heard(how, "JSON", tuple(range(answers.rows)), "1", Reply(outputs, request="1"))
    return judge(answers, [heard], at_proof)


@given(specs(deepest=6, widest=64), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_correct_float32_answers_pass(tmp_path_factory: pytest.TempPathFactory, spec: MLPSpec, seed: int) -> None:
    module = randomised(assemble(spec), seed)
    certificate, file = certified(module, tmp_path_factory.mktemp("any"), spec)
    answers, at_proof = asked_of(certificate)
    (inputs,), (name,) = answers.inputs.values(), answers.exact
    with Session(file, "cpu") as session, torch.inference_mode():
        alone = np.concatenate([session.predict(row[None]) for row in inputs])
        for found in (session.predict(inputs), alone, module(torch.from_numpy(inputs)).numpy()):
            judgement = judged(answers, {name: found}, at_proof)
            assert judgement.findings == () and judgement.share <= 1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_single_value_beyond_its_bound_is_found(data: st.DataObject) -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()
    row, column = data.draw(st.integers(0, len(exact) - 1)), data.draw(st.integers(0, exact.shape[1] - 1))
    times = data.draw(st.floats(1.001, 1e30)) * data.draw(st.sampled_from([-1, 1]))
    found = exact.copy()
    found[row, column] += times * answers.bound[name][row, column]
    (finding,) = judged(answers, {name: found}, at_proof).findings
    assert finding.kind == "bound" and f"(row {row}, value {column})" in finding.words and "1 of 120" in finding.words


@given(st.permutations(range(12)))
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
    wide = replace(answers, bound={name: held * 1e4 for name, held in answers.bound.items()})
    for given_bounds in (answers, wide):
        judgement = judged(given_bounds, dict(answers.reduced[precision]), at_proof)
        assert any(f.kind == "precision" and f"what {precision} gives" in f.words for f in judgement.findings)
        assert causes_of(judgement)[0].startswith(f"{precision}: ")
        assert precision in judgement.told_apart
    assert {f.kind for f in judged(wide, dict(answers.reduced[precision]), at_proof).findings} == {"precision"}


def test_a_precision_that_the_rows_do_not_tell_is_not_accused() -> None:
    answers, at_proof = asked_of(case())
    same = replace(answers, reduced={"TF32": {name: held.astype("f4") for name, held in answers.exact.items()}})
    judgement = judged(same, {name: held.astype("f4") for name, held in answers.exact.items()}, at_proof)
    assert judgement.findings == () and judgement.told_apart == ()


@pytest.mark.parametrize("precision", ["TF32", "TF32, truncated", "bfloat16", "float16"])
def test_a_reduced_precision_that_answers_now_and_then_is_found(precision: str) -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()
    wide = replace(answers, bound={name: answers.bound[name] * 1e4})
    found = exact.astype("f4")
    found[3] = answers.reduced[precision][name][3]
    (finding,) = judged(wide, {name: found}, at_proof).findings
    assert finding.kind == "precision"


def test_a_precision_that_overflows_is_told_from_float32() -> None:
    answers, at_proof = asked_of(case())
    over = {"float16": {name: np.full(held.shape, np.nan, "f4") for name, held in answers.exact.items()}}
    judgement = judged(
        replace(answers, reduced=over), {name: held.astype("f4") for name, held in answers.exact.items()}, at_proof
    )
    assert judgement.findings == () and judgement.told_apart == ("float16",)


def softmax(y: np.ndarray) -> np.ndarray:
    return np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)


WRONG: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "not numbers": (lambda y: np.where(y == y.max(), np.nan, y), "values that are not numbers"),
    "one answer": (lambda y: np.repeat(y[4:5], len(y), axis=0), "every row has the answer of row 4"),
    "zeros": (np.zeros_like, "every row has the same answer, zeros"),
    "columns moved": (lambda y: y[:, ::-1], "in another order: those of 9, 8, 7, 6, 5, 4, 3, 2, 1, 0"),
    "laid out": (lambda y: np.ascontiguousarray(y.T).reshape(y.shape), "column by column"),
    "softmax": (softmax, "softmax is applied to"),
    "sigmoid": (lambda y: 1 / (1 + np.exp(-y)), "sigmoid is applied to"),
    "log-softmax": (lambda y: np.log(softmax(y)), "log-softmax is applied to"),
    "relu": (lambda y: np.maximum(y, 0), "relu is applied to"),
    "a scale": (lambda y: 2 * y + 1, "the right ones times (2, 2, 2, 2, …) plus (1, 1, 1, 1, …)"),
    "rounded": (lambda y: np.round(y, 2), "rounds its answers to 2 decimals"),
    "alike": (lambda y: y + np.random.default_rng(0).normal(0, 0.1 * y.std(), y.shape), "a network trained alike"),
    "unrelated": (lambda y: np.random.default_rng(0).normal(size=y.shape), "another file"),
}
"""What is done to right answers, and what is to be said of it."""


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_explained(name: str) -> None:
    answers, at_proof = asked_of(case())
    ((output, exact),) = answers.exact.items()
    judgement = judged(answers, {output: WRONG[name][0](exact)}, at_proof)
    assert not {finding.kind for finding in judgement.findings} - {"bound", "not a number"}
    assert judgement.findings and WRONG[name][1] in causes_of(judgement)[0]


def test_a_function_that_is_left_out_is_named(tmp_path: Path) -> None:
    spec, module = network([{"linear": 16}, "relu", {"linear": 5}, "softmax"], features=9)
    answers, at_proof = asked_of(certified(module, tmp_path, spec)[0])
    ((name, _),) = answers.exact.items()
    (inputs,) = answers.inputs.values()
    with torch.inference_mode():
        logits = module[:-1](torch.from_numpy(inputs)).numpy()
    assert causes_of(judged(answers, {name: logits}, at_proof))[0].startswith("softmax is left out of")


def test_files_in_fewer_bits_are_found_and_called_alike(tmp_path: Path) -> None:
    spec, module = network([{"linear": 64}, "relu", {"linear": 64}, "relu", {"linear": 10}], features=32)
    certificate, file = certified(module, tmp_path, spec)
    answers, at_proof = asked_of(certificate)
    (inputs,), (name,) = answers.inputs.values(), answers.exact
    for kind in ("float16", "weights8"):
        with Session(write_variant(file, kind).path, "cpu") as session:
            judgement = judged(answers, {name: session.predict(inputs)}, at_proof)
        assert judgement.findings and "like the right ones" in causes_of(judgement)[0]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.left(x), self.right(x)


def test_outputs_that_are_exchanged_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    answers, at_proof = asked_of(certified(Two().eval(), tmp_path)[0])
    first, second = answers.exact
    exchanged = {first: answers.exact[second], second: answers.exact[first]}
    assert f"'{first}' holds what belongs to '{second}'" in causes_of(judged(answers, exchanged, at_proof))[0]


def test_a_batch_that_is_wrong_where_rows_alone_are_right_is_said() -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()

    def one(how: str, rows: tuple[int, ...], values: np.ndarray) -> Heard:
        return Heard(how, "JSON", rows, "", Reply({name: Output("FP32", values.shape, values)}))

    alone = [one("one by one", (i,), exact[i : i + 1]) for i in range(12)]
    judgement = judge(answers, [*alone, one("all at once", tuple(range(12)), exact[::-1])], at_proof)
    causes = causes_of(judgement)
    assert causes[0] == "it depends on how the rows come: right one by one; wrong all at once"
    assert causes[1].startswith("rows are mixed up")
    assert "asked all at once (JSON)" in judgement.findings[0].words


FORMS: dict[str, tuple[Reply | Fault, str, str]] = {
    "nothing": (Fault("HTTP 500: out of memory", 500), "no answer", "HTTP 500: out of memory"),
    "another name": (Reply({"scores": Output("FP32", (12, 10), np.zeros((12, 10)))}), "form", "there are scores"),
    "no output": (Reply({}), "form", "there are none"),
    "float64": (Reply({"output": Output("FP64", (12, 10), np.zeros((12, 10)))}), "form", "FP64 instead of FP32"),
    "text": (Reply({"output": Output("BYTES", (12, 10), None)}), "form", "BYTES instead of FP32"),
    "turned": (Reply({"output": Output("FP32", (10, 12), np.zeros((10, 12)))}), "form", "the other way round"),
    "one row": (Reply({"output": Output("FP32", (1, 10), np.zeros((1, 10)))}), "form", "[1, 10] instead of [12, 10]"),
    "another request": (Reply({}, request="2"), "form", "identity of another request"),
}


@pytest.mark.parametrize("name", FORMS)
def test_answers_of_another_form_are_found(name: str) -> None:
    answers, at_proof = asked_of(case())
    came, kind, words = FORMS[name]
    (finding,) = judge(answers, [Heard("all at once", "JSON", tuple(range(12)), "1", came)], at_proof).findings
    assert finding.kind == kind and words in finding.words


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_whatever_comes_is_judged(data: st.DataObject) -> None:
    answers, at_proof = asked_of(case())
    ((name, exact),) = answers.exact.items()
    numbers = st.one_of(st.floats(), st.sampled_from([0.0, 1e308, -1e308, 1e-320, float(exact[0, 0])]))
    values = data.draw(st.lists(numbers, min_size=1, max_size=20))
    found = np.resize(np.array(values), exact.shape)
    judgement = judged(answers, {name: found}, at_proof)
    assert judgement.findings and causes_of(judgement)
    json.dumps([judgement.largest, judgement.share, judgement.asked[0].largest], allow_nan=False)


def test_the_causes_stand_in_the_order_of_their_page() -> None:
    import runtime.live.causes as page

    listed = [line.split("  ")[2].strip() for line in (page.__doc__ or "").splitlines() if line.startswith("    ")]
    assert listed == [name for name, _ in CAUSES]
