"""Runs of skrl, with policy and value apart or shared, by its own names or Isaac Lab's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builder import RecoveryError
from export import Recovered, read_checkpoint, read_network
from tests.support import ROOT
from tests.support.recovering import agree, kinds, mlp, named, randomised
from tests.support.run_folders import replaced


class RunningStandardScaler(nn.Module):
    """As ``skrl/resources/preprocessors/torch/running_standard_scaler.py`` has it, in evaluation."""

    def __init__(self, size: int, epsilon: float = 1e-8, clip_threshold: float = 5.0):
        super().__init__()
        self.epsilon, self.clip_threshold = epsilon, clip_threshold
        generator = torch.Generator().manual_seed(size)
        self.running_mean = nn.Buffer(torch.randn(size, dtype=torch.float64, generator=generator))
        self.running_variance = nn.Buffer(torch.rand(size, dtype=torch.float64, generator=generator) + 0.1)
        self.current_count = nn.Buffer(torch.ones((), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - self.running_mean.float()
        scaled = centred / (torch.sqrt(self.running_variance.float()) + self.epsilon)
        return torch.clamp(scaled, min=-self.clip_threshold, max=self.clip_threshold)


def agent_yaml(
    source: str = "STATES", scaler: str = "state_preprocessor", separate: bool = True, **changes: str
) -> str:
    """``params/agent.yaml`` of Isaac Lab's skrl tasks."""
    network = f"""\
    network:
    - name: net
      input: {source}
      layers: [16, 8]
      activations: elu
"""
    text = f"""\
seed: 42
models:
  separate: {separate}
  policy:
    class: GaussianMixin
    clip_mean_actions: false
    clip_log_std: true
    initial_log_std: 0.0
{network}    output: ACTIONS
  value:
    class: DeterministicMixin
{network.replace("input", "from").replace("layers", "widths").replace("activations", "functions")}    result: ONE
memory:
  memory_size: -1
agent:
  algorithm: PPO
  rollouts: 24
  learning_rate: 1.0e-03
  {scaler}: RunningStandardScaler
  {scaler}_kwargs: null
  value_preprocessor: RunningStandardScaler
  experiment:
    directory: anymal_c_flat
"""
    return replaced(text, changes)


def run_folder(folder: Path, checkpoint: Any, agent: str | None) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "agent_1000.pt")
    (folder / "checkpoints" / "agent_900.pt").write_bytes(b"an older one")
    (folder / "checkpoints" / "best_agent.pt").write_bytes(b"the best one")
    if agent is not None:
        (folder / "params").mkdir()
        (folder / "params" / "agent.yaml").write_text(agent)
    return folder


def saved(policy: Mapping[str, nn.Module], scaler: str, size: int = 6) -> dict[str, Any]:
    state = named(policy) | {"log_std_parameter": torch.zeros(3)}
    normalisers = {scaler: RunningStandardScaler(size), "value_preprocessor": RunningStandardScaler(1)}
    value = randomised(mlp(6, 16, 8, 1), 3).state_dict()
    optimizer = {"state": {}, "param_groups": []}
    parts = {name: each.state_dict() for name, each in normalisers.items()}
    return {"policy": state, "value": value, "optimizer": optimizer, **parts}


@pytest.mark.parametrize(
    ("source", "scaler"), [("STATES", "state_preprocessor"), ("OBSERVATIONS", "observation_preprocessor")]
)
@pytest.mark.parametrize("separate", [True, False])
def test_a_run_is_recovered_with_no_option(separate: bool, source: str, scaler: str, tmp_path: Path) -> None:
    layers = randomised(mlp(6, 16, 8, 3))
    parts = {"net_container": layers}
    if not separate:
        parts = {"net_container": layers[:4], "policy_layer": layers[4], "value_layer": nn.Linear(8, 1)}
    folder = run_folder(tmp_path / "run", saved(parts, scaler), agent_yaml(source, scaler, separate))
    found = read_network(folder)
    agree(found, nn.Sequential(RunningStandardScaler(6), layers))
    assert kinds(found) == ["standardize", "clip", "linear", "elu", "linear", "elu", "linear"]
    assert noted(found, "activation elu: params/agent.yaml line 13")
    assert noted(found, "after the normaliser clip:-5:5")
    assert noted(found, "checkpoints/agent_1000.pt: the newest of 3")


def test_a_checkpoint_is_of_the_run_around_it_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = saved({"net_container": randomised(mlp(6, 16, 8, 3))}, "state_preprocessor")
    folder = run_folder(tmp_path / "run", checkpoint, agent_yaml())
    expected = read_network(folder / "checkpoints" / "agent_1000.pt")
    for start, path in (
        (".", "checkpoints/agent_1000.pt"),
        ("checkpoints", "agent_1000.pt"),
        ("params", "../checkpoints/agent_1000.pt"),
    ):
        monkeypatch.chdir(folder / start)
        assert read_network(path).notes == expected.notes


def noted(found: Recovered, words: str) -> bool:
    return any(words in note for note in found.notes)


def test_the_clamp_behind_the_scaler_matters() -> None:
    """What the rows of the tests must reach: without the clamp the outputs are others."""
    rows = torch.randn(33, 6, generator=torch.Generator().manual_seed(1)) * 3
    inside, scaler = RunningStandardScaler(6)(rows), RunningStandardScaler(6, clip_threshold=1e9)
    assert not torch.equal(inside, scaler(rows))


