from collections.abc import Mapping

class Response:
    def __init__(
        self,
        content: str | bytes | None = ...,
        status_code: int = ...,
        headers: Mapping[str, str] | None = ...,
        media_type: str | None = ...,
    ) -> None: ...

class JSONResponse(Response):
    def __init__(self, content: object, status_code: int = ...) -> None: ...
