"""What a check of a live server finds, and what it says that it would have found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from builder import MLPSpec, assemble, load_weights
from runtime import Certificate, InputError, check_live, read_certificate
from runtime.live.sight import requests_for
from runtime.model.certificate import Answers
from tests.support.commands import Run
from tests.support.live import Answer, Rows, case, known, planted, with_certificate

DIGITS = Path(__file__).parents[3] / "models" / "digits"


def answers_of(certificate: Certificate) -> Answers:
    assert certificate.answers is not None
    return certificate.answers


def by(module: nn.Module, answers: Answers) -> Answer:
    """What a module answers, in float32."""
    (output,) = answers.exact

    def answer(rows: Rows) -> Rows:
        (values,) = rows.values()
        with torch.inference_mode():
            return {output: module(torch.from_numpy(values)).numpy()}

    return answer


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Callable[[], nn.Sequential]]:
    """The certificate of the digits model, and a function that gives another copy of the module."""
    from builder import load_spec

    spec = load_spec(DIGITS / "spec.yaml")

    def module() -> nn.Sequential:
        made = assemble(spec)
        load_weights(made, DIGITS / "weights.safetensors")
        return made.eval()

    return with_certificate(module(), tmp_path_factory.mktemp("digits"), spec)[0], module


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def test_all_weights_off_by_three_millionths_are_found(
    digits: tuple[Certificate, Callable[[], nn.Sequential]],
) -> None:
    certificate, make = digits
    answers = answers_of(certificate)
    with planted(answers, by(make(), answers)).url() as url:
        right = check_live(url, certificate)
    assert right.proved
    assert right.sight is not None
    assert right.sight.weights is not None
    assert right.sight.weights.together is not None
    assert right.sight.weights.together < 3e-6
    wrong = make()
    with torch.no_grad():
        for linear in linears(wrong):
            linear.weight.copy_((linear.weight.double() * (1 + 3e-6)).float())
    with planted(answers, by(wrong, answers)).url() as url:
        report = check_live(url, certificate)
    assert {finding.kind for finding in report.findings} == {"bound"}
    assert report.sight is None


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_weight_is_found_from_the_error_on_that_the_certificate_states(
    digits: tuple[Certificate, Callable[[], nn.Sequential]], layer: int
) -> None:
    """Half of the weights of a layer show the median error; each is tried alone, at 1.3 times that and at a tenth."""
    certificate, make = digits
    answers = answers_of(certificate)
    assert answers.seen is not None
    stated = answers.seen.layers[layer]
    assert stated.relative_median is not None
    (exact,), (bound,) = answers.exact.values(), answers.bound.values()
    (rows,) = answers.inputs.values()
    right = make()[0](torch.from_numpy(rows))
    rng, found = np.random.default_rng(0), dict.fromkeys((1.3, 0.1), 0)
    module = make().double()
    hidden = list(module)[1:]
    weight = linears(module)[layer].weight
    with torch.no_grad():
        for _ in range(200):
            place = tuple(rng.integers(0, size) for size in weight.shape)
            before = float(weight[place])
            for factor in found:
                weight[place] = before * (1 + factor * stated.relative_median)
                values = nn.Sequential(*hidden)(right.double()).numpy()
                found[factor] += bool((np.abs(values - exact) > bound).any())
            weight[place] = before
    assert 90 <= found[1.3] <= 150
    assert found[0.1] < 40


def test_one_weight_off_by_a_thousandth_is_found_in_a_small_network(tmp_path: Path) -> None:
    spec = MLPSpec(name="m", input={"features": 6}, blocks=[{"linear": 12}, "relu", {"linear": 3}])
    module = assemble(spec, seed=3).eval()
    certificate, _ = with_certificate(module, tmp_path, spec)
    answers = answers_of(certificate)
    assert answers.seen is not None
    for linear, stated in zip(linears(module), answers.seen.layers, strict=True):
        assert stated.weights == linear.weight.numel()
        assert stated.unseen < stated.weights / 10
        assert stated.relative_median is not None
        assert stated.relative_median < 1e-4
    with torch.no_grad():
        place = divmod(int(linears(module)[0].weight.abs().argmax()), 6)
        linears(module)[0].weight[place] *= 1.001
    with planted(answers, by(module, answers)).url() as url:
        assert not check_live(url, certificate).proved


def mixing(answers: Answers, mixed: Callable[[int], bool]) -> Answer:
    """Two rows of batches of some sizes get each other's answers."""
    right = known(answers, answers.exact)

    def answer(rows: Rows) -> Rows:
        found = {name: values.copy() for name, values in right(rows).items()}
        for values in found.values():
            if mixed(len(values)):
                values[[0, 1]] = values[[1, 0]]
        return found

    return answer


@pytest.mark.parametrize(
    "mixed",
    [lambda n: n == 7, lambda n: 24 < n < 33, lambda n: n == 61, lambda n: n > 64],
    ids=["7", "25+", "61", "65+"],
)
def test_rows_that_are_mixed_at_some_sizes_are_found(mixed: Callable[[int], bool]) -> None:
    answers = answers_of(case())
    with planted(answers, mixing(answers, mixed)).url() as url:
        report = check_live(url, case())
    assert not report.proved
    assert any("rows are mixed up" in cause for cause in report.causes)


def test_a_server_that_takes_few_rows_is_not_blamed_for_more() -> None:
    answers = answers_of(case())
    with planted(answers, status=lambda rows, _: 413 if rows > 50 else 200).url() as url:
        report = check_live(url, case(), rate=0.005)
    assert report.proved, report.findings
    assert report.warnings == ()


