"""Every target that packages are made for, by its name."""

from __future__ import annotations

from . import browser, kserve, mlserver, openvino, ray_serve, triton
from .target import Target

_MODULES = (triton, openvino, kserve, mlserver, ray_serve, browser)
TARGETS: dict[str, Target] = {module.TARGET.name: module.TARGET for module in _MODULES}
