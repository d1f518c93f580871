"""A framework's YAML is data: its values have their places, and nothing that its tags name is built."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import RecoveryError
from export.recovery.runs.yaml_data import plain, read_yaml
from tests.support.repeats import examples


def read(tmp_path: Path, text: str) -> Any:
    (tmp_path / "agent.yaml").write_text(text)
    return read_yaml(tmp_path / "agent.yaml", "params/agent.yaml")


def test_scalars_are_those_of_the_frameworks_own_loader(tmp_path: Path) -> None:
    text = "a: 1e-3\nb: 1.0e-3\nc: yes\nd: 010\ne: ~\nf: .inf\ng: 1_000\nh: 'x'\ni: 2001-12-14\n"
    entry = read(tmp_path, text)
    expected = yaml.safe_load(text) | {"i": "2001-12-14"}
    assert plain(entry) == expected
    assert entry.need("a").value == "1e-3"  # a text in YAML 1.1
    assert entry.need("a").number() == entry.need("b").number() == 0.001


def test_values_have_their_places(tmp_path: Path) -> None:
    entry = read(tmp_path, "policy:\n  activation: elu\n  hidden:\n  - 32\n  - 16\n")
    assert entry.need("policy", "activation").place == "params/agent.yaml line 2"
    assert entry.need("policy", "hidden").place == "params/agent.yaml line 3"
    assert [item.line for item in entry.need("policy", "hidden").items()] == [4, 5]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda e: e.need("a").number(), "params/agent.yaml line 1, a: expected a number, found 'elu'"),
        (lambda e: e.need("a").mapping(), "line 1, a: expected a mapping, found 'elu'"),
        (lambda e: e.get("b", "x", "y"), r"line 2, b: expected a mapping, found a list"),
        (lambda e: e.need("b").integer(), "line 2, b: expected a whole number, found a list"),
        (lambda e: e.need("b").numbers(), r"line 2, b\[1\]: expected a number, found true|True"),
        (lambda e: e.need("c").flag(), "line 3, c: expected true or false, found 1"),
        (lambda e: e.need("c").text(), "line 3, c: expected a text, found 1"),
        (lambda e: e.need("d", "e"), "line 1: the key d.e is missing or null"),
    ],
)
def test_another_value_than_is_expected_is_an_error_with_its_place(asked: Any, message: str, tmp_path: Path) -> None:
    entry = read(tmp_path, "a: elu\nb: [1, true]\nc: 1\nd: null\n")
    with pytest.raises(RecoveryError, match=message):
        asked(entry)


ALIASES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
ALIASES += "".join(f"{name}: &{name} [{', '.join([f'*{of}'] * 8)}]\n" for of, name in pairwise("abcdefg"))
"""Few bytes that are two million values."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", r"params/agent.yaml line \d: not YAML: .*it may be incomplete"),
        ("a: 1\n  b: 2\n", "line 2: not YAML: mapping values are not allowed here"),
        ("a: 1\nb: 2\na: 3\n", "line 3: duplicate key 'a', also in line 1"),
        ("- 1\n- 2\n", "line 1: expected a mapping, found a list"),
        ("", "expected a mapping, and the file is empty"),
        ("[a, b]: 1\n", "a key is a text or a number, not a list or a mapping"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", r"line 3, c: a key is a text or a number, not a merge \(<<\)"),
        ("a: !!int many\n", "'many' is tagged as int, but is not a valid int"),
        ("a: &x [*x]\n", "nested too deeply, or an alias inside its own anchor|recursive"),
        (ALIASES, "more than 300,000 values, with every alias expanded"),
    ],
)  # fmt: skip
def test_what_is_not_a_whole_mapping_is_an_error_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match=message):
        read(tmp_path, text)


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_bytes(b"\x80\x04\x95")
    with pytest.raises(RecoveryError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "agent.yaml")
    with pytest.raises(RecoveryError, match=r"env.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "env.yaml")


def test_python_tags_are_data(tmp_path: Path) -> None:
    text = """\
tuple: !!python/tuple
- 64
- 32
slice: !!python/object/apply:builtins.slice
- null
- 3
func: !!python/name:mjlab.envs.mdp.observations.last_action ''
object: !!python/object:isaaclab.utils.noise.noise_cfg.UniformNoiseCfg
  n_min: -0.1
long: !!python/long 3
own: !robot {kind: legged}
"""
    entry = read(tmp_path, text)
    assert plain(entry) == {
        "tuple": [64, 32],
        "slice": [None, 3],
        "func": "mjlab.envs.mdp.observations.last_action",
        "object": {"n_min": -0.1},
        "long": 3,
        "own": {"kind": "legged"},
    }


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    values = {"a": np.float64(0.1), "b": np.float32(0.5), "c": np.int64(3)}
    entry = read(tmp_path, yaml.dump(values))
    assert [entry.need(key).number() for key in values] == [0.1, 0.5, 3.0]
    broken = read(tmp_path, yaml.dump(values).replace("mpmZmZmZuT8=", "bm8="))
    with pytest.raises(RecoveryError, match="line 1, a: expected a number, found a list"):
        broken.need("a").number()


_HOSTILE = """\
first: !!python/object/apply:os.system ["touch {marker}"]
second: !!python/object/new:subprocess.Popen [["touch", "{marker}"]]
third: !!python/name:tests.support.never_imported.value ''
fourth: !!python/module:tests.support.never_imported
fifth: !!python/object/apply:builtins.eval ["open('{marker}', 'w')"]
sixth: !!python/object/apply:builtins.exec
  args: ["open('{marker}', 'w')"]
"""


def test_nothing_that_a_tag_names_is_run_or_imported(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    entry = read(tmp_path, _HOSTILE.format(marker=marker))
    assert plain(entry)["first"] == [f"touch {marker}"]
    assert plain(entry)["sixth"] == {"args": [f"open('{marker}', 'w')"]}
    assert not marker.exists()
    assert "tests.support.never_imported" not in sys.modules
    with pytest.raises(
        yaml.constructor.ConstructorError, match="cannot find module"
    ):  # the marker works: PyYAML's own loader does what the file says
        yaml.unsafe_load("x: !!python/module:tests.support.never_imported")


_PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8))
_DATA = st.recursive(
    _PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=6), inner, max_size=4),
        st.just(slice(1, 2)),
        st.just(yaml.dump),
    ),
    max_leaves=12,
)


def _as_data(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_data(item) for item in value]
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    return "yaml.dump" if callable(value) else value


@given(data=st.dictionaries(st.text(max_size=6), _DATA, max_size=4))
@settings(max_examples=examples(60, of=300), deadline=None)
def test_whatever_a_framework_dumps_is_read_as_data(
    data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("dump") / "env.yaml"
    path.write_text(yaml.dump(data, sort_keys=False, allow_unicode=False), encoding="utf-8")
    assert plain(read_yaml(path)) == _as_data(data)
