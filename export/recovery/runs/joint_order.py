"""The order of a robot's joints, from what frameworks leave beside a checkpoint.

- ``params/deploy.yaml`` of unitree_rl_lab: indices into the names in env.yaml.
- ``io_descriptors/IO_descriptors.yaml``, which Isaac Lab writes with ``--export_io_descriptors``.
- the metadata of an exported ``.onnx`` file: mjlab and BeyondMimic write ``joint_names`` there at every checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from builder.errors import RecoveryError
from runtime import ModelError, read_header

from . import deploy
from .facts import Fact, Joints
from .folder import RunFolder
from .yaml_data import Entry

_DESCRIPTORS = "io_descriptors/IO_descriptors.yaml"
_EXPORTED = ("*.onnx", "exported/*.onnx")
_KEY = "joint_names"


def joint_order(folder: RunFolder, env: Entry | None, told: Entry | None) -> Joints:
    """The joints in the order of the simulation, where a file of the run says it; ``told`` is its deploy.yaml.

    Raises RecoveryError: two files say different things.
    """
    found = [each for each in _sources(folder, env, told) if each is not None]
    for other in found[1:]:
        if other.value != found[0].value:
            said = " and ".join(f"{', '.join(each.value)} in {each.place}" for each in (found[0], other))
            raise RecoveryError(
                f"two orders of the joints: {said}. What to do: remove the file that is not of this run"
            )
    return found[0] if found else None


def _sources(folder: RunFolder, env: Entry | None, told: Entry | None) -> Iterator[Joints]:
    if told is not None:
        yield deploy.joints_of(told, env)
    descriptors = folder.yaml(_DESCRIPTORS)
    names = descriptors.get("articulations", "robot", _KEY) if descriptors is not None else None
    if names is not None:
        yield Fact(tuple(name.text() for name in names.items()), names.place)
    for pattern in _EXPORTED:
        for path in sorted(folder.path.glob(pattern)):
            with suppress(ModelError):  # a damaged file says nothing
                names_text = read_header(path).metadata.get(_KEY, "")
                if names_text:
                    place = f"{_KEY} of {path.relative_to(folder.path).as_posix()}"
                    yield Fact(tuple(name.strip() for name in names_text.split(",")), place)
