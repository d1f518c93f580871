"""What reduced precisions make of float32 numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _nearest(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """To so many bits after the leading one, ties to even."""
    dropped = 23 - bits

    def rounded(values: np.ndarray) -> np.ndarray:
        stored = np.ascontiguousarray(values, np.float32).view(np.uint32)
        half = np.uint32((1 << (dropped - 1)) - 1)
        odd = (stored >> np.uint32(dropped)) & np.uint32(1)
        return ((stored + half + odd) & np.uint32(-1 << dropped & 0xFFFFFFFF)).view(np.float32)

    return rounded


def _truncated(values: np.ndarray) -> np.ndarray:
    stored = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return (stored & np.uint32(0xFFFFE000)).view(np.float32)


def _half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


PRECISIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "TF32": _nearest(10),
    "TF32, truncated": _truncated,
    "bfloat16": _nearest(7),
    "float16": _half,
}
"""float32 to float32, by the names in a certificate's answers. NaN is not kept by those that work on the bits."""
HINTS = {
    "TF32": "switch it off (CUDA provider: use_tf32=0, which mlpx sets; or NVIDIA_TF32_OVERRIDE=0)",
    "bfloat16": "switch fast math off where this ONNX Runtime has it (Arm: mlas.enable_gemm_fastmath_arm64_bfloat16)",
    "float16": "run the file on a provider that does not convert it",
}
"""What to do about a precision, by its name before a comma."""
