"""NVIDIA's HTTP client, in an environment that has it: it brings packages that mlpx's own does without.

Run as a script, it asks a model for several parts of the rows at once, each from a thread of its own:
``python rest_client.py ADDRESS MODEL INPUTS.npz OUTPUTS.npz binary|json START:STOP ...``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


def rest(
    python: Path, address: str, model: str, inputs: Arrays, parts: Sequence[slice], folder: Path, *, binary: bool = True
) -> list[dict[str, np.ndarray]]:
    """The outputs for each of the parts of the rows, asked for by tritonclient.http in another Python, all at once.

    Raises AssertionError with what the client said.
    """
    inputs_file, outputs_file = folder / "inputs.npz", folder / "outputs.npz"
    np.savez(inputs_file, allow_pickle=False, **inputs)
    command = [python, __file__, address, model, inputs_file, outputs_file, "binary" if binary else "json"]
    spans = [f"{part.start}:{part.stop}" for part in parts]
    done = subprocess.run([*map(str, command), *spans], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(outputs_file) as archive:
        outputs: list[dict[str, np.ndarray]] = [{} for _ in parts]
        for key in archive.files:
            index, name = key.split("/", 1)
            outputs[int(index)][name] = archive[key]
    return outputs


def _main(address: str, model: str, inputs_file: str, outputs_file: str, encoding: str, *spans: str) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput  # pyright: ignore

    with np.load(inputs_file) as archive:
        inputs = dict(archive)
    binary = encoding == "binary"

    def ask(span: str) -> dict[str, np.ndarray]:
        start, stop = map(int, span.split(":"))
        tensors = []
        for name, values in inputs.items():
            part = np.ascontiguousarray(values[start:stop])
            tensors.append(InferInput(name, list(part.shape), "FP32" if part.dtype == np.float32 else "INT64"))
            tensors[-1].set_data_from_numpy(part, binary_data=binary)
        with InferenceServerClient(address) as client:
            names = [output["name"] for output in client.get_model_metadata(model)["outputs"]]
            requested = [InferRequestedOutput(name, binary_data=binary) for name in names]
            kind = None if binary else {"Content-Type": "application/json"}  # KServe takes it for bytes without
            result: Any = client.infer(model, tensors, outputs=requested, headers=kind)
        return {name: result.as_numpy(name) for name in names}

    with ThreadPoolExecutor(len(spans)) as pool:
        answers = list(pool.map(ask, spans))
    held: dict[str, Any] = {f"{i}/{name}": v for i, outputs in enumerate(answers) for name, v in outputs.items()}
    np.savez(outputs_file, **held)


if __name__ == "__main__":
    _main(*sys.argv[1:])
