"""``check_live`` against a small server with planted faults, over HTTP: each is found, and called what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from threading import Lock, local
from typing import Any

import numpy as np
import pytest

from runtime import check_live
from runtime.model.certificate import Answers
from tests.support.live import ROWS, Planted, Rows, case, known, planted

Make = Callable[[Answers], Planted]


def certified_answers() -> Answers:
    answers = case().answers
    assert answers is not None
    return answers


def changed(change: Callable[[dict[str, Any]], Any]) -> Make:
    """A server whose every answer is changed."""
    return lambda answers: planted(answers, change=change)


def output(**change: Any) -> Make:
    return changed(lambda record: record | {"outputs": [record["outputs"][0] | change]})


def doubled_in_batches(answers: Answers) -> Planted:
    right = known(answers, answers.exact)

    def answer(rows: Rows) -> Rows:
        return {name: y * (1 if len(y) == 1 else 1.5) for name, y in right(rows).items()}

    return planted(answers, answer)


def the_answer_before(answers: Answers) -> Planted:
    """As a server that shares a buffer between requests answers: each with what the one before should have had."""
    right, lock, latest = known(answers, answers.exact), Lock(), [{}]

    def answer(rows: Rows) -> Rows:
        with lock:
            before, latest[0] = latest[0], dict(right(rows))
        alike = before and all(before[name].shape == y.shape for name, y in latest[0].items())
        return before if alike else latest[0]

    return planted(answers, answer)


def version_in_turn(answers: Answers) -> Planted:
    numbers = count(1)
    return planted(answers, change=lambda record: record | {"model_version": str(1 + next(numbers) % 2)})


def reduced(precision: str) -> Make:
    return lambda answers: planted(answers, known(answers, answers.reduced[precision]))


def interface(**change: Any) -> Make:
    return lambda answers: planted(answers, inputs=[{"name": "input", "datatype": "FP32", "shape": [-1, 32]} | change])


def busy_at_times() -> Callable[[int, int], int]:
    """The status of a server that turns away every fifth request of a connection, and never one twice in a row."""
    connection = local()  # each has a thread of its own

    def status(_rows: int, _number: int) -> int:
        connection.requests = getattr(connection, "requests", 0) + 1
        return 429 if connection.requests % 5 == 0 else 200

    return status


FAULTS: dict[str, tuple[Make, str, str]] = {
    "TF32": (reduced("TF32"), "precision", "TF32: switch it off"),
    "bfloat16": (reduced("bfloat16"), "precision", "bfloat16: "),
    "float16": (reduced("float16"), "precision", "float16: "),
    "a batch is computed otherwise": (doubled_in_batches, "bound", "right one by one; wrong all at once"),
    "the answers of another request": (the_answer_before, "bound", "rows are mixed up"),
    "null": (output(data=[None] * 10, shape=[1, 10]), "form", f"[1, 10] instead of [{ROWS}, 10]"),
    "null for every value": (
        changed(lambda r: r | {"outputs": [r["outputs"][0] | {"data": [None] * len(r["outputs"][0]["data"])}]}),
        "not a number",
        "not numbers",
    ),
    "float64": (lambda answers: planted(answers, datatype="FP64"), "form", "FP64 instead of FP32"),
    "another output": (output(name="scores"), "form", "no output 'output'; there are scores"),
    "another id": (changed(lambda record: record | {"id": "0"}), "form", "the id of another request"),
    "a shape of words": (output(shape="many"), "no answer", "instead of a list of sizes"),
    "a negative shape": (output(shape=[-1, 10]), "no answer", "instead of a list of sizes"),
    "fewer values": (output(data=[1.0]), "no answer", "1 values came"),
    "text for numbers": (output(data=["1.5"] * 10), "no answer", "'1.5' instead of a number"),
    "a number beyond float64": (output(data=[10**400] * 10 * ROWS), "no answer", "beyond float64"),
    "an output without a name": (changed(lambda record: record | {"outputs": [{}]}), "no answer", "without a name"),
    "an output that is a number": (changed(lambda record: record | {"outputs": [7]}), "no answer", "without a name"),
    "bytes that do not follow": (
        output(parameters={"binary_data_size": 40 * ROWS}),
        "no answer",
        f"'output' claims {40 * ROWS} bytes, and 0 are left",
    ),
    "a size that is text": (output(parameters={"binary_data_size": "480"}), "no answer", "claims 480 bytes"),
    "fewer bytes than its shape has": (
        output(parameters={"binary_data_size": 0}),
        "no answer",
        f"'output' is FP32 [{ROWS}, 10], {40 * ROWS} bytes, and came as 0",
    ),
    "text": (output(datatype="BYTES"), "form", "BYTES instead of FP32"),
    "no outputs": (changed(lambda _: {}), "no answer", "without 'outputs'"),
    "a list": (changed(lambda record: [record]), "no answer", "without 'outputs'"),
    "not JSON": (changed(lambda _: b"<html>"), "no answer", "not JSON: '<html>'"),
    "nested too deep": (changed(lambda _: b"[" * 100_000), "no answer", "not JSON"),
    "too much": (changed(lambda _: b" " * 2**22), "no answer", "an answer of more than"),
    "a binary length that lies": (
        lambda answers: planted(answers, headers={"Inference-Header-Content-Length": "99999999"}),
        "no answer",
        "bytes came",
    ),
    "an error": (lambda answers: planted(answers, status=lambda _, _number: 500), "no answer", "HTTP 500: planted"),
    "an error for batches": (
        lambda a: planted(a, status=lambda rows, _: 500 if rows > 1 else 200),
        "no answer",
        f"a single row is answered, and a batch of {ROWS} is not",
    ),
    "moved": (
        lambda a: planted(a, status=lambda _, _number: 307, headers={"Location": "/elsewhere"}),
        "no answer",
        "HTTP 307: moved to /elsewhere",
    ),
    "busy for ever": (
        lambda a: planted(a, status=lambda _, _n: 503, headers={"Retry-After": "0"}),
        "no answer",
        "HTTP 503: planted",
    ),
    "a shape beyond every size": (output(shape=[0, 10**30]), "no answer", "a list of sizes"),
    "a shape that no array has": (
        output(shape=[0, *[2**31 - 1] * 3]),
        "no answer",
        "has the shape [0, 2147483647",
    ),
    "metadata that are a list": (lambda a: planted(a, metadata=[]), "model", "a JSON object was expected"),
    "an infinite width": (interface(shape=[float("inf"), 32]), "model", "metadata does not follow the protocol"),
    "batches of three million rows": (
        interface(shape=[3_000_000, 32]),
        "interface",
        "3,000,000 rows",
    ),
    "another input": (interface(name="z"), "interface", "another model"),
    "another datatype": (interface(datatype="FP16"), "interface", "another model"),
    "another width": (interface(shape=[-1, 31]), "interface", "another model"),
}
"""What is planted, the kind of the finding, and what is to be in the words of the findings or causes."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    make, kind, words = FAULTS[name]
    with make(certified_answers()).url() as url:
        report = check_live(url, case(), timeout=20)
    assert not report.proved
    assert kind in {finding.kind for finding in report.findings}
    assert words in " | ".join((*report.causes, *(finding.words for finding in report.findings)))