def test_the_documented_options_give_what_skrl_computes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "recovering.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| skrl ")]
    (options,) = re.findall(r"`(--[^`]*)`", row)
    words = shlex.split(options)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    given: dict[str, Any] = {option[2:].replace("-", "_"): value for option, value in pairs}
    given |= {"prefix": [v for option, v in pairs if option == "--prefix"], "epsilon": float(given["epsilon"])}
    given["activations"] = given["activations"].split(",")
    layers = randomised(mlp(6, 16, 8, 3))
    torch.save(saved({"net_container": layers}, "state_preprocessor"), tmp_path / "agent.pt")
    agree(read_checkpoint(tmp_path / "agent.pt", **given), nn.Sequential(RunningStandardScaler(6), layers))


def test_settings_of_the_scaler_a_squashed_output_and_containers_in_a_row(tmp_path: Path) -> None:
    agent = agent_yaml(output="2.5 * tanh(ACTIONS)", state_preprocessor_kwargs="{epsilon: 1.0e-3, clip_threshold: 2}")
    second = "    - name: head\n      input: net\n      layers: [4]\n      activations: elu\n    output"
    folder = run_folder(tmp_path / "run", None, agent.replace("    output", second, 1))
    layers = randomised(mlp(6, 16, 8, 4, 3))
    policy = {"net_container": layers[:4], "head_container": layers[4:]}
    checkpoint = saved(policy, "state_preprocessor")
    torch.save(checkpoint, folder / "checkpoints" / "agent_1000.pt")
    scaler = RunningStandardScaler(6, 1e-3, 2.0)
    agree(read_network(folder), lambda x: torch.tanh(layers(scaler(x))) * 2.5)


def test_a_run_without_agent_yaml_asks_for_the_activation_alone(tmp_path: Path) -> None:
    layers = randomised(mlp(6, 16, 8, 3))
    folder = run_folder(tmp_path / "run", saved({"net_container": layers}, "state_preprocessor"), None)
    with pytest.raises(RecoveryError, match="does not hold its activations"):
        read_network(folder)
    found = read_network(folder, activation="elu")
    agree(found, nn.Sequential(RunningStandardScaler(6), layers))
    assert noted(found, "ACTION SCALE LEFT OUT: no file of the run says what the environment does with the outputs")
    assert not noted(found, "params/")  # files that this user never had
    folder = run_folder(tmp_path / "isaac", saved({"net_container": layers}, "state_preprocessor"), agent_yaml())
    assert noted(read_network(folder), "ACTION SCALE LEFT OUT: params/env.yaml is missing")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activations": "selu"}, r"agent\.yaml line 13.*selu is not a block"),
        ({"layers": "[16, 9]"}, r"agent\.yaml line 9 says hidden layers of \[16, 9\].*has \[16, 8\]"),
        ({"layers": "[{conv2d: 3}]"}, r"conv2d is not linear"),
        ({"layers": "[{linear: []}]"}, r"line 12.*expected the number of outputs"),
        ({"activations": "{a: b}"}, r"agent\.yaml line 13.*expected a text, found a mapping"),
        ({"activations": "[[elu], elu]"}, r"agent\.yaml line 13.*expected a text, found a list"),
        ({"output": "1.2.3 * ACTIONS"}, r"the output 1\.2\.3 \* ACTIONS is not read"),
        ({"input": "concatenate([STATES, ACTIONS])"}, r"line 11.*a chain of layers"),
        ({"output": "ACTIONS + 1"}, r"the output ACTIONS \+ 1 is not read"),
        ({"state_preprocessor": "null"}, r"line 25.*not normalised.*holds statistics under state_preprocessor"),
        ({"state_preprocessor": "Other"}, r"the preprocessor Other is not read"),
    ],
)
def test_what_does_not_fit_says_which_line(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    checkpoint = saved({"net_container": randomised(mlp(6, 16, 8, 3))}, "state_preprocessor")
    folder = run_folder(tmp_path / "run", checkpoint, agent_yaml(**changes))
    with pytest.raises(RecoveryError, match=words):
        read_network(folder)


def test_a_checkpoint_without_the_scaler_that_agent_yaml_has(tmp_path: Path) -> None:
    checkpoint = saved({"net_container": randomised(mlp(6, 16, 8, 3))}, "another")
    folder = run_folder(tmp_path / "run", checkpoint, agent_yaml())
    with pytest.raises(RecoveryError, match=r"line 29 says that the observations are normalised.*holds no statistics"):
        read_network(folder)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("CategoricalMixin", "of a discrete action; the action is the index of the largest"),
        ("MultiCategoricalMixin", "of several discrete actions, a part of them for each in order; each action is the"),
    ],
)
def test_what_becomes_of_logits_is_said_of_their_class(kind: str, words: str, tmp_path: Path) -> None:
    checkpoint = saved({"net_container": randomised(mlp(6, 16, 8, 3))}, "state_preprocessor")
    agent = agent_yaml().replace("GaussianMixin", kind)
    (note,) = [
        note for note in read_network(run_folder(tmp_path / "run", checkpoint, agent)).notes if "ACTION:" in note
    ]
    assert words in note


def test_a_clip_to_limits_that_no_file_holds_is_said(tmp_path: Path) -> None:
    checkpoint = saved({"net_container": randomised(mlp(6, 16, 8, 3))}, "state_preprocessor")
    folder = run_folder(tmp_path / "run", checkpoint, agent_yaml(clip_mean_actions="true"))
    assert noted(read_network(folder), "ACTION CLIP LEFT OUT: params/agent.yaml line 6")
