"""A folder for each inference server, and for C: a file per target, a function from a deployment to its files."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .target import Target

TARGETS = ("triton", "openvino", "kserve", "mlserver", "ray-serve", "systemd", "browser", "c")
"""The names of all targets. Each has a file of its name with its ``TARGET``, imported on use."""


def target_of(name: str) -> "Target":
    """The target of one of these names."""
    return import_module(f"{__name__}.{name.replace('-', '_')}").TARGET
