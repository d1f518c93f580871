"""mlpx: from the building blocks of a PyTorch MLP to an ONNX file that runs anywhere and computes the same.

Every name is at home in its room and imported on first use: ``import mlpx`` loads neither torch nor ONNX Runtime.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runtime.version import VERSION

if TYPE_CHECKING:
    from builder import MLPSpec as MLPSpec
    from builder import assemble as assemble
    from builder import json_schema as json_schema
    from builder import load_spec as load_spec
    from builder import load_weights as load_weights
    from export import Artifact as Artifact
    from export import ParityReport as ParityReport
    from export import export as export
    from export import inspect as inspect
    from export import package as package
    from export import publish as publish
    from export import recover as recover
    from export import tune as tune
    from export import verify as verify
    from runtime import Session as Session

__version__ = VERSION

_HOMES = {
    "MLPSpec": "builder",
    "assemble": "builder",
    "json_schema": "builder",
    "load_spec": "builder",
    "load_weights": "builder",
    "Artifact": "export",
    "ParityReport": "export",
    "export": "export",
    "inspect": "export",
    "package": "export",
    "publish": "export",
    "recover": "export",
    "tune": "export",
    "verify": "export",
    "Session": "runtime",
}

__all__ = sorted(["__version__", *_HOMES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mlpx' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from runtime import missing_package

        raise missing_package(error, f"mlpx.{name}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
