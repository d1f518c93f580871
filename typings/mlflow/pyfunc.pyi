from typing import Any

from .models import Model, ModelSignature

def save_model(
    path: str,
    loader_module: str | None = None,
    *,
    mlflow_model: Model | None = None,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    pip_requirements: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    model_config: dict[str, Any] | None = None,
) -> None: ...
