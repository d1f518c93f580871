"""Packages that an installation may do without, and the install line of each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingPackageError

_EXTRAS = {
    "torch": "build",
    "safetensors": "build",
    "onnxscript": "build",
    "onnx": "inspect",
    "polars": "files",
    "pyarrow": "files",
    "matplotlib": "report",
    "jinja2": "report",
    "ray": "ray",
    "grpc": "serve",
    "httptools": "serve",
    "orjson": "serve",
    "tritonclient": "serve",
    "uvicorn": "serve",
}


def imported(name: str, purpose: str) -> Any:
    """The package ``name``. Raises MissingPackageError, with the line that installs it and what it is needed for."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise missing_package(error, purpose) from None


def missing_package(error: ModuleNotFoundError, purpose: str = "this") -> ImportError:
    """What to tell a user instead of a ``ModuleNotFoundError``: the install line, where the package is one of ours."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return error
    line = f'pip install "mlpx[{_EXTRAS[package]}]"'
    return MissingPackageError(f"{purpose} needs the package {package}, which is not installed. What to do: {line}")
