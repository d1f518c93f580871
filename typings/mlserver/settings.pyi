from typing import Any

class ModelParameters:
    extra: dict[str, Any] | None

class ModelSettings:
    parameters: ModelParameters | None
