"""What each extra of mlpx needs, and whether it is there: read from the metadata of the installed distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from runtime.extras import installed_version

DEVELOPMENT = ("dev", "docs")
"""Extras that no command needs."""
_OVERWRITES = {"cpu": "gpu", "gpu": "cpu", "cuda": "cpu"}
"""ONNX Runtime's two distributions are not to be installed beside each other."""


@dataclass(frozen=True)
class Extra:
    """An extra: its packages with their versions, None for one that is not installed."""

    packages: dict[str, str | None]
    missing: tuple[str, ...]
    """What keeps it from being complete, a package each."""
    install: str | None
    """The line that installs it; None where it would overwrite an extra that is installed."""

    @property
    def installed(self) -> bool:
        """Whether everything is there, in a version that is recent enough."""
        return not self.missing


def extras_of(own: Distribution) -> dict[str, Extra]:
    """Every extra of a distribution but those for development, by name, in the order of its metadata."""
    names = [name for name in own.metadata.get_all("Provides-Extra") or [] if name not in DEVELOPMENT]
    lines = own.requires or []
    found: dict[str, Extra] = {}
    for name in names:
        needed = list(_needed(own.name, lines, name, set()))
        packages = {each.name: installed_version(each.name) for each in needed}
        missing = tuple(dict.fromkeys(words for each in needed if (words := _missing(each)) is not None))
        found[name] = Extra(packages, missing, f'pip install "{own.name}[{name}]"')
    for name, other in _OVERWRITES.items():
        if name in found and other in found and found[other].installed:
            found[name] = replace(found[name], install=None)
    return found


def required_by(own: Distribution) -> list[str]:
    """The packages that a distribution itself asks for on this machine, without any extra."""
    base = map(Requirement, own.requires or [])
    return [each.name for each in base if each.marker is None or each.marker.evaluate({"extra": ""})]


def _needed(owner: str, lines: Sequence[str], extra: str, seen: set[tuple[str, str]]) -> Iterator[Requirement]:
    """What an extra asks for on this machine, with what the extras that it names ask for in turn."""
    if (owner, extra) in seen:
        return
    seen.add((owner, extra))
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue  # of the distribution itself, of another extra, or for another system
        is_own = canonicalize_name(requirement.name) == canonicalize_name(owner)
        if not is_own:
            yield requirement
        for inner in sorted(requirement.extras):
            yield from _needed(requirement.name, lines if is_own else _requires(requirement.name), inner, seen)


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # which is missing itself
        return []


def _missing(requirement: Requirement) -> str | None:
    """What to say of a package that is not there, or too old; None for one that will do."""
    version = installed_version(requirement.name)
    if version is None:
        return requirement.name
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} {version} ({requirement.specifier} is needed)"
