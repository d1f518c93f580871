from types import ModuleType
from typing import Any

class ModelInfo:
    model_id: str
    model_uri: str
    registered_model_version: int | None

class Model:
    flavors: dict[str, dict[str, Any]]
    model_size_bytes: int | None
    def __init__(self) -> None: ...
    def add_flavor(self, name: str, **params: Any) -> Model: ...
    def save(self, path: str) -> None: ...
    @classmethod
    def load(cls, path: str) -> Model: ...
    @classmethod
    def log(
        cls, artifact_path: str | None, flavor: ModuleType, *, name: str, model_id: str, run_id: str, **kwargs: Any
    ) -> ModelInfo: ...
