"""mlpx: from the building blocks of a PyTorch MLP to an ONNX file that runs anywhere and computes the same.

Every name is imported from its package on first use: ``import mlpx`` loads neither torch nor ONNX Runtime. The errors
are listed in ``mlpx.errors``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder import MLPSpec, assemble, json_schema, load_spec, load_weights
    from builder.errors import RecoveryError, SpecError, WeightsError
    from export import (
        Artifact,
        BoundReport,
        ParityReport,
        bound,
        compare,
        export,
        inspect,
        package,
        publish,
        pull,
        push,
        recover,
        tune,
        verify,
    )
    from export.errors import ExportError, ProofError, TargetError, UnsupportedError
    from runtime import Contract, Session, contract, sign
    from runtime.errors import (
        ClusterError,
        InputError,
        MissingPackageError,
        ModelError,
        OutputError,
        ProviderError,
        SignatureError,
        UnreachableError,
    )

    __version__: str

__all__ = ["Contract", "Session", "__version__", "contract"]
__all__ += ["MLPSpec", "assemble", "json_schema", "load_spec", "load_weights"]
__all__ += [
    "Artifact",
    "BoundReport",
    "ParityReport",
    "bound",
    "compare",
    "export",
    "inspect",
    "package",
    "publish",
    "pull",
    "push",
    "recover",
    "tune",
    "verify",
]
__all__ += ["RecoveryError", "SpecError", "WeightsError"]
__all__ += ["ExportError", "ProofError", "TargetError", "UnsupportedError"]
__all__ += ["ClusterError", "InputError", "MissingPackageError", "ModelError", "OutputError", "ProviderError"]
__all__ += ["SignatureError", "UnreachableError", "sign"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlpx' has no attribute {name!r}")
    home_name = "VERSION" if name == "__version__" else name
    try:
        home = next(room for room in map(import_module, ("runtime", "builder", "export")) if home_name in room.__all__)
        value = getattr(home, home_name)
    except ModuleNotFoundError as error:
        from runtime import missing_package

        raise missing_package(error, f"mlpx.{name}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
