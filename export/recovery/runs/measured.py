"""The functions that observation terms call: what each measures, in which unit, by its name in the frameworks.

Source: ``isaaclab/envs/mdp/observations.py``, ``mjlab/envs/mdp/observations.py`` and
``unitree_rl_lab/tasks/locomotion/mdp/observations.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

_XYZ = ("x", "y", "z")


@dataclass(frozen=True)
class Measured:
    """What a function gives for each environment."""

    parts: tuple[str, ...] = ()
    """A description of each value; none where there is one value for each joint."""
    unit: str | None = None
    joints: str = ""
    """What is measured of each joint: ``position`` or ``velocity``, where a default is known; ``value`` otherwise."""
    relative: bool = False
    """Whether the joint's default is subtracted."""


def _vector(unit: str | None, frame: str) -> Measured:
    return Measured(tuple(f"{axis}, in the frame of the {frame}" for axis in _XYZ), unit)


_QUATERNION = Measured(tuple(f"{part} of the quaternion" for part in "wxyz"))
MEASURED: dict[str, Measured] = {
    "base_pos_z": Measured(("height in the world",), "m"),
    "base_lin_vel": _vector("m/s", "base"),
    "base_ang_vel": _vector("rad/s", "base"),
    "projected_gravity": Measured(tuple(f"{axis} of the unit vector of gravity, in the base's frame" for axis in _XYZ)),
    "root_pos_w": _vector("m", "world"),
    "root_quat_w": _QUATERNION,
    "root_lin_vel_w": _vector("m/s", "world"),
    "root_ang_vel_w": _vector("rad/s", "world"),
    "imu_orientation": _QUATERNION,
    "imu_projected_gravity": Measured(tuple(f"{axis} of gravity, in the sensor's frame" for axis in _XYZ)),
    "imu_ang_vel": _vector("rad/s", "sensor"),
    "imu_lin_acc": _vector("m/s²", "sensor"),
    "current_time_s": Measured(("time since the episode began",), "s"),
    "remaining_time_s": Measured(("time until the episode ends",), "s"),
    "gait_phase": Measured(("sine of the gait's phase", "cosine of the gait's phase")),
    "joint_pos": Measured(unit="rad", joints="position"),
    "joint_pos_rel": Measured(unit="rad", joints="position", relative=True),
    "joint_vel": Measured(unit="rad/s", joints="velocity"),
    "joint_vel_rel": Measured(unit="rad/s", joints="velocity", relative=True),
    "joint_effort": Measured(unit="N·m", joints="value"),
    "joint_pos_limit_normalized": Measured(joints="value"),
}
MEASURED["projected_gravity_from_sensor"] = MEASURED["projected_gravity"]
SENSORS = {
    "ang_vel": _vector("rad/s", "sensor"),
    "lin_vel": _vector("m/s", "sensor"),
    "lin_acc": _vector("m/s²", "sensor"),
}
"""mjlab's ``builtin_sensor``, by a part of the sensor's name."""
COMMANDS: dict[str, Measured] = {
    **dict.fromkeys(
        ("UniformVelocityCommand", "NormalVelocityCommand", "UniformLevelVelocityCommand"),
        Measured(("lin_vel_x", "lin_vel_y", "ang_vel_z")),
    ),
    "UniformPoseCommand": Measured((*_XYZ, *_QUATERNION.parts)),
    "UniformPose2dCommand": Measured((*_XYZ, "heading")),
    "TerrainBasedPose2dCommand": Measured((*_XYZ, "heading")),
}
"""What command terms give, by their classes."""
UNITS = {"lin_vel_x": "m/s", "lin_vel_y": "m/s", "ang_vel_z": "rad/s", "x": "m", "y": "m", "z": "m", "heading": "rad"}
"""The units of parts of commands."""
