"""Which run a folder is, and which checkpoint of it is taken; what is no run says what was found."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builder import RecoveryError
from export import read_network, recover
from tests.support.commands import Run
from tests.support.recovering import mlp, named, randomised
from tests.support.run_folders import agent_yaml, g1, g1_run, run_folder, saved_by_3, trained


def agree(found: Any, policy: Any, inputs: int) -> None:
    rows = torch.randn(16, inputs)
    with torch.no_grad():
        assert torch.equal(found.module()(rows), policy(rows))


def test_the_newest_checkpoint_is_that_of_the_largest_number(tmp_path: Path) -> None:
    policy = trained(9, 4)
    folder = run_folder(tmp_path / "run", saved_by_3(policy), {"params/agent.yaml": agent_yaml()}, (0, 50, 999, 1000))
    found = read_network(folder)
    agree(found, policy, 9)  # model_999.pt comes last by its name
    assert "checkpoint model_1000.pt: the newest of 4; another is recovered by its path" in found.notes[0]


def test_a_checkpoint_is_recovered_by_its_path_with_what_its_folder_says(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", saved_by_3(trained(9, 4)), {"params/agent.yaml": agent_yaml()})
    other = trained(9, 4, seed=8)
    torch.save(saved_by_3(other), folder / "model_900.pt")
    found = read_network(folder / "model_900.pt")
    agree(found, other, 9)
    assert "checkpoint model_900.pt, as it was given; the newest is model_1500.pt" in found.notes[0]


def test_another_network_of_a_checkpoint_is_none_of_the_folders(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", saved_by_3(trained(9, 4)), {"params/agent.yaml": agent_yaml()})
    options: dict[str, Any] = {"prefix": ["critic_obs_normalizer.", "critic."], "activation": "relu", "epsilon": 0.1}
    found = read_network(folder / "model_1500.pt", **options)
    assert found.spec.output_shape == (1,)
    assert not any("params/" in note for note in found.notes)


def test_a_folder_around_one_run_is_that_run(tmp_path: Path) -> None:
    policy = trained(9, 4)
    run_folder(tmp_path / "logs/rsl_rl/g1/2026-01-01_10-00-00", saved_by_3(policy), {"params/agent.yaml": agent_yaml()})
    agree(read_network(tmp_path / "logs/rsl_rl"), policy, 9)


def test_a_damaged_checkpoint_is_an_error_with_its_path(tmp_path: Path) -> None:
    folder = g1_run(tmp_path / "run")
    (folder / "model_1500.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(RecoveryError) as error:
        read_network(folder)
    assert str(error.value).startswith(f"{folder / 'model_1500.pt'}: ")
    assert str(error.value).count(str(folder)) == 1


def test_two_runs_are_an_error_that_lists_them(tmp_path: Path) -> None:
    for name in ("first", "second"):
        g1_run(tmp_path / "g1" / name)
    with pytest.raises(RecoveryError) as error:
        read_network(tmp_path / "g1")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'g1'}: expected one run, found 2:")
    assert f"{tmp_path / 'g1' / 'first'} (rsl_rl)" in message
    assert f"{tmp_path / 'g1' / 'second'} (rsl_rl)" in message
    assert "What to do: recover one of them" in message


def test_a_folder_without_a_run_is_an_error_that_lists_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match=r"no training run that is known; it is empty\nknown runs:"):
        read_network(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "videos").mkdir()
    with pytest.raises(
        RecoveryError, match=r"it holds:\n  notes.txt\n  videos/\nknown runs:\n  rsl_rl: model_N.pt beside"
    ):
        read_network(tmp_path)


class Armed:
    """A pickle of it creates a file when it is read."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("missing", ["agent", "env"])
def test_a_pickle_instead_of_yaml_is_refused_and_never_opened(missing: str, tmp_path: Path) -> None:
    folder, marker = g1_run(tmp_path / "run", **{missing: ""}), tmp_path / "was-run"
    (folder / f"params/{missing}.pkl").write_bytes(pickle.dumps(Armed(marker)))
    with pytest.raises(
        RecoveryError, match=rf"params/{missing}.yaml is missing; params/{missing}.pkl is a pickle.*What"
    ):
        read_network(folder)
    assert not marker.exists()


def test_pickles_beside_the_yaml_are_never_opened(tmp_path: Path) -> None:
    policy = g1()
    folder, marker = g1_run(tmp_path / "run", policy), tmp_path / "was-run"
    for name in ("agent", "env"):
        (folder / f"params/{name}.pkl").write_bytes(pickle.dumps(Armed(marker)))
    agree(read_network(folder), policy, 160)
    assert not marker.exists()


