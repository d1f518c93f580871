"""``mlpx recover --compare``: each planted fault is named, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from builder.documents import as_yaml
from export import compare
from runtime import contract
from tests.support.commands import Run
from tests.support.robot import JOINTS, MEAN, NAMES, OFFSET, STD, policy_file, policy_module, policy_spec

SWAPPED = (1, 0, 2, 3)
"""The first two joints exchanged."""
NEWEST_FIRST = (0, 1, 2, 7, 8, 9, 10, 3, 4, 5, 6, 11)
"""The inputs with the joint positions of this step before those of the last."""


def taken(values: Any, order: Any) -> Any:
    return [values[index] for index in order]


def joints_exchanged() -> dict[str, Any]:
    """The actions of a robot whose joints are in another order, with all that belongs to them."""
    scale = {"scale": {"factor": taken([0.25, 0.5, 0.25, 0.5], SWAPPED), "offset": taken(OFFSET, SWAPPED)}}
    return {"actions": taken(JOINTS, SWAPPED), "scale": scale}


def history_turned() -> dict[str, Any]:
    normaliser = {"standardize": {"mean": taken(MEAN, NEWEST_FIRST), "std": taken(STD, NEWEST_FIRST)}}
    return {"names": taken(NAMES, NEWEST_FIRST), "normaliser": normaliser}


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, list[str]]]]] = {
    "joint order": (
        joints_exchanged(),
        {"actions_at": SWAPPED},
        [
            (
                "order",
                ["output 'action': 2 of 4 features are in another order", "joint_pos:left_hip 0 -> 1", "moved with"],
            )
        ],
    ),
    "names of joints only": (
        {"actions": taken(JOINTS, SWAPPED)},
        {},
        [
            ("order", ["2 of 4 features", "the weights did not move with them: the names alone differ"]),
        ],
    ),
    "history order": (
        history_turned(),
        {"inputs_at": NEWEST_FIRST},
        [("history", ["the history of joint_pos is in another order: 8 features", "joint_pos:left_hip@-1 3 -> 7"])],
    ),
    "scale": (
        {"scale": {"scale": {"factor": [0.25, 0.5, 0.25, 0.25], "offset": OFFSET}}},
        {},
        [("scale", ["'action': another factor of the scale of joint_pos:right_knee 0.5 and 0.25"])],
    ),
    "scale left out": ({"scale": None}, {}, [("scale", ["the first applies a scale last, and the second does not"])]),
    "normaliser left out": (
        {"normaliser": None},
        {},
        [("normaliser", ["'obs': the first applies a normaliser first, and the second does not (mean -0.2 to 0.7"])],
    ),
    "mean": (
        {"normaliser": {"standardize": {"mean": [*MEAN[:-1], 0.75], "std": STD}}},
        {},
        [("normaliser", ["another mean of the normaliser of height 0.7 and 0.75"])],
    ),
    "clip": ({"clip": {"clip": [-18, 5]}}, {}, [("clip", ["another max of the clip of every feature, 18.0 and 5.0"])]),
    "clip left out": ({"action_clip": None}, {}, [("clip", ["'action': the first applies a clip last"])]),
    "period": ({"period": 0.01}, {}, [("period", ["the period is 0.02 s, and 0.01 s in the second"])]),
    "unit": ({"units": {"height": "mm"}}, {}, [("unit", ["another unit of height m and mm"])]),
    "range": (
        {"ranges": {"height": [0, 1]}},
        {},
        [("range", ["another range of height (-3.0, 3.0) and (0.0, 1.0)"])],
    ),
    "names": (
        {"names": [*NAMES[:-1], "depth"], "units": {"depth": "m"}},
        {},
        [("names", ["the first has 'height', the second 'depth' in their place"])],
    ),
    "activation": ({"activation": "relu"}, {}, [("layers", ["layer 2 is elu, and relu in the second"])]),
    "alpha": ({"activation": {"elu": 0.5}}, {}, [("layers", ["layer 2 is elu, and elu 0.5 in the second"])]),
    "no activation": (
        {"activation": None},
        {},
        [("layers", ["the layers are linear 12 to 16, elu, linear 16 to 4; in the second linear 12 to 16, linear"])],
    ),
}
"""By its name: what the second policy has in its spec, how its weights are ordered, and the differences to be named."""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return policy_file(tmp_path / "first" / "policy.onnx")


def as_onnx(folder: Path, changed: dict[str, Any], orders: dict[str, Any]) -> Path:
    return policy_file(folder / "policy.onnx", **orders, **changed)


def as_contract(folder: Path, changed: dict[str, Any], orders: dict[str, Any]) -> Path:
    path = folder / "policy.yaml"
    path.write_text(contract(as_onnx(folder, changed, orders)).to_yaml())
    return path


def as_spec(folder: Path, changed: dict[str, Any], orders: dict[str, Any]) -> Path:
    spec = policy_spec(**changed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(as_yaml(spec))
    save_file(policy_module(spec, **orders).state_dict(), folder / "weights.safetensors")
    return folder / "spec.yaml"


FORMS: dict[str, Callable[[Path, dict[str, Any], dict[str, Any]], Path]] = {
    "onnx": as_onnx,
    "contract": as_contract,
    "spec": as_spec,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_policy_equals_itself_in_every_form(form: str, first: Path, run: Run, tmp_path: Path) -> None:
    other = FORMS[form](tmp_path / "other", {}, {})
    for pair in ((first, other), (other, first), (other, other)):
        code, out, err = run("recover", pair[0], "--compare", pair[1])
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "verdict   equal"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_named(fault: str, form: str, first: Path, run: Run, tmp_path: Path) -> None:
    changed, orders, expected = FAULTS[fault]
    other = FORMS[form](tmp_path / "other", changed, orders)
    code, out, _ = run("recover", first, "--compare", other, "--json")
    assert code == 1
    found = json.loads(out)
    if form == "contract":  # which holds no weights, only their SHA-256
        expected = [(kind, [words[0].partition(":")[0]]) for kind, words in expected]
        found["differences"] = [each for each in found["differences"] if each["kind"] != "weights"]
        expected = [each for each in expected if each[0] != "weights"]
    assert [each["kind"] for each in found["differences"]] == [kind for kind, _ in expected]
    for difference, (_, words) in zip(found["differences"], expected, strict=True):
        assert [part for part in words if part not in difference["words"]] == []


def test_the_values_of_both_are_in_the_record(first: Path, run: Run, tmp_path: Path) -> None:
    changed, orders, _ = FAULTS["scale"]
    record = json.loads(run("recover", first, "--compare", as_onnx(tmp_path / "o", changed, orders), "--json").out)
    (difference,) = record["differences"]
    assert not record["equal"]
    assert difference["features"] == ["joint_pos:right_knee"]
    assert (difference["first"], difference["second"]) == ([0.5], [0.25])


@pytest.mark.parametrize("unnamed", ["first", "second", "both"])
def test_an_order_without_names_is_found_in_the_weights(unnamed: str, run: Run, tmp_path: Path) -> None:
    order = (2, 0, 1, *range(3, 12))
    normaliser = {"standardize": {"mean": taken(MEAN, order), "std": taken(STD, order)}}
    without: dict[str, Any] = {"names": None, "actions": None}
    mine = policy_file(tmp_path / "a" / "p.onnx", **({} if unnamed == "second" else without))
    names = {} if unnamed == "first" else without
    named = {"names": taken(NAMES, order)} if unnamed == "first" else {}
    other = policy_file(tmp_path / "b" / "p.onnx", inputs_at=order, normaliser=normaliser, **(names | named))
    code, out, _ = run("recover", mine, "--compare", other, "--json")
    (difference,) = json.loads(out)["differences"]
    assert code == 1
    assert difference["kind"] == "order"
    assert (
        "3 of 12 features are in another order, by the weights: the first layer has the same columns"
        in (difference["words"])
    )
    assert (difference["first"], difference["second"]) == ([0, 1, 2], [1, 2, 0])


def test_other_weights_are_named_by_layer(first: Path, run: Run, tmp_path: Path) -> None:
    spec = policy_spec()
    module = policy_module(spec)
    with torch.no_grad():
        module.get_parameter("2.weight")[3, 4] += 0.5
    (tmp_path / "spec.yaml").write_text(as_yaml(spec))
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    code, out, _ = run("recover", first, "--compare", tmp_path / "spec.yaml")
    assert code == 1
    assert "layer 1, linear 12 to 16: 1 of 192 values of weight differ, by up to 0.5" in out


def test_a_checkpoint_is_compared_with_the_options_of_recover(run: Run, tmp_path: Path) -> None:
    first = policy_file(
        tmp_path / "p.onnx", names=None, actions=None, clip=None, scale=None, action_clip=None, period=None
    )
    spec = policy_spec(names=None, actions=None, clip=None, scale=None, action_clip=None, normaliser=None)
    torch.save(policy_module(spec).state_dict(), tmp_path / "p.pt")
    options = ["--activation", "elu"]
    code, out, err = run("recover", tmp_path / "p.pt", "--compare", first, *options, "--json")
    assert code == 1, err
    (difference,) = json.loads(out)["differences"]
    assert difference["words"].startswith("'input': the second applies a normaliser first, and the first does not")
    assert list(tmp_path.glob("*.yaml")) == []
    code, _, err = run("recover", first, "--compare", first, *options)
    assert code == 2
    assert "neither" in err
    assert "What to do: leave out --activation" in err


def test_what_is_not_known_is_said_and_is_no_difference(first: Path, run: Run, tmp_path: Path) -> None:
    spec = policy_spec(actions=None, period=None, normaliser="standardize")
    (tmp_path / "spec.yaml").write_text(as_yaml(spec))
    code, out, err = run("recover", first, "--compare", tmp_path / "spec.yaml")
    assert code == 0, out
    for part in (
        "the second does not name the features of the output 'action'",
        "the second does not say its period, so it was not compared",
        "the second does not hold the constants of its normaliser",
        "the weights of one of the two are not known",
    ):
        assert part in err


def test_it_says_what_it_needs(first: Path, run: Run, tmp_path: Path) -> None:
    code, _, err = run("recover", first)
    assert code == 2
    assert "name the folder to write to with -o, or a policy to --compare with" in err
    code, _, err = run("recover", first, "--compare", first, "-o", tmp_path / "o")
    assert code == 2
    assert "--compare writes nothing: leave out -o" in err
    (tmp_path / "x.yaml").write_text("a: [")
    code, _, err = run("recover", first, "--compare", tmp_path / "x.yaml")
    assert code == 2
    assert "x.yaml" in err


def test_comparing_in_python_gives_the_same(first: Path, tmp_path: Path) -> None:
    found = compare(first, as_onnx(tmp_path / "o", FAULTS["mean"][0], {}))
    assert not found.equal
    assert [each.features for each in found.differences] == [("height",)]
    assert np.float32(found.differences[0].second[0]) == np.float32(0.75)
