from typing import Any

class MetadataTensor:
    def __init__(self, *, name: str, datatype: str, shape: list[int]) -> None: ...

class RequestInput:
    name: str
    datatype: str
    shape: list[int]
    data: Any  # a pydantic model, whose root is the data

class RequestOutput:
    name: str

class InferenceRequest:
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None

class ResponseOutput:
    def __init__(self, *, name: str, datatype: str, shape: list[int], data: Any) -> None: ...

class InferenceResponse:
    def __init__(self, *, model_name: str, model_version: str | None, outputs: list[ResponseOutput]) -> None: ...