def test_a_server_cannot_write_on_the_terminal() -> None:
    evil = "\x1b[2J\x1b[Hproved    everything is fine\x1b[8m"
    with planted(
        certified_answers(), inputs=[{"name": evil, "datatype": "FP32", "shape": [-1, 32]}], versions=[evil]
    ).url() as url:
        report = check_live(url, case(), timeout=20)
    shown = [
        report.server,
        *report.versions,
        *report.causes,
        *report.warnings,
        *(finding.words for finding in report.findings),
    ]
    assert not report.proved
    assert not [text for text in shown if "\x1b" in text]


WELL: dict[str, Make] = {
    "exactly": lambda answers: planted(answers),
    "without keep-alive": lambda answers: planted(answers, keep_alive=False),
    "metadata is empty": lambda answers: planted(answers, inputs=[], outputs=[], versions=[]),
    "metadata without the batch": interface(shape=[32]),
    "nested lists": changed(
        lambda r: r | {"outputs": [o | {"data": np.reshape(o["data"], o["shape"]).tolist()} for o in r["outputs"]]}
    ),
    "one output more": changed(lambda r: r | {"outputs": [*r["outputs"], r["outputs"][0] | {"name": "more"}]}),
    "no id": changed(lambda record: {key: value for key, value in record.items() if key != "id"}),
    "busy at times": lambda a: planted(a, status=busy_at_times(), headers={"Retry-After": "0"}),
}


