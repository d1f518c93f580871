"""The bound in a certificate: how it is read, what damage is refused, and the words for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import publish
from runtime import InputError, read_certificate
from runtime.model.bound import format_bound, format_box, format_up
from tests.support.bounded import WORDS, give_bound
from tests.support.cases import network


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of a file, with a bound."""
    spec, module = network([{"linear": 3}, "relu", {"linear": 2}])
    path = tmp_path_factory.mktemp("published") / "m.onnx"
    publish(module, path, spec=spec, device="cpu", page=False)
    give_bound(path)
    return path.with_name("m.parity.json")


@pytest.fixture
def changed(published: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Writes the certificate anew after a function has changed the record of its bound."""

    def change(edit: Callable[[dict[str, Any]], object]) -> Path:
        record = json.loads(published.read_text(encoding="utf-8"))
        edit(record["bound"])
        (tmp_path / "m.parity.json").write_text(json.dumps(record))
        return tmp_path / "m.parity.json"

    return change


def test_a_bound_is_read_from_the_certificate(published: Path) -> None:
    bound = read_certificate(published).bound
    assert bound is not None
    assert bound.box == {"input": ((-0.5, 16),)}
    assert bound.outputs["output"].bound == (0.00125, 0.006543)
    assert bound.outputs["output"].seen == (0.0003123, 1e-5)
    assert bound.outputs["output"].interval == ((-27.25, 30.5), (0, 1))
    assert (bound.largest, bound.seen, bound.margin, bound.why) == (0.006543, 0.0003123, 0.01309, None)
    assert bound.ratio == pytest.approx(0.006543 / 0.0003123)
    assert format_bound(bound) == WORDS
    assert bound.to_record()["words"] == WORDS
    assert json.loads(json.dumps(bound.to_record()))["box"] == {"input": [[-0.5, 16]]}


def test_a_certificate_without_a_bound(published: Path, tmp_path: Path) -> None:
    record = json.loads(published.read_text(encoding="utf-8"))
    for older in ({key: value for key, value in record.items() if key != "bound"}, record | {"bound": None}):
        (tmp_path / "m.parity.json").write_text(json.dumps(older))
        assert read_certificate(tmp_path / "m.parity.json").bound is None


def test_where_there_is_no_bound_the_words_say_why(changed: Callable[..., Path]) -> None:
    path = changed(lambda bound: bound.update(outputs={}, labels=None, why="'3/log' takes the logarithm of 0."))
    bound = read_certificate(path).bound
    assert bound is not None
    assert (bound.largest, bound.seen, bound.ratio, bound.margin) == (None, None, None, None)
    assert format_bound(bound) == "none for inputs with input -0.5 to 16: '3/log' takes the logarithm of 0"


def test_an_infinite_bound_is_none(changed: Callable[..., Path]) -> None:
    bound = read_certificate(
        changed(lambda bound: bound["outputs"]["output"].update(bound=[0.5, "Infinity"], seen=[0, "Infinity"]))
    ).bound
    assert bound is not None
    assert (bound.largest, bound.seen, bound.ratio) == (None, None, None)
    assert format_bound(bound) == "none for inputs with input -0.5 to 16: that of an output is infinite"


def test_where_no_error_was_seen_there_is_no_ratio(changed: Callable[..., Path]) -> None:
    bound = read_certificate(changed(lambda bound: bound["outputs"]["output"].update(seen=[0, 0]))).bound
    assert bound is not None
    assert bound.ratio is None
    assert format_bound(bound) == "at most 0.00655 for every input with input -0.5 to 16 (no error was seen)"


def test_newer_keys_are_passed_over(changed: Callable[..., Path]) -> None:
    assert read_certificate(changed(lambda bound: bound.update(later=1))).bound is not None


def _output(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda bound: bound["outputs"]["output"].update(changes)


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "of another file": lambda bound: bound.update(sha256="0" * 64),
    "no hash": lambda bound: bound.pop("sha256"),
    "no box": lambda bound: bound.pop("box"),
    "box that is a list": lambda bound: bound.update(box=[[0, 1]]),
    "input without a range": lambda bound: bound.update(box={"input": []}),
    "reversed range": lambda bound: bound.update(box={"input": [[1, 0]]}),
    "infinite range": lambda bound: bound.update(box={"input": [[0, "Infinity"]]}),
    "range of three": lambda bound: bound.update(box={"input": [[0, 1, 2]]}),
    "range of words": lambda bound: bound.update(box={"input": [["0", "1"]]}),
    "no outputs": lambda bound: bound.pop("outputs"),
    "outputs without a bound, and no reason": lambda bound: bound.update(outputs={}),
    "no values": _output(bound=[], seen=[], interval=[]),
    "more bounds than values": _output(bound=[0.1, 0.2, 0.3]),
    "negative bound": _output(bound=[-0.1, 0.2]),
    "NaN": _output(bound=[float("nan"), 0.2]),
    "a word": _output(seen=["NaN", 0]),
    "a number for all": _output(bound=0.1),
    "truth": _output(bound=[True, 0.1]),
    "a number beyond float64": _output(bound=[10**400, 0.1]),
    "reversed interval": _output(interval=[[1, 0], [0, 1]]),
    "margin below 0": lambda bound: bound.update(labels={"margin": -1}),
    "labels without a margin": lambda bound: bound.update(labels={}),
    "reason that is a number": lambda bound: bound.update(why=1),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_bound_is_refused(name: str, changed: Callable[..., Path]) -> None:
    path = changed(DAMAGE[name])
    with pytest.raises(InputError, match=r"not a parity report, or a damaged one. What to do: "):
        read_certificate(path)


@pytest.mark.parametrize("record", [1, "bound", [], {}])
def test_a_bound_that_is_no_record_is_refused(record: object, published: Path, tmp_path: Path) -> None:
    whole = json.loads(published.read_text(encoding="utf-8"))
    (tmp_path / "m.parity.json").write_text(json.dumps(whole | {"bound": record}))
    with pytest.raises(InputError, match="a damaged one"):
        read_certificate(tmp_path / "m.parity.json")


def test_the_words_for_a_box() -> None:
    own = {"state": [(-1.5, 1.5), (0, 30)], "pixels": [(0, 1), (0, 1)], "rate": [(0.125, 2**20)]}
    assert format_box(own) == (
        "state -1.5 to 30 (each of its 2 features in a range of its own) and pixels 0 to 1 and rate 0.125 to 1048576"
    )


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_a_bound_is_rounded_up_so_that_at_most_stays_true(value: float) -> None:
    shown = float(format_up(value))
    assert value <= shown
    assert shown <= value * 1.0101 or value < 1e-300 or shown == float("inf")
    assert len(format_up(value).partition("e")[0].replace(".", "").lstrip("0")) <= 3
