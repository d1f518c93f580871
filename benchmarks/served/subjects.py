"""The models that serving is measured on, proved, and the package of each for every server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.served.bodies import Body, bodies
from benchmarks.served.running import PEERS, Server, served
from export import package, publish
from runtime import Certificate, read_certificate
from tests.support.cases import relu_network
from tests.support.servers.install import ENVIRONMENTS, READY


@dataclass(frozen=True)
class Made:
    """Where everything is."""

    files: dict[str, Path] = field(default_factory=dict)
    """The proved file of each model, in a folder of its own."""
    packages: dict[tuple[str, str], Path] = field(default_factory=dict)
    """By server and model."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a server is not measured."""

    def served(self, name: str, model: str, log: Path) -> AbstractContextManager[Server]:
        """A server with a model. Raises LookupError where it is not here, and what ``served`` raises."""
        if name in self.missing:
            raise LookupError(self.missing[name])
        if name not in PEERS:
            return served(name, self.files[model].parent, model, log)
        return served(name, self.packages[name, model], model, log)

    def bodies(self, model: str, batch: int) -> list[Body]:
        """The requests for a model."""
        return _bodies(self.files[model], batch)


@cache
def _bodies(file: Path, batch: int) -> list[Body]:
    return bodies(certificate(file), file.stem, batch)


def certificate(file: Path) -> Certificate:
    """The one beside a file."""
    return read_certificate(file.with_name(f"{file.stem}.parity.json"))


def made(pairs: Sequence[tuple[str, str]], folder: Path, tell: Callable[[str], None]) -> Made:
    """Write and prove the models, and package them, for these pairs of server and model."""
    subjects = Made()
    for model in dict.fromkeys(model for _, model in pairs):
        tell(f"{model}: written and proved")
        spec, module = relu_network(model)
        path = folder / "models" / model / f"{model}.onnx"
        publish(module, path, spec=spec, device="cpu", page=False)
        subjects.files[model] = path
    for name, model in pairs:
        if (peer := PEERS.get(name)) is None:
            continue
        environment = ENVIRONMENTS / peer.environment
        if not (environment / READY).is_file():
            reason = environment.with_name(f"{peer.environment}.reason")
            hint = f"{environment} is missing. What to do: make servers"
            subjects.missing[name] = reason.read_text(encoding="utf-8").strip() if reason.is_file() else hint
            continue
        place = folder / "packages" / peer.target / model
        package(subjects.files[model], peer.target, place, backend=peer.backend, threads=1)
        subjects.packages[name, model] = place
    return subjects
