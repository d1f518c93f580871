"""Runtimes with faults that no file can hold: ONNX's reference evaluator, with a product of matrices of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from runtime.device.running import Opener

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(rows, in) and (in, out) to (rows, out), float32."""


class Evaluated:
    """A file run by ONNX's reference evaluator: ``product`` computes every Gemm and MatMul."""

    device = "cpu"
    multiply_adds = 0

    def __init__(self, source: Path | bytes, product: Product):
        class Gemm(OpRun):
            def _run(self, a: Any, b: Any, c: Any = None, alpha: float = 1, beta: float = 1, **flags: int) -> Any:
                b = b.T if flags.get("transB") else b
                y = np.float32(alpha) * product(a, b)
                return (y if c is None else y + np.float32(beta) * c,)

        class MatMul(OpRun):
            def _run(self, a: Any, b: Any) -> Any:
                return (product(a, b),)

        self._evaluator = ReferenceEvaluator(
            str(source) if isinstance(source, Path) else onnx.load_from_string(source), new_ops=[Gemm, MatMul]
        )

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self._evaluator.run(None, dict(x))
        return dict(zip(self._evaluator.output_names, outputs, strict=True))  # type: ignore[arg-type]

    def __enter__(self) -> Evaluated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def with_product(product: Product) -> Opener:
    """A runtime whose products of matrices are these."""
    return lambda source: Evaluated(source, product)
