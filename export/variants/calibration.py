"""The ranges that the inputs of a file's layers take on rows of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from runtime import InputError, Session
from runtime.tuning.accuracy import batches

from .layers import Layer


def ranges(path: Path, layers: Sequence[Layer], rows: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The lowest and the highest input of each layer, by the value's name, when the file at ``path`` runs on ``rows``.

    ``rows`` are float32 (batch, *row) by the names of the file's inputs. Raises InputError: no rows, or values that are
    not finite.
    """
    names = list(dict.fromkeys(layer.input for layer in layers))
    if not min(len(values) for values in rows.values()):
        raise InputError("the data has no rows to find ranges on. What to do: give rows like those of the traffic")
    found: dict[str, tuple[float, float]] = {}
    with Session(_showing(path, [name for name in names if name not in rows]), "cpu") as session:
        for chunk, _ in batches(rows, session.inputs[0].shape[0]):
            values = {**chunk, **session.run(chunk)}
            for name in names:
                low, high = float(values[name].min()), float(values[name].max())
                if not np.isfinite([low, high]).all():
                    message = f"the data makes the value '{name}' {low if not np.isfinite(low) else high}"
                    raise InputError(f"{message}, which has no range. What to do: drop rows that are not finite")
                before = found.get(name, (low, high))
                found[name] = min(before[0], low), max(before[1], high)
    return found


def _showing(path: Path, names: Sequence[str]) -> bytes:
    """The file with these values as outputs."""
    model = onnx.load(str(path))
    present = {output.name for output in model.graph.output}
    float32 = onnx.TensorProto.FLOAT
    shown = [onnx.helper.make_tensor_value_info(name, float32, None) for name in names if name not in present]
    model.graph.output.extend(shown)
    return model.SerializeToString()
