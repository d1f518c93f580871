"""What a report of a defect needs to say of an installation: ``mlpx --version``."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from runtime.extras import installed_version
from runtime.session.providers import DISTRIBUTIONS
from runtime.version import VERSION


@dataclass(frozen=True)
class Versions:
    """Versions of what computes; None for what is not installed."""

    mlpx: str
    python: str
    platform: str
    numpy: str | None
    onnxruntime: dict[str, str]
    """The version of each installed distribution of ONNX Runtime; more than one overwrite each other."""
    providers: tuple[str, ...]
    """The execution providers that this ONNX Runtime was built with; ``mlpx doctor`` says which of them load."""
    torch: str | None
    """As its metadata say: it is not imported."""
    problem: str | None = None
    """Why ONNX Runtime cannot be imported, where it is installed."""


def versions() -> Versions:
    """Look what is installed. Imports ONNX Runtime, and neither numpy's users nor torch."""
    distributions = {name: version for name in DISTRIBUTIONS if (version := installed_version(name)) is not None}
    providers: tuple[str, ...] = ()
    problem = None
    try:
        import onnxruntime

        providers = tuple(onnxruntime.get_available_providers())
    except Exception as error:  # a broken installation raises anything
        problem = f"{type(error).__name__}: {error}" if distributions else None
    return Versions(
        mlpx=VERSION,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        platform=platform.platform(),
        numpy=installed_version("numpy"),
        onnxruntime=distributions,
        providers=providers,
        torch=installed_version("torch"),
        problem=problem,
    )