@pytest.mark.parametrize("name", WELL)
def test_a_server_that_answers_well_is_proved(name: str) -> None:
    with WELL[name](certified_answers()).url() as url:
        report = check_live(url, case(), timeout=20)
    assert report.proved, report.findings
    assert report.causes == ()
    assert {asked.tensors for asked in report.asked} == {"JSON"}
    assert bool(report.warnings) == (name == "metadata is empty")


VERSIONS: dict[str, tuple[list[str], str, Make, str]] = {
    "another than was asked": (
        ["1", "2"],
        "/versions/1",
        changed(lambda r: r | {"model_version": "2"}),
        "version '1' was asked, and '2' answered",
    ),
    "in turn": (["1", "2"], "", version_in_turn, "answered in turn: is one replacing the other?"),
    "the one that answered, and is wrong": (
        ["1"],
        "",
        changed(lambda r: r | {"model_version": "1", "outputs": [{**r["outputs"][0], "data": [7.0] * 10 * ROWS}]}),
        "every row has the same answer",
    ),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_the_version_that_answers_is_watched(name: str) -> None:
    versions, path, make, words = VERSIONS[name]
    server = make(certified_answers())
    server.versions = versions
    with server.url() as url:
        report = check_live(url + path, case(), timeout=20)
    said = [*report.causes, *report.warnings, *(finding.words for finding in report.findings)]
    assert any(words in text for text in said), said
    assert report.proved == (name == "in turn")


def test_a_version_that_is_not_there_of_a_model_without_versions() -> None:
    with planted(certified_answers(), missing="/versions/9", versions=[]).url() as url:
        report = check_live(f"{url}/versions/9", case(), timeout=20)
    assert [finding.words for finding in report.findings] == ["the server has no version '9' of model 'm': HTTP 404"]
    assert report.causes == ()


def test_outputs_besides_those_of_the_file_are_remarked() -> None:
    server = planted(certified_answers())
    server.outputs.append({"name": "more", "datatype": "FP32", "shape": [-1, 1]})
    with server.url() as url:
        report = check_live(url, case(), timeout=20)
    assert report.proved
    assert "it has outputs that the file does not have: more" in report.warnings


def test_a_precision_that_the_rows_do_not_distinguish_is_remarked() -> None:
    answers = certified_answers()
    right = {name: exact.astype("f4") for name, exact in answers.exact.items()}
    alike = replace(case(), answers=replace(answers, reduced={"TF32": right, "TF32, truncated": right}))
    with planted(answers).url() as url:
        report = check_live(url, alike, timeout=20)
    assert report.proved
    assert report.warnings == ("TF32 would pass too: these rows do not distinguish it from float32",)


def test_a_server_of_small_batches_is_asked_for_small_ones() -> None:
    server = planted(certified_answers(), status=lambda rows, _: 400 if rows > 4 else 200)
    with server.url() as url:
        report = check_live(url, case())
    assert report.proved
    assert f"refuses batches of {ROWS} rows, and takes 3 at a time: HTTP 400: planted" in report.warnings[0]
    refusing = planted(certified_answers(), status=lambda _, _number: 400)
    with refusing.url() as url:
        report = check_live(url, case())
    assert not report.proved
    assert refusing.asked < 10


@pytest.mark.parametrize("batch", [1, 5, 16])
def test_a_server_of_one_batch_size_gets_that(batch: int) -> None:
    server = planted(certified_answers(), status=lambda rows, _: 200 if rows == batch else 400)
    server.inputs[0]["shape"] = [batch, 32]
    with server.url() as url:
        report = check_live(url, case())
    assert report.proved, report.findings


def test_a_difference_within_the_bound_and_yet_unusual_is_remarked() -> None:
    answers, at_proof = certified_answers(), case().largest
    assert at_proof is not None
    room = {name: np.where(bound > 20 * at_proof, 20 * at_proof, 0.0) for name, bound in answers.bound.items()}
    moved = {name: exact + room[name] for name, exact in answers.exact.items()}
    with planted(answers, known(answers, moved)).url() as url:
        report = check_live(url, case())
    assert report.proved
    assert "times that at proof time" in report.warnings[0]


def test_a_server_that_does_not_answer_is_given_up_on() -> None:
    server = planted(certified_answers(), status=lambda _, number: 0 if number > 3 else 200)
    with server.url() as url:
        report = check_live(url, case(), timeout=0.3)
    assert not report.proved
    assert server.asked == 4
    assert "no complete answer within 0.3 s" in report.findings[0].words
    assert any("the remaining ones were not sent" in words for words in report.warnings)
