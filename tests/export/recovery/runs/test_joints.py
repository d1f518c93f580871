"""The joints of a robot: their names from an option or from a file of the run, and what depends on their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import yaml

from builder import RecoveryError
from export import Recovered, read_network
from tests.support.isaac_yaml import G1_DEFAULTS, G1_JOINTS, G1_SDK, env_yaml
from tests.support.onnx_drafts import Draft
from tests.support.run_folders import G1_INPUTS, Trained, g1, g1_run, trained


def agree(found: Recovered, policy: Trained, inputs: int = G1_INPUTS, size: float = 30.0) -> None:
    """The recovered network computes what PyTorch computes with the trained modules, bit for bit."""
    rows = torch.randn(64, inputs, generator=torch.Generator().manual_seed(1)) * size
    with torch.no_grad():
        assert torch.equal(found.module()(rows), policy(rows))


def names(features: Any) -> list[str]:
    return [feature if isinstance(feature, str) else feature.name for feature in features]


def test_joints_from_the_option_are_those_of_the_folder(tmp_path: Path) -> None:
    with_deploy = read_network(g1_run(tmp_path / "a"))
    folder = g1_run(tmp_path / "b", deploy="")
    given = read_network(folder, joints=",".join(G1_JOINTS))
    assert given.spec == with_deploy.spec
    (tmp_path / "joints.txt").write_text("\n".join(G1_JOINTS) + "\n")
    assert read_network(folder, joints=str(tmp_path / "joints.txt")).spec == with_deploy.spec
    assert any(
        note == f"order of the joints: {tmp_path / 'joints.txt'}"
        for note in read_network(folder, joints=str(tmp_path / "joints.txt")).notes
    )


def test_a_list_of_names_is_longer_than_the_name_of_a_file_may_be(tmp_path: Path) -> None:
    """A humanoid has 29 joints."""
    listed = [f"left_joint_number_{index}" for index in range(29)]
    folder = g1_run(tmp_path / "run", trained(5 * (11 + 3 * 29), 29), deploy="")
    found = read_network(folder, joints=",".join(listed))
    assert names(found.spec.output.features) == [f"JointPositionAction:{name}" for name in listed]


def test_joints_that_contradict_the_folder_are_an_error_with_both(tmp_path: Path) -> None:
    with pytest.raises(
        RecoveryError, match=r"--joints left_hip.* contradicts left_hip.*, from params/deploy.yaml line 1"
    ):
        read_network(g1_run(tmp_path / "run"), joints=sorted(G1_JOINTS))


def descriptors(names: Sequence[str]) -> str:
    """``IO_descriptors.yaml`` of Isaac Lab, whose keys are sorted."""
    return yaml.safe_dump(
        {"actions": [], "articulations": {"robot": {"joint_names": list(names)}}, "scene": {"dt": 0.02}}
    )


def exported(path: Path, names: Sequence[str]) -> None:
    """An exported policy whose metadata has the names, as mjlab writes it at every checkpoint."""
    draft = Draft(13)
    file = draft.save(path, draft("Relu", "x"))
    model = onnx.load(str(file))
    model.metadata_props.add(key="joint_names", value=",".join(names))
    onnx.save(model, str(file))


@pytest.mark.parametrize("source", ["descriptors", "exported"])
def test_joints_from_the_other_files_of_a_run(source: str, tmp_path: Path) -> None:
    folder = g1_run(tmp_path / "run", deploy="")
    if source == "descriptors":
        (folder / "io_descriptors").mkdir()
        (folder / "io_descriptors/IO_descriptors.yaml").write_text(descriptors(G1_JOINTS))
        place = "io_descriptors/IO_descriptors.yaml line 4"
    else:
        exported(folder / "2026-01-01_10-00-00.onnx", G1_JOINTS)
        (folder / "broken.onnx").write_bytes(b"no file of ONNX")
        place = "joint_names of 2026-01-01_10-00-00.onnx"
    found = read_network(folder)
    agree(found, g1())
    assert f"order of the joints: {place}" in found.notes


def test_two_orders_of_the_joints_are_an_error_with_both(tmp_path: Path) -> None:
    folder = g1_run(tmp_path / "run")
    exported(folder / "policy.onnx", G1_SDK[:7])
    with pytest.raises(
        RecoveryError, match=r"two orders of the joints: .* in params/deploy.yaml line 1 .* in joint_names of"
    ):
        read_network(folder)


def test_without_names_of_joints_what_depends_on_them_is_left_out_loudly(tmp_path: Path) -> None:
    found = read_network(g1_run(tmp_path / "run", deploy=""))
    assert names(found.spec.output.listed) == [f"JointPositionAction[{index}]" for index in range(7)]
    assert names(found.spec.input.listed)[45:47] == ["joint_pos_rel[0]@-4", "joint_pos_rel[1]@-4"]
    loud = [note.partition(":")[0] for note in found.notes if note.partition(":")[0].isupper()]
    assert loud == ["ACTION OFFSET LEFT OUT", "ACTION CLIP LEFT OUT"]
    assert all("--joints" in note for note in found.notes if note.startswith("ACTION"))
    policy = g1()
    rows = torch.randn(8, G1_INPUTS)
    with torch.no_grad():
        whole = found.module()(rows) + torch.tensor(G1_DEFAULTS)
        torch.testing.assert_close(whole.clamp(-1, 1), policy(rows))


def test_a_scale_by_names_is_left_out_without_them_and_right_with_them(tmp_path: Path) -> None:
    scale = "\n      .*_hip_.*: 0.5\n      .*_knee_joint: 0.25\n      waist_yaw_joint: 0.125"
    env, deploy = env_yaml(scale=scale), ""
    bare = read_network(g1_run(tmp_path / "a", env=env, deploy=deploy))
    assert any(
        note.startswith("ACTION SCALE LEFT OUT: JointPositionAction has a scale by joint names") for note in bare.notes
    )
    factors = torch.tensor([0.5, 0.5, 0.125, 0.5, 0.5, 0.25, 0.25])
    defaults = torch.tensor(G1_DEFAULTS)
    policy = trained(G1_INPUTS, 7, observed=g1().observed, acted=lambda a: (a * factors + defaults).clamp(-1, 1))
    agree(read_network(g1_run(tmp_path / "b", policy, env=env, deploy=deploy), joints=list(G1_JOINTS)), policy)


def test_names_in_their_own_order_need_no_option(tmp_path: Path) -> None:
    """``preserve_order`` makes the order of the action that of the configuration."""
    order = sorted(G1_JOINTS)
    listed = "".join(f"\n    - {joint}" for joint in order)
    env = env_yaml(joint_names=listed, preserve_order="true")
    found = read_network(g1_run(tmp_path / "run", env=env, deploy=""))
    assert names(found.spec.output.listed) == [f"JointPositionAction:{joint}" for joint in order]
    assert not any(note.startswith("ACTION") for note in found.notes)
    by_name = dict(zip(G1_JOINTS, G1_DEFAULTS, strict=True))
    offsets = torch.tensor([by_name[joint] for joint in order])
    policy = trained(G1_INPUTS, 7, observed=g1().observed, acted=lambda a: (a * 0.25 + offsets).clamp(-1, 1))
    agree(found, policy)


def test_names_whose_order_is_the_robots_are_not_taken_for_it(tmp_path: Path) -> None:
    listed = "".join(f"\n    - {joint}" for joint in sorted(G1_JOINTS))
    found = read_network(g1_run(tmp_path / "run", env=env_yaml(joint_names=listed), deploy=""))
    assert names(found.spec.output.listed) == [f"JointPositionAction[{index}]" for index in range(7)]


def test_without_their_own_order_names_are_in_the_robots(tmp_path: Path) -> None:
    listed = "".join(f"\n    - {joint}" for joint in sorted(G1_JOINTS))
    policy = g1()
    found = read_network(
        g1_run(tmp_path / "run", policy, env=env_yaml(joint_names=listed), deploy=""), joints=G1_JOINTS
    )
    assert names(found.spec.output.listed) == [f"JointPositionAction:{joint}" for joint in G1_JOINTS]
    agree(found, policy)


def test_several_action_terms_follow_each_other(tmp_path: Path) -> None:
    """Wheels behind legs: each term has its own scale, offset and unit."""
    head, _, tail = env_yaml().partition("  JointPositionAction:\n")
    wheels = """\
  wheel_vel:
    class_type: isaaclab.envs.mdp.actions.joint_actions:JointVelocityAction
    asset_name: robot
    debug_vis: false
    clip: null
    joint_names:
    - .*_wheel
    scale: 5.0
    offset: 0.0
    preserve_order: false
    use_default_offset: true
