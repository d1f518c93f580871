"""A folder for each inference server: a file per target, each a pure function from a deployment to its files."""

from . import browser, kserve, mlserver, openvino, ray_serve, triton
from .target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        triton.TARGET,
        openvino.TARGET,
        kserve.TARGET,
        mlserver.TARGET,
        ray_serve.TARGET,
        browser.TARGET,
    )
}
"""Every target that packages are made for, by its name; importing it is light, since every command lists them."""