def test_half_a_yaml_and_tags_that_would_run_code(tmp_path: Path) -> None:
    text = agent_yaml()
    half = text[: text.index("noise_std_type") + 6]
    with pytest.raises(
        RecoveryError, match=r"run: params/agent.yaml line 2\d: not YAML: .*What to do: it may be incom"
    ):
        read_network(g1_run(tmp_path / "run", agent=half))
    marker, policy = tmp_path / "was-run", g1()
    armed = f'{text}extra: !!python/object/apply:os.system ["touch {marker}"]\n'
    agree(read_network(g1_run(tmp_path / "armed", policy, agent=armed)), policy, 160)
    assert not marker.exists()


def test_an_experiment_without_a_letter_of_ascii_gives_a_model_without_a_name(tmp_path: Path) -> None:
    policy = g1()
    folder = g1_run(tmp_path / "run", policy, agent=agent_yaml(experiment_name="'实验'"))
    found = read_network(folder)
    agree(found, policy, 160)
    assert found.spec.name == "model"
    assert read_network(folder, name="g1").spec.name == "g1"


def test_a_run_of_legged_gym_asks_for_what_no_file_says(tmp_path: Path) -> None:
    actor = randomised(mlp(9, 16, 4))
    state = {"std": torch.ones(4), **named({"actor": actor, "critic": mlp(9, 16, 1)})}
    folder = tmp_path / "Jul13_12-00-00_"
    folder.mkdir()
    for iteration in (0, 50, 300):
        torch.save({"model_state_dict": state, "iter": iteration}, folder / f"model_{iteration}.pt")
    with pytest.raises(
        RecoveryError, match=r"A checkpoint does not hold its activations. What to do: add --activation"
    ):
        read_network(folder)
    found = read_network(folder, activation="elu")
    agree(found, actor, 9)
    loud = [note.partition(":")[0] for note in found.notes if note.partition(":")[0].isupper()]
    assert loud == ["ACTION SCALE LEFT OUT", "OBSERVATION SCALES LEFT OUT"]
    alone = read_network(folder / "model_50.pt", prefix=("actor.",), activation="elu")
    assert not any(note.startswith("a run of") for note in alone.notes)  # a file without a configuration is a file


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float16"}, "dtype is 'float32' or left out, not 'float16'"),
        ({"dropout": 2.0}, r"--dropout 2\.0: expected a number from 0 to 1"),
        ({"epsilon": -1.0}, r"--epsilon -1\.0: expected a number from 0 to 1"),
        ({"activation": "relu", "activations": ["elu", "elu"]}, "give either --activation or --activations"),
    ],
)
def test_an_option_means_what_it_means_for_a_checkpoint_alone(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    torch.save(saved_by_3(trained(9, 4, normalised=False)), tmp_path / "model_0.pt")
    for path in (tmp_path, tmp_path / "model_0.pt"):
        with pytest.raises(RecoveryError, match=words):
            read_network(path, prefix=("actor.",), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_activation": "rleu"}, "--output-activation: unknown activation 'rleu'"),
        ({"output_activation": "tanh"}, "--output-activation tanh contradicts none.*leave --output-activation out$"),
        ({"activation": "relu"}, "--activation relu contradicts elu.*leave --activation out$"),
        ({"activations": ["relu", "relu"]}, "--activations relu,relu contradicts elu.*leave --activations out$"),
        ({"prefix": "critic."}, "--prefix critic. contradicts .*out; another network is recovered by the file's path$"),
    ],
)
def test_an_option_that_contradicts_the_folder_says_what_helps(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RecoveryError, match=words):
        read_network(g1_run(tmp_path / "run"), **options)


def test_joints_are_for_folders(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "net.pt")
    with pytest.raises(RecoveryError, match="--joints is for the folder of a training run"):
        read_network(tmp_path / "net.pt", joints="a,b")
    with pytest.raises(RecoveryError, match="--joints: 'a' appears twice"):
        read_network(g1_run(tmp_path / "run"), joints="a,a")
    with pytest.raises(RecoveryError, match="--joints: no names in it"):
        read_network(tmp_path / "run", joints=" , ")


def test_the_command_recovers_a_folder(tmp_path: Path, run: Run) -> None:
    folder = g1_run(tmp_path / "run")
    result = run("recover", folder, "-o", tmp_path / "policy")
    assert result.code == 0
    assert "note: activation elu: params/agent.yaml line 33" in result.err
    assert "network" in result.out
    assert "clip → scale → standardize → linear 32" in result.out
    assert (tmp_path / "policy/spec.yaml").is_file()
    twice = run("recover", folder, "-o", tmp_path / "policy", "--activation", "relu")
    assert twice.code == 2
    assert "--activation relu contradicts elu, from params/agent.yaml line 33" in twice.err


def test_recovering_in_python_writes_the_same_files_again(tmp_path: Path) -> None:
    folder = g1_run(tmp_path / "run")
    first = recover(folder, tmp_path / "policy")
    before = {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()}
    recover(folder, tmp_path / "policy")
    assert {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()} == before
    assert first.artifact is None