def rare(answers: Answers, every: int) -> Answer:
    """One request in so many is answered wrongly."""
    right, numbers = known(answers, answers.exact), count(1)

    def answer(rows: Rows) -> Rows:
        wrong = next(numbers) % every == 0
        return {name: values + (0.5 if wrong else 0.0) for name, values in right(rows).items()}

    return answer


def test_a_rare_fault_is_found_with_enough_requests() -> None:
    answers = answers_of(case())
    shown: list[tuple[int, int]] = []
    with planted(answers, rare(answers, every=400)).url() as url:
        report = check_live(
            url, case(), confidence=0.99, rate=0.0025, progress=lambda done, total: shown.append((done, total))
        )
    assert not report.proved
    assert "values beyond the bound" in report.findings[0].words
    with planted(answers).url() as url:
        report = check_live(
            url, case(), confidence=0.99, rate=0.0025, progress=lambda done, total: shown.append((done, total))
        )
    assert report.proved
    assert report.sight is not None
    assert report.sight.requests == sum(asked.requests for asked in report.asked) == 1840
    assert report.sight.rate <= 0.0025
    assert {asked.how for asked in report.asked} >= {"repeatedly", "repeatedly, at the same time"}
    assert shown[-1] == (1840, 1840)


def test_how_many_requests_a_rate_takes() -> None:
    for confidence, rate in ((0.95, 0.01), (0.99, 0.0025), (0.5, 0.9), (1e-9, 0.5)):
        _, requests = requests_for(confidence, rate)
        assert 1 - (1 - rate) ** requests >= confidence * (1 - 1e-9)
        assert requests - 1 <= log(1 - confidence) / log(1 - rate) * (1 + 1e-9)
    assert requests_for(None, 0.01) == requests_for(0.95, 0.01)
    assert requests_for(None, None) == (0.95, 0)


WRONG: dict[str, tuple[dict[str, float], str]] = {
    "a confidence alone": ({"confidence": 0.9}, "a confidence needs a rate"),
    "a certain one": ({"confidence": 1.0, "rate": 0.1}, "confidence: expected a number between 0 and 1"),
    "no rate": ({"rate": 0.0}, "rate: expected a number between 0 and 1"),
    "not a number": ({"rate": float("nan")}, "rate: expected a number between 0 and 1"),
    "a day of requests": ({"rate": 1e-9}, "at most 1,000,000 are sent"),
}


@pytest.mark.parametrize("name", WRONG)
def test_rates_that_are_none(name: str) -> None:
    options: dict[str, Any] = WRONG[name][0]
    with pytest.raises(InputError, match=WRONG[name][1]):
        check_live("http://127.0.0.1:1/v2/models/m", case(), **options)


def test_what_a_pass_shows_is_printed(run: Run, tmp_path: Path) -> None:
    _, module = _network()
    certificate, _ = with_certificate(module, tmp_path)
    answers = answers_of(certificate)
    arguments = ["--certificate", tmp_path / "m.parity.json", "--rate", "0.01", "--confidence", "0.9"]
    with planted(answers, by(module, answers)).url() as url:
        done = run("verify", "--url", url, *arguments)
        record = json.loads(run("verify", "--url", url, *arguments, "--json").out)
        old = json.loads((tmp_path / "m.parity.json").read_text())
        del old["answers"]["seen"]
        (tmp_path / "m.parity.json").write_text(json.dumps(old))
        older = run("verify", "--url", url, *arguments)
    assert done.code == older.code == 0
    words = " ".join(done.out.split())
    assert "finds a fault in 1 of 1" in words
    assert "with a confidence of 0.9" in words
    assert "all weights off by" in words
    assert "one weight off by" in words
    assert "is not recorded in the certificate" in " ".join(older.out.split())
    sight = record["sight"]
    assert sight["confidence"] == 0.9
    assert sight["rate"] <= 0.01
    assert 0 < sight["weights"]["median"] < 1
    assert sight["weights"]["weights"] == 64 * 32 + 64 * 64 + 64 * 10


def _network() -> tuple[MLPSpec, nn.Sequential]:
    from tests.support.cases import network

    return network([{"linear": 64}, "relu", {"linear": 64}, "relu", {"linear": 10}], features=32)


def test_an_old_certificate_is_read_as_before(tmp_path: Path) -> None:
    _, module = _network()
    certificate, _ = with_certificate(module, tmp_path)
    record = json.loads((tmp_path / "m.parity.json").read_text())
    seen = record["answers"].pop("seen")
    (tmp_path / "old.parity.json").write_text(json.dumps(record))
    old = read_certificate(tmp_path / "old.parity.json")
    assert answers_of(old).seen is None
    assert answers_of(certificate).seen is not None
    assert json.loads(json.dumps(asdict(answers_of(certificate).seen))) == seen  # type: ignore[call-overload]
    assert old.answers is not None
    with planted(answers_of(old)).url() as url:
        report = check_live(url, old)
    assert report.proved
    assert report.sight is not None
    assert report.sight.weights is None


def test_rows_that_all_have_one_answer_show_no_mixing() -> None:
    answers = answers_of(case())
    alike = replace(
        answers,
        exact={name: np.repeat(exact[:1], len(exact), axis=0) for name, exact in answers.exact.items()},
        reduced={},
    )
    with planted(alike, known(alike, alike.exact)).url() as url:
        report = check_live(url, replace(case(), answers=alike))
    assert report.proved
    assert "all rows have the same answer within their bounds, so mixed rows would pass" in report.warnings