events:
"""
    legs = tail.partition("events:\n")[0].replace("    - .*\n", "    - .*_joint\n")
    env = f"{head}  JointPositionAction:\n{legs}{wheels}{tail.partition('events:' + chr(10))[2]}"
    joints = [*G1_JOINTS, "left_wheel", "right_wheel"]
    width = 5 * (3 + 3 + 3 + 9 + 9 + 9 + 2)

    def observed(rows: torch.Tensor) -> torch.Tensor:
        parts = list(torch.split(rows, [5 * size for size in (3, 3, 3, 9, 9, 9, 2)], dim=1))
        parts[0] = parts[0].clip(-100.0, 100.0) * 0.2
        parts[4] = parts[4].clip(-20.0, 20.0) * 0.05
        return torch.cat(parts, dim=1)

    def acted(actions: torch.Tensor) -> torch.Tensor:
        return torch.cat([g1().acted(actions[:, :7]), actions[:, 7:] * 5.0], dim=1)

    policy = trained(width, 9, observed=observed, acted=acted)
    found = read_network(g1_run(tmp_path / "run", policy, env=env, deploy=""), joints=joints)
    agree(found, policy, width)
    assert names(found.spec.output.listed)[-2:] == ["wheel_vel:left_wheel", "wheel_vel:right_wheel"]
    assert (found.spec.output.listed or [])[-1].unit == "rad/s"
