from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

class Versions:
    def find(self, identifier: str, strict: bool = ...) -> tuple[str, ...] | None: ...

def list_versions(branch: str = ..., deploy_prefix: str = ...) -> Versions: ...
def deploy(
    cfg: Mapping[str, Any],
    version: str,
    title: str | None = ...,
    aliases: Sequence[str] = ...,
    update_aliases: bool = ...,
    *,
    branch: str = ...,
    message: str | None = ...,
    allow_empty: bool = ...,
) -> AbstractContextManager[None]: ...
def set_default(identifier: str, *, branch: str = ..., message: str | None = ..., allow_empty: bool = ...) -> None: ...
