"""Optional packages, and the install line of each."""

from __future__ import annotations

from functools import cache
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
    "opentelemetry": "otel",
    "grpc": "serve",
    "hpack": "serve",
    "httptools": "serve",
    "orjson": "serve",
    "tritonclient": "serve",
    "uvicorn": "serve",
    "cryptography": "sign",
    "mlflow": "mlflow",
    "huggingface_hub": "hub",
}


def imported(name: str, purpose: str) -> Any:
    """The package ``name``. Raises MissingPackageError, with the line that installs it and what it is needed for.

    Examples:
        >>> from runtime import imported
        >>> imported("json", "reading reports").loads("[1]")
        [1]
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise missing_package(error, purpose) from None


@cache  # a session asks for two, and a proof opens dozens of sessions: 1 ms each
def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # 14 ms, which most commands need not spend

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def missing_package(error: ModuleNotFoundError, purpose: str = "this") -> ImportError:
    """The error to raise for a ``ModuleNotFoundError``: with the install line, where an extra has the package.

    Examples:
        >>> from runtime import missing_package
        >>> type(missing_package(ModuleNotFoundError(name="polars"), "reading CSV")).__name__
        'MissingPackageError'
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return error
    line = f'pip install "mlpx[{_EXTRAS[package]}]"'
    return MissingPackageError(f"{purpose} needs the package {package}, which is not installed. What to do: {line}")
