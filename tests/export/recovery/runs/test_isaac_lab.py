"""The folder of a run of Isaac Lab becomes the policy as it was trained, with what the environment does around it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from builder import MLPSpec, RecoveryError, assemble, load_spec, load_weights
from export import Recovered, publish, read_network, recover
from export.recovery.runs.yaml_data import plain, read_yaml
from tests.support.isaac_yaml import G1_JOINTS, MDP, deploy_yaml, env_yaml, observation_term, pair, replaced
from tests.support.run_folders import G1_INPUTS, Trained, agent_yaml, g1, g1_run, run_folder, saved_by_3, trained


def agree(found: Recovered, policy: Trained, inputs: int = G1_INPUTS, size: float = 30.0) -> None:
    """The recovered network computes what PyTorch computes with the trained modules, bit for bit."""
    rows = torch.randn(64, inputs, generator=torch.Generator().manual_seed(1)) * size
    with torch.no_grad():
        assert torch.equal(found.module()(rows), policy(rows))


def names(features: Any) -> list[str]:
    return [feature if isinstance(feature, str) else feature.name for feature in features]


def described(spec: MLPSpec, name: str) -> tuple[str | None, str | None]:
    listed = [*(spec.input.listed or ()), *(spec.output.listed or ())]
    (feature,) = [feature for feature in listed if feature.name == name]
    return feature.unit, feature.description


def test_a_run_is_recovered_with_no_option(tmp_path: Path) -> None:
    policy = g1()
    found = read_network(g1_run(tmp_path / "run", policy))
    agree(found, policy)
    spec = found.spec
    kinds = [block.kind for block in spec.blocks]
    assert kinds == ["clip", "scale", "standardize", *["linear", "elu"] * 2, "linear", "scale", "clip"]
    assert (spec.name, spec.period, spec.input.name, spec.output.name) == ("unitree_g1", 0.02, "observation", "action")
    inputs = names(spec.input.listed)
    assert inputs[:4] == ["base_ang_vel[0]@-4", "base_ang_vel[1]@-4", "base_ang_vel[2]@-4", "base_ang_vel[0]@-3"]
    assert inputs[45:52] == [f"joint_pos_rel:{joint}@-4" for joint in G1_JOINTS]
    assert inputs[-2:] == ["gait_phase[0]", "gait_phase[1]"]
    assert names(spec.output.listed) == [f"JointPositionAction:{joint}" for joint in G1_JOINTS]


def test_features_have_units_and_say_what_they_are(tmp_path: Path) -> None:
    spec = read_network(g1_run(tmp_path / "run")).spec
    assert described(spec, "base_ang_vel[1]") == ("rad/s", "y, in the frame of the base")
    assert described(spec, "velocity_commands[0]@-2") == ("m/s", "lin_vel_x, trained from -0.3 to 0.7")
    assert described(spec, "velocity_commands[2]")[0] == "rad/s"
    assert described(spec, "joint_pos_rel:left_knee_joint") == ("rad", "relative to the default position 0.3")
    assert described(spec, "joint_vel_rel:left_knee_joint") == ("rad/s", None)
    raw = "the last output before its scale and offset, (output - 0.3) / 0.25"
    assert described(spec, "last_action:left_knee_joint") == (None, raw)
    assert described(spec, "JointPositionAction:left_knee_joint") == ("rad", "target position")


def test_every_fact_says_where_it_came_from(tmp_path: Path) -> None:
    folder = g1_run(tmp_path / "run")
    notes = read_network(folder).notes
    for file, key, note in (
        ("agent", "  activation:", "activation elu: "),
        ("agent", "  actor_hidden_dims:", "hidden layers of 32, 16: "),
        ("agent", "experiment_name:", "name unitree_g1: "),
        (
            "env",
            "    joint_vel_rel:",
            "input joint_vel_rel 7 x 5, the oldest first, clipped to -20 and 20, times 0.05: ",
        ),
        ("env", "    scale: 0.25", "action JointPositionAction times 0.25: "),
        ("env", "      joint_pos:", "action JointPositionAction plus 7 values from -0.1 to 0.3: the defaults, "),
    ):
        lines = (folder / f"params/{file}.yaml").read_text().split("\n")
        (at,) = [number for number, line in enumerate(lines, 1) if line.startswith(key)]
        assert f"{note}params/{file}.yaml line {at}" in notes
    assert "a run of rsl_rl, checkpoint model_1500.pt: the newest of 3" in notes[0]
    assert any(note.startswith("epsilon 0.01: rsl_rl's EmpiricalNormalization") for note in notes)
    assert any("agrees with the training" in note for note in notes)
    assert any(note.startswith("LAST ACTION: the input last_action") for note in notes)


def test_the_recovered_policy_is_built_and_proved(tmp_path: Path) -> None:
    policy = g1()
    recovery = recover(g1_run(tmp_path / "run", policy), tmp_path / "policy")
    spec = load_spec(recovery.spec_path)
    module = assemble(spec)
    load_weights(module, recovery.weights_path)
    artifact, report = publish(module.eval(), tmp_path / "policy.onnx", spec=spec, device="cpu", page=False)
    assert report.proved
    summary = artifact.summary
    assert summary is not None
    assert summary.period == 0.02
    agree(Recovered(spec, module.state_dict()), policy)


def test_without_a_normaliser(tmp_path: Path) -> None:
    policy = g1(normalised=False)
    agent = replaced(agent_yaml(), {"actor_obs_normalization": "false", "critic_obs_normalization": "false"})
    found = read_network(g1_run(tmp_path / "run", policy, agent=agent))
    agree(found, policy)
    assert not any("epsilon" in note for note in found.notes)


PARTS = {
    "base_lin_vel": observation_term(
        "base_lin_vel", f"{MDP}base_lin_vel", scale="!!python/tuple\n      - 2.0\n      - 2.0\n      - 0.5"
    ),
    "heights": observation_term(
        "heights",
        f"{MDP}height_scan",
        params="\n        sensor_cfg:\n          name: height_scanner",
        clip=pair(-1.0, 1.0, 6),
    ),
    "mine": observation_term("mine", "my_robot.mdp:own_observation", scale="3.0"),
    "legs": observation_term(
        "legs",
        f"{MDP}joint_pos",
        params="\n        asset_cfg:\n          name: robot\n          joint_names:\n          - .*_knee_joint",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "widths", "options"),
    [
        (["base_lin_vel", "heights"], [3, 187], {}),
        (["heights", "mine"], [187, 5], {}),  # the one width that is unknown follows from the network
        (["legs", "base_lin_vel"], [2, 3], {"joints": list(G1_JOINTS)}),
        (["legs", "base_lin_vel"], [2, 3], {}),
    ],
)
def test_terms_have_their_widths(parts: list[str], widths: list[int], options: dict[str, Any], tmp_path: Path) -> None:
    env = env_yaml("".join(PARTS[part] for part in parts), history_length="null")
    total = sum(widths)

    def observed(rows: torch.Tensor) -> torch.Tensor:
        pieces = dict(zip(parts, torch.split(rows, widths, dim=1), strict=True))
        factors = {"base_lin_vel": torch.tensor([2.0, 2.0, 0.5]), "mine": torch.tensor(3.0)}
        low, high = (-1.0, 1.0)
        return torch.cat(
            [
                (piece.clip(low, high) if part == "heights" else piece) * factors.get(part, torch.tensor(1.0))
                for part, piece in pieces.items()
            ],
            dim=1,
        )

    policy = trained(total, 7, observed=observed)
    checkpoint = saved_by_3(policy)
    files = {"params/agent.yaml": agent_yaml(), "params/env.yaml": env}
    found = read_network(run_folder(tmp_path / "run", checkpoint, files), **options)
    assert [
        sum(name.split(":")[0].split("[")[0] == part for name in names(found.spec.input.listed)) for part in parts
    ] == widths
    inner = [block.kind for block in found.spec.blocks]
    assert inner[:3] == (["clip", "scale", "standardize"] if "heights" in parts else ["scale", "standardize", "linear"])
    rows = torch.randn(16, total) * 3
    with torch.no_grad():
        count = len(found.spec.blocks) - (
            2 if options else 1
        )  # without the action's scale, and its clip where it is in
        assert torch.equal(found.module()[:count](rows), policy(rows))


def test_two_unknown_widths_leave_the_inputs_without_names(tmp_path: Path) -> None:
    other = observation_term("other", "my_robot.mdp:other")
    env = env_yaml(PARTS["mine"].replace("scale: 3.0", "scale: null") + other, history_length="null")
    files = {"params/agent.yaml": agent_yaml(), "params/env.yaml": env}
    found = read_network(run_folder(tmp_path / "a", saved_by_3(trained(9, 7)), files))
    assert found.spec.input.features == 9
    assert any(
        "the inputs have no names: how many values these have is not in the folder: mine, other" in note
        for note in found.notes
    )
    files["params/env.yaml"] = env_yaml(PARTS["mine"] + other, history_length="null")
    loud = read_network(run_folder(tmp_path / "b", saved_by_3(trained(9, 7)), files)).notes
    assert any(note.startswith("OBSERVATION SCALES LEFT OUT") for note in loud)


def test_actions_are_clipped_by_the_wrapper_before_their_scale(tmp_path: Path) -> None:
    policy = g1()
    acted = policy.acted
    clipped = Trained(policy.actor, policy.normaliser, policy.observed, lambda a: acted(torch.clamp(a, -0.5, 0.5)))
    agent = replaced(agent_yaml(), {"clip_actions": "0.5"})
    found = read_network(g1_run(tmp_path / "run", policy, agent=agent))
    agree(found, clipped)
    assert [block.kind for block in found.spec.blocks[-3:]] == ["clip", "scale", "clip"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]"}, None),
        ({"step_dt": "0.01"}, r"step_dt 0.01 \(params/deploy.yaml line 2\), and the training has 0.02"),
        (
            {"offset": str([0.0] * 7)},
            r"the action's offset is 0 \(params/deploy.yaml line \d+\), and -0.1, -0.1, 0, 0.05",
        ),
        ({"last_action": "null\n  other:"}, "its observations are .*other"),
    ],
)
def test_a_deploy_yaml_that_differs_from_the_training_is_loud(
    change: dict[str, str], message: str | None, tmp_path: Path
) -> None:
    deploy = deploy_yaml()
    if message is None:
        deploy, message = (
            deploy.replace("[0.2, 0.2, 0.2]", "[0.25, 0.25, 0.25]"),
            r"base_ang_vel times 0.25 \(params/deploy.yaml line \d+\), and 0.2 there",
        )
    else:
        deploy = replaced(deploy, change)
    found = read_network(g1_run(tmp_path / "run", deploy=deploy))
    loud = [note for note in found.notes if note.startswith("DEPLOY.YAML DIFFERS FROM THE TRAINING")]
    assert len(loud) == 1
    assert re.search(message, loud[0])
    agree(found, g1())


TEXTS = {"agent": agent_yaml(), "env": env_yaml(), "deploy": deploy_yaml()}
GAIT = env_yaml()[env_yaml().index("    gait_phase:") : env_yaml().index("  critic:")]


@pytest.mark.parametrize(
    ("file", "old", "new", "where", "message"),
    [
        (
            "env",
            GAIT,
            "",
            "    base_ang_vel:",
            r"the observation terms give 150 values \(base_ang_vel 3 x 5.* has 160 in",
        ),
        (
            "env",
            "concatenate_terms: true",
            "concatenate_terms: false",
            "    concatenate_terms",
            "terms: the terms of the",
        ),
        (
            "env",
            "    - .*",
            "    - left_knee_joint",
            "  JointPositionAction:",
            "the actions are JointPositionAction 1, and",
        ),
        (
            "env",
            "flatten_history_dim: true",
            "flatten_history_dim: false",
            "    flatten_history_dim",
            "a history that is",
        ),
        (
            "env",
            "      - 20.0\n",
            "",
            "      clip: !!python/tuple\n      - -20",
            r"expected a lowest and a highest value, f",
        ),
        (
            "env",
            "    - .*",
            "    - (a+)+b",
            "    - (a+)+b",
            r"joint_names\[0\]: the expression '\(a\+\)\+b' is not mat",
        ),
        ("env", "    - .*", "    - (a", "    - (a", r"joint_names\[0\]: '\(a' is not a regular expression"),
        ("env", "        .*: 0.0", "        .*: x", "        .*: x", r"joint_vel..\*: expected a number, found 'x'"),
        (
            "agent",
            "clip_actions: null",
            "clip_actions: many",
            "clip_actions",
            "clip_actions: expected a number, found 'many",
        ),
        (
            "agent",
            "  - policy\n",
            "  - other\n",
            None,
            r"env.yaml line \d+, observations: the key other is",
        ),
        (
            "deploy",
            "joint_ids_map: [0, 3",
            "joint_ids_map: [0, 7",
            "joint",
            r"joint_ids_map\[1\]: 7 is no joint of its own",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_with_file_and_line(
    file: str, old: str, new: str, where: str | None, message: str, tmp_path: Path
) -> None:
    text = TEXTS[file].replace(old, new, 1)
    assert text != TEXTS[file]
    folder = g1_run(tmp_path / "run", **{file: text})
    with pytest.raises(RecoveryError, match=message) as error:
        read_network(folder)
    assert str(error.value).startswith(f"{folder}: ")
    if where is not None:
        assert f"params/{file}.yaml line {text[: text.index(where)].count(chr(10)) + 1}" in str(error.value)


def test_sorted_keys_have_lost_the_order_of_the_terms(tmp_path: Path) -> None:
    values = plain(read_yaml(g1_run(tmp_path / "run") / "params/env.yaml"))
    del values["observations"]["critic"]
    in_order, sorted_text = (yaml.safe_dump(values, sort_keys=sort) for sort in (False, True))
    agree(read_network(g1_run(tmp_path / "a", env=in_order)), g1())
    with pytest.raises(RecoveryError, match=r"params/env.yaml line 1: all keys are in alphabetical order"):
        read_network(g1_run(tmp_path / "b", env=sorted_text))


def test_an_environment_with_code_of_its_own_leaves_the_scale_out_loudly(tmp_path: Path) -> None:
    env = "sim:\n  dt: 0.005\ndecimation: 4\naction_space: 7\nobservation_space: 160\naction_scale: 0.5\n"
    found = read_network(g1_run(tmp_path / "run", env=env, deploy=""))
    (loud,) = [note for note in found.notes if note.startswith("ACTION SCALE LEFT OUT")]
    assert "with action_scale 0.5 (params/env.yaml line 6)" in loud
    assert found.spec.period == 0.02
    missing = read_network(g1_run(tmp_path / "other", env="", deploy=""))
    assert any(note.startswith("ACTION SCALE LEFT OUT: params/env.yaml is missing") for note in missing.notes)
