from collections.abc import Sequence

import numpy as np

class TensorSpec:
    def __init__(
        self,
        type: np.dtype,  # noqa: A002
        shape: tuple[int, ...],
        name: str | None = None,
    ) -> None: ...

class ColSpec:
    def __init__(
        self,
        type: str,  # noqa: A002
        name: str | None = None,
    ) -> None: ...

class Schema:
    def __init__(self, inputs: Sequence[TensorSpec | ColSpec]) -> None: ...
