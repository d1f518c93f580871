"""Every target that packages are made for, by its name."""

from __future__ import annotations

from . import openvino, triton
from .target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (triton.TARGET, openvino.TARGET)}
