from ..types import Schema
from .model import Model as Model

class ModelSignature:
    def __init__(self, inputs: Schema | None = None, outputs: Schema | None = None) -> None: ...
