"""``params/agent.yaml`` and ``params/env.yaml`` as mjlab writes them, of a leg with three joints, and its policy."""

from __future__ import annotations

import torch

from tests.support.isaac_yaml import pair
from tests.support.run_folders import Trained, trained


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
