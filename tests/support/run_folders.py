"""Folders of training runs, with the files that the frameworks write, and the policies in them as PyTorch runs them.

The configurations are those of the frameworks' own tasks, in the form in which their ``dump_yaml`` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.recovering import mlp, named, randomised

Policy = Callable[[torch.Tensor], torch.Tensor]
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


class EmpiricalNormalization(nn.Module):
    """As ``rsl_rl/networks/normalization.py`` of release 3.1 has it, in evaluation."""

    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(self, size: int):
        super().__init__()
        self.eps = 1e-2
        self.register_buffer("_mean", torch.zeros(size).unsqueeze(0))
        self.register_buffer("_var", torch.ones(size).unsqueeze(0))
        self.register_buffer("_std", torch.ones(size).unsqueeze(0))
        self.register_buffer("count", torch.tensor(0, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self._mean) / (self._std + self.eps)


def agent_yaml(**changes: str) -> str:
    """``params/agent.yaml`` of Isaac Lab 2.3 with rsl_rl 3; a change replaces the text of a key's value."""
    text = """\
seed: 42
device: cuda:0
num_steps_per_env: 24
max_iterations: 50000
empirical_normalization: null
obs_groups:
  policy:
  - policy
  critic:
  - critic
clip_actions: null
save_interval: 100
experiment_name: unitree_g1
run_name: ''
logger: tensorboard
resume: false
load_run: .*
load_checkpoint: model_.*.pt
class_name: OnPolicyRunner
policy:
  class_name: ActorCritic
  init_noise_std: 1.0
  noise_std_type: scalar
  state_dependent_std: false
  actor_obs_normalization: true
  critic_obs_normalization: true
  actor_hidden_dims:
  - 32
  - 16
  critic_hidden_dims:
  - 32
  - 16
  activation: elu
algorithm:
  class_name: PPO
  learning_rate: 0.001
  schedule: adaptive
  rnd_cfg: null
  symmetry_cfg: null
"""
    return replaced(text, changes)


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


@dataclass(frozen=True)
class Trained:
    """The modules of a policy of rsl_rl, and what the environment does around it."""

    actor: nn.Sequential
    normaliser: nn.Module
    observed: Policy = field(default=lambda x: x)
    """From the raw observation to what the policy gets."""
    acted: Policy = field(default=lambda x: x)
    """From the policy's output to the command."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self.acted(self.actor(self.normaliser(self.observed(rows))))


def trained(inputs: int, outputs: int, *, normalised: bool = True, seed: int = 3, **around: Policy) -> Trained:
    """A policy with random weights."""
    normaliser = randomised(EmpiricalNormalization(inputs), seed) if normalised else nn.Identity()
    return Trained(randomised(mlp(inputs, 32, 16, outputs), seed), normaliser, **around)


def saved_by_3(policy: Trained) -> dict[str, Any]:
    """A checkpoint of rsl_rl 3: everything in one state dict."""
    outputs = list(policy.actor.parameters())[-1].numel()
    parts = {"actor": policy.actor, "actor_obs_normalizer": policy.normaliser}
    critic = randomised(mlp(9, 32, 16, 1), 4)
    parts |= {"critic": critic, "critic_obs_normalizer": randomised(EmpiricalNormalization(9), 5)}
    state = {"std": torch.ones(outputs), **named(parts)}
    return {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "iter": 1,
        "infos": None,
    }


def run_folder(
    folder: Path, checkpoint: Any, files: Mapping[str, str], iterations: Sequence[int] = (0, 900, 1500)
) -> Path:
    """A run's folder; the checkpoint is that of the last iteration, and the others are of other weights."""
    (folder / "params").mkdir(parents=True)
    (folder / "git").mkdir()
    (folder / "events.out.tfevents.1").write_bytes(b"\0")
    for name, text in files.items():
        (folder / name).write_text(text)
    for iteration in iterations[:-1]:
        (folder / f"model_{iteration}.pt").write_bytes(b"another iteration, which is not read")
    torch.save(checkpoint, folder / f"model_{iterations[-1]}.pt")
    return folder


G1_INPUTS, G1_OUTPUTS = 5 * (3 + 3 + 3 + 7 + 7 + 7 + 2), 7


def g1_observed(rows: torch.Tensor) -> torch.Tensor:
    """The terms of ``env_yaml`` with five values each, clipped and scaled as ``ObservationManager.compute_group``."""
    widths = [3, 3, 3, 7, 7, 7, 2]
    parts = list(torch.split(rows, [5 * width for width in widths], dim=1))
    parts[0] = parts[0].clip(min=-100.0, max=100.0).mul(torch.tensor(0.2))
    parts[4] = parts[4].clip(min=-20.0, max=20.0).mul(torch.tensor(0.05))
    return torch.cat(parts, dim=1)


def g1_acted(actions: torch.Tensor) -> torch.Tensor:
    """``JointAction.process_actions`` of ``env_yaml``."""
    targets = actions * 0.25 + torch.tensor(G1_DEFAULTS)
    return torch.clamp(targets, min=torch.full((7,), -1.0), max=torch.full((7,), 1.0))


def g1(normalised: bool = True) -> Trained:
    return trained(G1_INPUTS, G1_OUTPUTS, normalised=normalised, observed=g1_observed, acted=g1_acted)


def g1_run(folder: Path, policy: Trained | None = None, /, **files: str) -> Path:
    """A run of unitree_rl_lab with rsl_rl 3; ``files`` replace ``agent``, ``env`` or ``deploy``."""
    texts = {"agent": agent_yaml(), "env": env_yaml(), "deploy": deploy_yaml()} | files
    named_files = {f"params/{name}.yaml": text for name, text in texts.items() if text}
    return run_folder(folder, saved_by_3(policy or g1()), named_files)


