"""What a device without torch and onnx finds: run as a module, with a file and its certificate.

Prints a JSON object: by the fault of its matrix product, the kinds of the findings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from runtime import Session, check_device
from runtime.device.linear_layers import Graph
from runtime.device.precisions import PRECISIONS
from runtime.model.onnx_messages import parse_model

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Layers:
    """ONNX Runtime, but for layers that are run alone: their products are numpy's, with a fault."""

    device = "cpu"
    multiply_adds = 0

    def __init__(self, source: Path | bytes, product: Product):
        self._session, self._product = Session(source, "cpu"), product
        self._layers = (
            list(Graph(parse_model(source, "alone"), Path()).linear_layers()) if isinstance(source, bytes) else []
        )

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self._layers:
            return self._session.run(dict(x))
        (layer,) = self._layers
        return {"y": np.float32(layer.alpha) * self._product(x["x"], layer.weight) + layer.bias_row(layer.bias)}

    def __enter__(self) -> Layers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()


def one_of_200(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every 200th product of two numbers is rounded to bfloat16."""
    products = np.ascontiguousarray(a[:, :, None] * b)
    flat = products.reshape(-1)
    flat[::200] = PRECISIONS["bfloat16"](flat[::200])
    return products.sum(axis=1)


def tf32(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return PRECISIONS["TF32"](a) @ PRECISIONS["TF32"](b)


FAULTS: dict[str, Product] = {"none": np.matmul, "one product of 200": one_of_200, "TF32": tf32}


if __name__ == "__main__":
    found: dict[str, list[str]] = {}
    for fault, product in FAULTS.items():
        report = check_device(sys.argv[1], sys.argv[2], opener=lambda source, p=product: Layers(source, p))
        found[fault] = sorted({finding.kind for finding in report.findings})
    print(json.dumps(found))
