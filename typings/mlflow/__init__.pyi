# MLflow 3.17: the names that mlpx/mlflow/ uses.
from collections.abc import Mapping
from types import TracebackType

from . import artifacts as artifacts
from . import models as models
from . import pyfunc as pyfunc
from . import types as types

class RunInfo:
    run_id: str

class RunData:
    params: dict[str, str]

class Run:
    info: RunInfo
    data: RunData

class ActiveRun(Run):
    def __enter__(self) -> ActiveRun: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class LoggedModel:
    model_id: str

class ModelVersion:
    version: str | int

class MlflowClient:
    def __init__(self, tracking_uri: str | None = None) -> None: ...
    def get_run(self, run_id: str) -> Run: ...
    def delete_logged_model(self, model_id: str) -> None: ...

def active_run() -> ActiveRun | None: ...
def get_registry_uri() -> str: ...
def get_tracking_uri() -> str: ...
def initialize_logged_model(
    name: str | None = None,
    source_run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
) -> LoggedModel: ...
def log_metrics(
    metrics: Mapping[str, float], step: int | None = None, *, run_id: str | None = None, model_id: str | None = None
) -> None: ...
def register_model(
    model_uri: str, name: str, await_registration_for: int = ..., *, tags: Mapping[str, str] | None = None
) -> ModelVersion: ...
def start_run(*, run_name: str | None = None) -> ActiveRun: ...