def saved_by_2(policy: Trained) -> dict[str, Any]:
    """A checkpoint of rsl_rl 2: the normalisers beside the policy."""
    parts = {"actor": policy.actor, "critic": randomised(mlp(9, 32, 16, 1), 4)}
    saved: dict[str, Any] = {"model_state_dict": {"std": torch.ones(3), **named(parts)}, "iter": 1, "infos": None}
    if isinstance(policy.normaliser, EmpiricalNormalization):
        saved["obs_norm_state_dict"] = policy.normaliser.state_dict()
        saved["privileged_obs_norm_state_dict"] = randomised(EmpiricalNormalization(9), 5).state_dict()
    return saved


def saved_by_5(policy: Trained) -> dict[str, Any]:
    """A checkpoint of rsl_rl 4 and 5: a state dict for each network."""
    actor = named({"obs_normalizer": policy.normaliser, "mlp": policy.actor})
    actor["distribution.std_param"] = torch.ones(3)
    critic = named(
        {"obs_normalizer": randomised(EmpiricalNormalization(9), 5), "mlp": randomised(mlp(9, 32, 16, 1), 4)}
    )
    return {
        "actor_state_dict": actor,
        "critic_state_dict": critic,
        "optimizer_state_dict": {},
        "iter": 1,
        "infos": None,
    }


def mjlab_agent() -> str:
    """``params/agent.yaml`` of mjlab."""
    return """\
seed: 42
num_steps_per_env: 24
max_iterations: 30000
obs_groups:
  actor: !!python/tuple
  - actor
  critic: !!python/tuple
  - critic
experiment_name: leg_velocity
run_name: ''
clip_actions: null
class_name: OnPolicyRunner
actor:
  hidden_dims: !!python/tuple
  - 32
  - 16
  activation: elu
  obs_normalization: true
  cnn_cfg: null
  distribution_cfg:
    class_name: GaussianDistribution
    init_std: 1.0
    std_type: scalar
  rnn_type: null
  class_name: MLPModel
critic:
  hidden_dims: !!python/tuple
  - 32
  - 16
  activation: elu
  obs_normalization: true
  class_name: MLPModel
algorithm:
  learning_rate: 0.001
  class_name: PPO
"""


def _mjlab_term(name: str, func: str, params: str = "{}", scale: str = "null") -> str:
    return f"""\
      {name}:
        func: !!python/name:mjlab.envs.mdp.observations.{func} ''
        params: {params}
        noise:
          operation: add
          _tensor_cache: {{}}
          n_min: -0.2
          n_max: 0.2
        clip: null
        scale: {scale}
        delay_min_lag: 0
        delay_max_lag: 1
        history_length: 0
        flatten_history_dim: true
"""


def mjlab_env() -> str:
    """``params/env.yaml`` of mjlab for a leg of three joints."""
    terms = "".join(
        (
            _mjlab_term("base_ang_vel", "builtin_sensor", "\n          sensor_name: robot/imu_ang_vel"),
            _mjlab_term("joint_pos", "joint_pos_rel", "\n          biased: true"),
            _mjlab_term("joint_vel", "joint_vel_rel", scale="0.05"),
            _mjlab_term("actions", "last_action"),
            _mjlab_term("command", "generated_commands", "\n          command_name: twist"),
        )
    )
    return f"""\
decimation: 4
scene:
  num_envs: 1
  entities:
    robot:
      init_state:
        pos: {pair(0.0, 0.3, 8)}
        joint_pos:
          hip: 0.1
          kn: 0.4
          .*: -0.5
        joint_vel:
          .*: 0.0
      spec_fn: !!python/name:mjlab.asset_zoo.robots.leg.get_spec ''
observations:
  actor:
    terms:
{terms}    concatenate_terms: true
    concatenate_dim: -1
    enable_corruption: true
    history_length: null
    flatten_history_dim: true
    nan_policy: disabled
actions:
  joint_pos:
    entity_name: robot
    clip: null
    transmission_type: !!python/object/apply:mjlab.actuator.actuator.TransmissionType
    - joint
    actuator_names: !!python/tuple
    - .*
    scale:
      hip: 0.5475464652142303
      knee: 0.35066146637882434
      ankle: 0.25
    offset: 0.0
    preserve_order: false
    use_default_offset: true
commands:
  twist:
    entity_name: robot
    resampling_time_range: {pair(3.0, 8.0, 4)}
    ranges:
      lin_vel_x: {pair(-1.0, 1.0, 6)}
      lin_vel_y: {pair(-1.0, 1.0, 6)}
      ang_vel_z: {pair(-0.5, 0.5, 6)}
      heading: null
sim:
  nconmax: 35
  mujoco:
    timestep: 0.005
    integrator: implicitfast
"""


def mjlab_policy() -> Trained:
    """A policy of ``mjlab_env``."""
    scale = torch.tensor([0.5475464652142303, 0.35066146637882434, 0.25])
    default = torch.tensor([0.1, 0.4, -0.5])

    def observed(rows: torch.Tensor) -> torch.Tensor:
        before, velocities, after = torch.split(rows, [6, 3, 6], dim=1)
        return torch.cat([before, velocities.mul(torch.tensor(0.05)), after], dim=1)

    return trained(15, 3, observed=observed, acted=lambda actions: actions * scale + default)
