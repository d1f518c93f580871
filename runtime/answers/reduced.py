"""About how far answers would be off in a reduced precision: those of the file with its weights rounded to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from runtime.device.linear_layers import Graph
from runtime.device.precisions import PRECISIONS
from runtime.errors import ModelError
from runtime.model.onnx_messages import FLOAT, parse_model
from runtime.session.session import Session

_TRIED = ("TF32", "bfloat16", "float16")
Arrays = Mapping[str, np.ndarray]


def reduced(path: Path, inputs: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """The outputs, float64 (rows, values), by precision; nothing for a file whose weights are not in it."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for precision in _TRIED:
        model = parse_model(path.read_bytes(), path)
        weights = {name for node in model.graph.node if node.op_type in (b"Gemm", b"MatMul") for name in node.input}
        for tensor in model.graph.initializer:
            if tensor.name in weights and tensor.data_type == FLOAT and tensor.raw_data:
                values = np.frombuffer(tensor.raw_data, "<f4")
                tensor.raw_data = PRECISIONS[precision](values).astype("<f4").tobytes()
        if any(tensor.data_location for tensor in model.graph.initializer) or Graph(model, path.parent).fixed_batch:
            return {}
        try:
            with Session(model.SerializeToString(), "cpu") as session:
                results = session.run(dict(inputs))
        except ModelError:
            return {}
        found[precision] = {name: each.reshape(len(each), -1).astype(np.float64) for name, each in results.items()}
    return found
