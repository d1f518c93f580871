"""``params/env.yaml`` and ``params/deploy.yaml`` as Isaac Lab and unitree_rl_lab write them, of a small G1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SLICE = "!!python/object/apply:builtins.slice\n        - null\n        - null\n        - null"
G1_SDK = (
    *("left_hip_pitch_joint", "left_hip_roll_joint", "left_knee_joint", "right_hip_pitch_joint"),
    *("right_hip_roll_joint", "right_knee_joint", "waist_yaw_joint", ""),
)
"""The joints of a small G1 by their numbers on its bus; the empty one is not there."""
G1_MAP = (0, 3, 6, 1, 4, 2, 5)
G1_JOINTS = tuple(G1_SDK[index] for index in G1_MAP)
"""The joints in the order of the simulation, which goes from the root outwards."""
G1_DEFAULTS = [-0.1, -0.1, 0.0, 0.05, -0.05, 0.3, 0.3]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with other values for keys; each key is there once."""
    lines = text.split("\n")
    for key, value in changes.items():
        (at,) = [index for index, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
        lines[at] = f"{lines[at].partition(':')[0]}: {value}"
    return "\n".join(lines)


def _lines(items: Sequence[Any], indent: int) -> str:
    return "".join(f"\n{' ' * indent}- {item!r}" if item == "" else f"\n{' ' * indent}- {item}" for item in items)


def pair(low: float, high: float, indent: int) -> str:
    """A tuple as PyYAML dumps it."""
    return f"!!python/tuple{_lines((low, high), indent)}"


def observation_term(name: str, func: str, *, params: str = "{}", clip: str = "null", scale: str = "null") -> str:
    return f"""\
    {name}:
      func: {func}
      params: {params}
      modifiers: null
      noise:
        func: isaaclab.utils.noise.noise_model:uniform_noise
        operation: add
        n_min: -0.2
        n_max: 0.2
      clip: {clip}
      scale: {scale}
      history_length: 0
      flatten_history_dim: true
"""


MDP = "isaaclab.envs.mdp.observations:"
G1_TERMS = "".join(
    (
        observation_term("base_ang_vel", f"{MDP}base_ang_vel", scale="0.2", clip=pair(-100.0, 100.0, 6)),
        observation_term("projected_gravity", f"{MDP}projected_gravity"),
        observation_term(
            "velocity_commands", f"{MDP}generated_commands", params="\n        command_name: base_velocity"
        ),
        observation_term("joint_pos_rel", f"{MDP}joint_pos_rel"),
        observation_term("joint_vel_rel", f"{MDP}joint_vel_rel", scale="0.05", clip=pair(-20.0, 20.0, 6)),
        observation_term("last_action", f"{MDP}last_action"),
        observation_term(
            "gait_phase",
            "unitree_rl_lab.tasks.locomotion.mdp.observations:gait_phase",
            params="\n        period: 0.8",
        ),
    )
)


def env_yaml(terms: str = G1_TERMS, **changes: str) -> str:
    """``params/env.yaml`` of a velocity task of unitree_rl_lab, without the parts that say nothing about the policy."""
    settings = {"history_length": "5", "joint_names": "\n    - .*", "scale": "0.25"} | changes
    return f"""\
viewer:
  eye: !!python/tuple
  - 7.5
  - 7.5
  - 7.5
  cam_prim_path: /OmniverseKit_Persp
sim:
  physics_prim_path: /physicsScene
  device: cuda:0
  dt: 0.005
  render_interval: 4
  gravity: !!python/tuple
  - 0.0
  - 0.0
  - -9.81
ui_window_class_type: isaaclab.envs.ui.manager_based_rl_env_window:ManagerBasedRLEnvWindow
seed: 42
decimation: 4
scene:
  num_envs: 4096
  robot:
    class_type: isaaclab.assets.articulation.articulation:Articulation
    prim_path: /World/envs/env_.*/Robot
    init_state:
      pos: {pair(0.0, 0.8, 6)}
      joint_pos:
        .*_hip_pitch_joint: -0.1
        left_hip_roll_joint: 0.05
        right_hip_roll_joint: -0.05
        .*_knee_joint: 0.3
      joint_vel:
        .*: 0.0
    collision_group: 0
    joint_sdk_names:{_lines(G1_SDK, 4)}
  height_scanner:
    class_type: isaaclab.sensors.ray_caster.ray_caster:RayCaster
    pattern_cfg:
      func: isaaclab.sensors.ray_caster.patterns.patterns:grid_pattern
      resolution: 0.1
      size:
      - 1.6
      - 1.0
      ordering: xy
recorders:
  dataset_export_mode:
    _value_: 1
    _name_: EXPORT_ALL
observations:
  policy:
    concatenate_terms: true
    concatenate_dim: -1
    enable_corruption: true
    history_length: {settings["history_length"]}
    flatten_history_dim: true
{terms}  critic:
    concatenate_terms: true
    enable_corruption: false
    history_length: null
    flatten_history_dim: true
{observation_term("base_lin_vel", f"{MDP}base_lin_vel")}actions:
  JointPositionAction:
    class_type: isaaclab.envs.mdp.actions.joint_actions:JointPositionAction
    asset_name: robot
    debug_vis: false
    clip:
      .*: {pair(-1.0, 1.0, 6)}
    joint_names: {settings["joint_names"]}
    scale: {settings["scale"]}
    offset: 0.0
    preserve_order: {settings.get("preserve_order", "false")}
    use_default_offset: true
events:
  base_com: null
  reset_base:
    func: isaaclab.envs.mdp.events:reset_root_state_uniform
    params:
      asset_cfg:
        name: robot
        joint_ids: {SLICE}
      pose_range:
        x: {pair(-0.5, 0.5, 8)}
    mode: reset
commands:
  base_velocity:
    class_type: isaaclab.envs.mdp.commands.velocity_command:UniformVelocityCommand
    resampling_time_range: {pair(10.0, 10.0, 4)}
    asset_name: robot
    heading_command: false
    ranges:
      lin_vel_x: {pair(-0.3, 0.7, 6)}
      lin_vel_y: {pair(-0.2, 0.2, 6)}
      ang_vel_z: {pair(-0.2, 0.2, 6)}
      heading: null
"""


def deploy_yaml(**changes: str) -> str:
    """``params/deploy.yaml`` as unitree_rl_lab writes it for ``env_yaml``."""
    text = f"""\
joint_ids_map: {list(G1_MAP)}
step_dt: 0.02
stiffness: [100.0, 100.0, 150.0, 100.0, 100.0, 150.0, 200.0, 0.0]
damping: [2.0, 2.0, 4.0, 2.0, 2.0, 4.0, 5.0, 0.0]
default_joint_pos: {G1_DEFAULTS}
commands:
  base_velocity:
    ranges: {{}}
actions:
  JointPositionAction:
    clip: {[[-1.0, 1.0]] * 7}
    joint_names: [.*]
    scale: {[0.25] * 7}
    offset: {G1_DEFAULTS}
    joint_ids: null
observations:
  base_ang_vel:
    params: {{}}
    clip: [-100.0, 100.0]
    scale: [0.2, 0.2, 0.2]
    history_length: 5
  projected_gravity:
    params: {{}}
    clip: null
    scale: [1.0, 1.0, 1.0]
    history_length: 5
  velocity_commands:
    params: {{command_name: base_velocity}}
    clip: null
    scale: [1.0, 1.0, 1.0]
    history_length: 5
  joint_pos_rel:
    params: {{}}
    clip: null
    scale: {[1.0] * 7}
    history_length: 5
  joint_vel_rel:
    params: {{}}
    clip: [-20.0, 20.0]
    scale: {[0.05] * 7}
    history_length: 5
  last_action:
    params: {{}}
    clip: null
    scale: {[1.0] * 7}
    history_length: 5
  gait_phase:
    params: {{period: 0.8}}
    clip: null
    scale: [1.0, 1.0]
    history_length: 5
"""
    return replaced(text, changes)
