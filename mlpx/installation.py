"""What is installed, and whether it is complete and ours; foreign files are looked for before any import of ours."""

from __future__ import annotations

import platform
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime import Machine

    from .extras import Extra

ROOMS = ("builder", "export", "runtime", "mlpx")


@dataclass(frozen=True)
class Report:
    """What ``mlpx doctor`` prints. ``problems`` keep mlpx from working; ``notes`` limit it."""

    python: str
    system: str
    packages: dict[str, str | None]
    extras: dict[str, Extra]
    """What each extra needs, as mlpx's own metadata list it."""
    providers: dict[str, str]
    """For each device "loads", or why it does not and what installs it."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def examine() -> Report:
    """Examine this installation and this machine. Nothing is changed."""
    problems = list(foreign_files())
    notes: list[str] = []
    from mlpx.extras import extras_of, required_by
    from runtime import ProviderError, this_machine
    from runtime.extras import installed_version
    from runtime.session.providers import DISTRIBUTIONS, obstacle
    from runtime.timing.load import busy_with_onnxruntime

    providers: dict[str, str] = dict.fromkeys(("cpu", "cuda"), "ONNX Runtime is not installed")
    try:
        machine = this_machine()
    except ProviderError as error:
        problems.append(str(error))
    else:
        problems += [machine.conflict] if machine.conflict else []
        for device, reason in (("cpu", None), ("cuda", obstacle(machine))):
            providers[device] = _try_provider(device, machine) if reason is None else f"cannot be used: {reason}"
        if machine.cuda.usable and machine.cuda.optional_missing:
            names = ", ".join(machine.cuda.optional_missing)
            notes.append(f"CUDA works without {names}; dense networks need none of these")
    notes += [process.format() for process in busy_with_onnxruntime()]
    extras: dict[str, Extra] = {}
    names = ["mlpx", *DISTRIBUTIONS]
    with suppress(PackageNotFoundError):  # said by `foreign_files`
        own = distribution("mlpx")
        extras = extras_of(own)
        names += [*required_by(own), *(name for extra in extras.values() for name in extra.packages)]
    packages = {name: installed_version(name) for name in names}
    system = platform.python_version(), platform.platform()
    return Report(*system, packages, extras, providers, tuple(problems), tuple(notes))


def foreign_files() -> Iterator[str]:
    """Files of mlpx's packages that are not the ones it installed.

    ``builder``, ``export`` and ``runtime`` are names of other distributions too; pip lets the last one installed win.
    """
    try:
        own = distribution("mlpx")
    except PackageNotFoundError:
        yield "mlpx runs from a folder and is not installed. What to do: pip install it"
        return
    root = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        spec = find_spec(room)
        home = Path(spec.origin).resolve().parent.parent if spec is not None and spec.origin else None
        if home != root:
            message = f"'{room}' is imported from {home}, mlpx from {root}"
            yield f"{message}. What to do: run from another folder, or give mlpx an environment of its own"
    for file in own.files or []:
        path = Path(str(own.locate_file(file)))
        if file.parts[0] not in ROOMS or file.hash is None or file.suffix not in (".py", ".pyi"):
            continue
        digest = urlsafe_b64encode(sha256(path.read_bytes()).digest()).rstrip(b"=").decode() if path.exists() else None
        if digest != file.hash.value:
            owners = [other.name for other in distributions() if str(file) in map(str, other.files or [])]
            others = [name for name in owners if name != own.name]
            known = f" (the distribution '{others[0]}' has a file of that name)" if others else ""
            state = "is missing" if digest is None else f"is not the one mlpx installed{known}"
            yield f"{path} {state}. What to do: give mlpx an environment of its own and install it again"


def _try_provider(device: str, machine: Machine) -> str:
    """Whether the provider really starts, with a minimal model."""
    from runtime import ProviderError
    from runtime.session.ort_session import open_session
    from runtime.session.providers import choose

    try:
        open_session(_MINIMAL_MODEL, choose(device, machine).providers, threads=1)
    except ProviderError as error:
        return str(error)
    return "loads"


# ModelProto: ir_version 8, opset 17, one Relu from x to y, float32 of shape (n).
_MINIMAL_MODEL = (
    b'\x08\x08:5\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x10\n\x01x\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01n'
    b"b\x10\n\x01y\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01nB\x04\n\x00\x10\x11"
)
