"""Every file computes what eager PyTorch computes in evaluation mode, on every provider of this machine.

The tolerance is the layer-wise bound of ``tests/support/bounds.py``: each layer, given the input it really had,
is within it; and the file's and eager PyTorch's outputs are within the bound of the whole network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from builder import MLPSpec, assemble, load_spec, load_weights
from export import export
from runtime import Session, read_rows
from tests.support.bounds import bounded, exact, within
from tests.support.cases import BLOCKS, EXTREMES, network, normal, randomised, specs
from tests.support.hand_written import HAND_WRITTEN
from tests.support.repeats import examples

BATCHES = [0, 1, 2, 7, 1000]
MODELS = ["digits", "breast_cancer", "diabetes"]
GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def with_layers(path: Path) -> tuple[bytes, dict[str, str]]:
    """The file with the value of every layer as an output, and the module path of each."""
    model = onnx.load(str(path))
    last = {output.name for output in model.graph.output}
    values = [name for node in model.graph.node for name in node.output if "/" not in name and name not in last]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in values)
    return model.SerializeToString(), {name: name.removesuffix(".output") for name in values}


def check_layers(module: nn.Sequential, path: Path, rows: np.ndarray, device: str) -> None:
    """Every layer on its own input, and the whole: the file against float64, and eager PyTorch against float64."""
    content, paths = with_layers(path)
    with Session(path, device) as shipped, Session(content, device) as open_one:
        found = shipped.predict(rows)
        layers = open_one.run(rows)
    seen = {paths[name]: value for name, value in layers.items() if name in paths}
    start = rows.astype(np.float64), np.zeros(rows.shape)
    y, radius = bounded(module, *start, seen)
    within(layers[shipped.outputs[0].name], y, radius, "the last layer")
    whole = bounded(module, *start, {})
    within(found, *whole, "the file")
    with torch.inference_mode():
        within(module(torch.from_numpy(rows)).numpy(), *whole, "eager PyTorch")


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block(name: str, device: str, tmp_path: Path) -> None:
    spec, module = network([{"linear": 9}, BLOCKS[name], {"linear": 3}])
    export(module, tmp_path / "model.onnx", spec=spec)
    for rows in BATCHES:
        check_layers(module, tmp_path / "model.onnx", normal(rows, 7) * 3, device)


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in ("dropout", "identity", "flatten")])
def test_every_block_alone(name: str, device: str, tmp_path: Path) -> None:
    spec, module = network([BLOCKS[name]])
    export(module, tmp_path / "model.onnx", spec=spec)
    for rows in BATCHES:
        check_layers(module, tmp_path / "model.onnx", normal(rows, 7) * 30, device)


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in ("dropout", "identity", "flatten")])
def test_extremes(name: str, device: str, tmp_path: Path) -> None:
    """NaN and infinities come out where PyTorch has them; what is finite is within the bound.

    PyTorch in float32 or float64: its vector kernels give NaN for gelu(inf) and where layer_norm's squares overflow, as
    CUDA's do.
    """
    spec, module = network([BLOCKS[name]])
    export(module, tmp_path / "model.onnx", spec=spec)
    rows = np.repeat(EXTREMES[:, None], 7, axis=1)
    with Session(tmp_path / "model.onnx", device) as session, torch.inference_mode():
        found, eager = session.predict(rows), module(torch.from_numpy(rows)).numpy()
    finite = np.isfinite(rows).all(axis=1)
    double = exact(module, rows.astype(np.float64)).astype(np.float32)
    for mask in (np.isnan, np.isinf):
        assert ((mask(found) == mask(eager)) | (mask(found) == mask(double))).all(), mask.__name__
    finite &= np.isfinite(found).all(axis=1) | np.isfinite(eager).all(axis=1)
    assert np.isfinite(found[finite]).all()
    y, radius = bounded(module, rows[finite].astype(np.float64), np.zeros(rows[finite].shape), {})
    within(found[finite], y, radius, name)


@pytest.mark.parametrize("model", MODELS)
def test_every_model(model: str, device: str, tmp_path: Path, root: Path) -> None:
    folder = root / "models" / model
    spec = load_spec(folder / "spec.yaml")
    module = assemble(spec)
    load_weights(module, folder / "weights.safetensors")
    artifact = export(module, tmp_path / "model.onnx", spec=spec)
    rows, _ = read_rows(folder / "heldout.parquet", artifact.summary.inputs[0])
    module.eval()
    for batch in BATCHES:
        check_layers(module, artifact.path, np.resize(rows, (batch, rows.shape[1])), device)


@settings(GENERATED, max_examples=examples(40, of=120))
@given(spec=specs(), rows=st.sampled_from(BATCHES), seed=st.integers(0, 2**16))
def test_generated_networks(spec: MLPSpec, rows: int, seed: int, device: str, tmp_path: Path) -> None:
    module = randomised(assemble(spec, seed=seed), seed)
    export(module, tmp_path / "model.onnx", spec=spec)
    check_layers(module, tmp_path / "model.onnx", normal(rows, spec.input.row_shape[0], seed), device)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_modules(name: str, device: str, tmp_path: Path) -> None:
    """A module with its own forward, against the bound of a plain sequence of the same layers."""
    torch.manual_seed(0)
    module, twin = HAND_WRITTEN[name]()
    export(module, tmp_path / "model.onnx")
    with Session(tmp_path / "model.onnx", device) as session, torch.inference_mode():
        for rows in BATCHES:
            x = normal(rows, 6)
            y, radius = bounded(twin.eval(), x.astype(np.float64), np.zeros(x.shape), {})
            within(session.predict(x), y, radius, "the file")
            within(module.eval()(torch.from_numpy(x)).numpy(), y, radius, "eager PyTorch")


@settings(GENERATED, max_examples=examples(15, of=40))
@given(
    widths=st.lists(st.integers(1, 64), min_size=3, max_size=6),
    seed=st.integers(0, 2**16),
    rows=st.sampled_from(BATCHES),
)
def test_folded_affine_maps(widths: list[int], seed: int, rows: int, device: str, tmp_path: Path) -> None:
    """A chain of affine blocks as one: γ_{n+4}(|A||x| + |c|) around the exact composition, which is rounded once."""
    blocks = ["standardize", *({"linear": width} for width in widths[1:]), "batch_norm", {"dropout": 0.5}, "scale"]
    spec, module = network(blocks, features=widths[0], seed=seed)
    artifact = export(module, tmp_path / "model.onnx", spec=spec, fold_affine=True)
    assert [block.op for block in artifact.summary.blocks] == ["linear"]
    x = normal(rows, widths[0], seed)
    double = module.double()
    with torch.inference_mode():
        shift = double(torch.zeros(1, widths[0], dtype=torch.float64)).numpy()
        matrix = double(torch.eye(widths[0], dtype=torch.float64)).numpy() - shift
        y = double(torch.from_numpy(x.astype(np.float64))).numpy()
    k = widths[0] + 4
    radius = (k * 2.0**-24 / (1 - k * 2.0**-24)) * (np.abs(x) @ np.abs(matrix) + np.abs(shift))
    # The float64 products themselves: each stage adds at most its width in 2^-53 of the product of the absolute values.
    slack = 2.0**-53 * sum(widths) * 64 * (1 + np.abs(x).sum(axis=1, keepdims=True)) * np.abs(matrix).max()
    with Session(artifact.path, device) as session:
        within(session.predict(x), y, radius * (1 + 2.0**-20) + slack + 2.0**-126, "the folded file")
