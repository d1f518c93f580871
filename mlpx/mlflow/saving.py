"""Writing a model as MLflow keeps it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import InputError, OutputError, imported, whole_folder
from runtime.version import VERSION

from .contents import FLAVOR_NAME, PURPOSE, Contents, proved_contents
from .signature import example_of, signature_of, takes_columns

if TYPE_CHECKING:
    from mlflow.models import Model

    from export import Artifact, ParityReport

_DEVICE = re.compile(r"(auto|cpu|cuda)(:\d{1,4})?")
_MODULE = "mlpx.mlflow"
"""Where MLflow finds ``_load_pyfunc``."""


def save_model(
    model: str | Path | Artifact,
    path: str | Path,
    *,
    report: str | Path | ParityReport | None = None,
    device: str = "cpu",
    columns: bool | None = None,
    pip_requirements: Sequence[str] | None = None,
    extra_pip_requirements: Sequence[str] | None = None,
    metadata: dict[str, Any] | None = None,
    mlflow_model: Model | None = None,
) -> None:
    """Write a proved file to ``path`` as an MLflow model, a folder that appears whole or not at all.

    It holds the file with its external data, the certificate, its signature and page where they are beside it, the
    signature and an input example. It needs ``mlpx[cpu]`` and MLflow to run, neither torch nor onnx.

    Args:
        model: the ONNX file, or the artifact that ``publish`` gave.
        path: the folder, which is new or empty.
        report: the file's report, or the path of its certificate; by default ``NAME.parity.json`` beside the file.
        device: where MLflow runs it: "cpu", "cuda", "cuda:N" or "auto", as ``Session`` has them. One that is not there
            when the model is loaded is an error.
        columns: whether it takes tables with a column for each feature instead of tensors; by default where it has
            categories, whose words a table can hold.
        pip_requirements: what runs it, in place of ``mlpx[cpu]`` (or ``mlpx[cuda]``) of this version.
        extra_pip_requirements: what its environment needs besides.
        metadata: further facts for the MLmodel file.
        mlflow_model: the model to which the flavour is added; MLflow gives it.

    Raises ProofError: the file is not proved, or the certificate is of another one; OutputError: the folder holds
    something, or cannot be written; MissingPackageError: MLflow is not installed; ModelError; InputError.

    Examples:
        >>> import mlpx.mlflow
        >>> mlpx.mlflow.save_model("comfort.onnx", "comfort-model")
        >>> with mlpx.mlflow.load_model("comfort-model") as session:
        ...     session.inputs[0].shape
        ('batch', 2)
    """
    imported("mlflow", PURPOSE)
    with tempfile.TemporaryDirectory() as folder:
        contents = proved_contents(model, report, Path(folder))
        write_model(
            *(contents, Path(path)),
            device=device,
            columns=columns,
            pip_requirements=pip_requirements,
            extra_pip_requirements=extra_pip_requirements,
            metadata=metadata,
            mlflow_model=mlflow_model,
        )


def write_model(
    contents: Contents,
    path: Path,
    *,
    device: str = "cpu",
    columns: bool | None = None,
    pip_requirements: Sequence[str] | None = None,
    extra_pip_requirements: Sequence[str] | None = None,
    metadata: dict[str, Any] | None = None,
    mlflow_model: Model | None = None,
) -> None:
    """``save_model`` of contents that are known to be proved."""
    import mlflow.pyfunc
    from mlflow.models import Model

    if _DEVICE.fullmatch(device) is None:
        raise InputError(f"the device is auto, cpu, cuda or cuda:N, not {device!r}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists and is not empty. What to do: choose a new folder for the model")
    summary = contents.summary
    as_table = takes_columns(summary, columns)
    written = Model() if mlflow_model is None else mlflow_model
    written.add_flavor(FLAVOR_NAME, **contents.flavor(), columns=as_table)
    with whole_folder(path) as stage:
        mlflow.pyfunc.save_model(
            path=str(stage),
            loader_module=_MODULE,
            mlflow_model=written,
            signature=signature_of(summary, columns=as_table),
            input_example=example_of(summary, contents.certificate.answers, columns=as_table),
            pip_requirements=[*(pip_requirements or [_requirement(device)]), *(extra_pip_requirements or ())],
            metadata=metadata,
            model_config={"device": device},
        )
        contents.copy_to(stage)
        written.model_size_bytes = sum(file.stat().st_size for file in stage.rglob("*") if file.is_file())
        written.save(str(stage / "MLmodel"))


def _requirement(device: str) -> str:
    """What pip installs for a device: mlpx of this version with its ONNX Runtime."""
    return f"mlpx[{'cuda' if device.startswith('cuda') else 'cpu'}]=={VERSION}"
