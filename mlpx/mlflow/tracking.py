"""Logging a model to a tracking server, and registering it."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import imported

from . import saving
from .contents import PURPOSE, Contents, proved_contents
from .facts import metrics_of, tags_of
from .reaching import require_server

if TYPE_CHECKING:
    from mlflow.models.model import Model, ModelInfo

    from export import Artifact, ParityReport

_NOT_IN_NAMES = re.compile("[/:.%\"']")
"""What the name of a model may not hold."""
_STEP = -1
"""Of the metrics: MLflow gives those of a run's step 0 to every model that is logged to it later, proved or not."""


def log_model(
    model: str | Path | Artifact,
    report: str | Path | ParityReport | None = None,
    *,
    name: str | None = None,
    registered_model_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    await_registration_for: int = 300,
    **options: Any,
) -> ModelInfo:
    """Log a proved file to the active run, with its certificate, and register it where that is asked for.

    The verdict and the bounds become metrics of the run and of the model (see ``mlpx.mlflow.facts``), and tags of the
    model and of its registered version. Without an active run one is made, and ended. A version is registered once all
    files are there; where an upload fails, the model is deleted again.

    Args:
        model: the ONNX file, or the artifact that ``publish`` gave.
        report: the file's report, or the path of its certificate; by default ``NAME.parity.json`` beside the file.
        name: the model's; by default the file's without .onnx.
        registered_model_name: the name in the registry, where a new version of it is made.
        tags: further tags of the model and its version.
        params: parameters of the model; those of the run are its parameters too.
        await_registration_for: seconds that a registry may take.
        options: ``device``, ``columns``, ``pip_requirements``, ``extra_pip_requirements`` and ``metadata``, as
            ``save_model`` takes them.

    Returns: MLflow's ``ModelInfo``: ``model_uri``, ``model_id``, ``registered_model_version`` and so on.
    Raises what ``save_model`` raises; UnreachableError: the tracking server or the registry does not answer; and what
    MLflow raises.

    Examples:
        >>> import mlflow
        >>> import mlpx.mlflow
        >>> with mlflow.start_run():
        ...     logged = mlpx.mlflow.log_model("comfort.onnx", registered_model_name="comfort")
        >>> logged.registered_model_version
        1
    """
    imported("mlflow", PURPOSE)
    import mlflow
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder:
        contents = proved_contents(model, report, Path(folder))
        saving.write_model(contents, Path(folder) / "model", **options)  # what cannot be written is not begun
        tracking = mlflow.get_tracking_uri()
        require_server(tracking, "tracking server", "nothing was logged")
        if registered_model_name is not None:
            require_server(mlflow.get_registry_uri(), "registry", "nothing was logged")
        name = _NOT_IN_NAMES.sub("_", Path(contents.certificate.file).stem) if name is None else name
        tags = tags_of(contents.certificate) | dict(tags or {})
        active = mlflow.active_run()
        begun: list[str] = []
        with (
            _removed_on_failure(begun, tracking),
            mlflow.start_run(run_name=name) if active is None else nullcontext(active) as run,
        ):
            run_id = run.info.run_id
            made = mlflow.initialize_logged_model(
                name=name, source_run_id=run_id, tags=tags, params=_params(run_id, params)
            )
            begun.append(made.model_id)
            info = Model.log(
                artifact_path=None,
                name=name,
                flavor=sys.modules[__name__],
                model_id=made.model_id,
                run_id=run_id,
                contents=contents,
                **options,
            )
            metrics = metrics_of(contents.certificate)
            mlflow.log_metrics(metrics, step=_STEP, run_id=run_id, model_id=made.model_id)
    if registered_model_name is not None:
        info.registered_model_version = _register(info, registered_model_name, tags, await_registration_for)
    return info


def save_model(path: str, mlflow_model: Model, contents: Contents, **options: Any) -> None:
    """What MLflow calls of this module, as of any flavour, while it logs."""
    saving.write_model(contents, Path(path), mlflow_model=mlflow_model, **options)


def _params(run_id: str, params: Mapping[str, Any] | None) -> dict[str, str]:
    """The model's own, and those of its run so far."""
    import mlflow

    of_run = mlflow.MlflowClient().get_run(run_id).data.params
    return {key: str(value) for key, value in {**of_run, **(params or {})}.items()}


def _register(info: ModelInfo, name: str, tags: dict[str, str], patience: int) -> int:
    """The new version. Raises UnreachableError, and what MLflow raises with a note that the model is there."""
    import mlflow

    hint = f"mlflow.register_model('models:/{info.model_id}', '{name}')"
    done = f"the model is logged as models:/{info.model_id}, and is not registered. What to do: {hint}"
    try:
        version = mlflow.register_model(
            f"models:/{info.model_id}", name, await_registration_for=patience, tags=tags
        ).version
    except Exception as error:  # MLflow's own, raised again with a note
        error.add_note(f"mlpx: {done}")
        require_server(mlflow.get_registry_uri(), "registry", done, error)
        raise
    return int(version)


@contextmanager
def _removed_on_failure(begun: list[str], tracking: str) -> Generator[None]:
    """Where the block fails, the model that it has begun is deleted, so that no part of it stays under its name.

    It is around the run too: to end a run on a server that is down raises an error of its own.
    """
    import mlflow

    try:
        yield
    except BaseException as error:
        state = "".join(f"models:/{each} is not whole, and stays there until it is deleted" for each in begun)
        hint = "What to do: log the file again once it answers"
        require_server(tracking, "tracking server", f"{state or 'nothing was logged'}. {hint}", error)
        for each in begun:
            try:
                mlflow.MlflowClient(tracking).delete_logged_model(each)
            except Exception as refused:  # it must not hide why the block failed
                hint = f"What to do: mlflow.MlflowClient().delete_logged_model('{each}')"
                error.add_note(f"mlpx: {state}: the server refused that ({refused}). {hint}")
        raise
