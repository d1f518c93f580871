"""Networks and their right files, as several exporters write them: each drawn from a seed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx import ModelProto
from torch import Tensor, nn

from benchmarks.modules import FAMILIES, of_family
from builder import MLPSpec, assemble
from export import ExportError, export, load_module, read_onnx
from runtime import Port
from tests.support.by_torch import by_torch
from tests.support.cases import randomised, specs
from tests.support.generated import sources
from tests.support.onnx_drafts import Draft
from tests.support.spellings import SPELLINGS, W

T = TypeVar("T")
Rng = np.random.Generator
OPSETS = (9, 11, 13, 15, 17, 18, 20, 21)
_DRAWS = 3
"""The first that hypothesis draws is always the simplest."""


@dataclass(frozen=True)
class Subject:
    """A module, the inputs of its forward in order, and the right file."""

    words: str
    module: nn.Module
    inputs: tuple[Port, ...]
    proto: ModelProto
    example: tuple[Tensor, ...] | None = None
    """What ``verify`` is given with the file, if anything."""
    code: str | None = None
    """Python source whose ``Net()`` is the module with seed 0, for the command."""

    @property
    def own_example(self) -> tuple[Tensor, ...]:
        """Two rows of its inputs: a module may take others, of which ``verify`` speaks if a file declares them."""
        kinds = {"float32": torch.float32, "int64": torch.int64}
        return tuple(torch.zeros(2, *map(int, port.shape[1:]), dtype=kinds[port.dtype]) for port in self.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the right file's outputs, in the order in which the module returns them."""
        return tuple(value.name for value in self.proto.graph.output)


def drawn(strategy: st.SearchStrategy[T], number: int) -> T:
    """What a seed draws from a strategy, outside a test."""
    found: list[T] = []

    @seed(number)
    @settings(
        max_examples=_DRAWS,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=cast("Any", list(HealthCheck)),
    )
    @given(strategy)
    def keep(value: T) -> None:
        found.append(value)

    keep()
    return found[-1]


def _whole(rng: Rng, end: int = 2**31) -> int:
    return int(rng.integers(end))


def _exported(module: nn.Module, rng: Rng, folder: Path, **options: Any) -> tuple[str, ModelProto, tuple[Port, ...]]:
    """Our own file, at an opset that has what the module needs, folded or not."""
    path, fold = folder / "net.onnx", bool(rng.random() < 0.4)
    opset = OPSETS[rng.integers(len(OPSETS))]
    try:
        artifact = export(module, path, opset=opset, fold_affine=fold, **options)
    except ExportError:
        opset = 17
        artifact = export(module, path, opset=opset, fold_affine=fold, **options)
    assert artifact.summary is not None
    return f"opset {opset}{', folded' if fold else ''}", onnx.load(str(path)), tuple(artifact.summary.inputs)


def _network(number: int) -> tuple[MLPSpec, nn.Sequential]:
    spec = drawn(specs(deepest=6, widest=9), number)
    return spec, randomised(assemble(spec, seed=number), number)


def _code_of(spec: MLPSpec, number: int) -> str:
    head = "from builder import MLPSpec, assemble\nfrom tests.support.cases import randomised\n"
    made = f"randomised(assemble(MLPSpec.model_validate_json(TEXT), seed={number}), {number})"
    return f"{head}TEXT = {spec.model_dump_json()!r}\n\n\ndef Net():\n    return {made}\n"


def _blocks(rng: Rng, folder: Path) -> Subject:
    number = _whole(rng)
    spec, module = _network(number)
    words, proto, inputs = _exported(module, rng, folder, input_shape=spec.input.row_shape)
    return Subject(f"blocks, {words}", module, inputs, proto, code=_code_of(spec, number))


def _written(rng: Rng, folder: Path) -> Subject:
    code, shapes = drawn(sources(), _whole(rng))
    (folder / "net.py").write_text(code)
    module = load_module(f"{folder / 'net.py'}:Net", seed=0).eval()
    shape = shapes if len(shapes) > 1 else next(iter(shapes.values()))
    words, proto, inputs = _exported(module, rng, folder, input_shape=shape)
    return Subject(f"written, {words}", module, inputs, proto, code=code)


def _family(rng: Rng, folder: Path) -> Subject:
    family = list(FAMILIES)[rng.integers(len(FAMILIES))]
    module, example = of_family(family, _whole(rng))
    words, proto, inputs = _exported(module, rng, folder, example=example)
    return Subject(f"{family}, {words}", module, inputs, proto, example)


def _exists(name: str, opset: int) -> bool:
    """Opset 7 has no Erf and Where, and no Min and Max that broadcast."""
    draft = Draft(opset)
    SPELLINGS[name][1](draft, "x")
    return opset > 7 or not any(node.op_type in ("Erf", "Where", "Min", "Max") for node in draft.nodes)


def _spelt(rng: Rng, folder: Path) -> Subject:
    """A chain of operators as other exporters spell the blocks; the module is what they are read as."""
    opset = (7, 9, 11, 13, 18, 21)[rng.integers(6)]
    names = [name for name in SPELLINGS if _exists(name, opset)]
    draft, value = Draft(opset), "x"
    chain = [names[i] for i in rng.integers(len(names), size=int(rng.integers(1, 5)))]
    for name in chain:
        value = SPELLINGS[name][1](draft, value)
        if SPELLINGS[name][0] in ("linear", "linear scale"):
            value = draft("MatMul", value, W.T[:4])
    path = draft.save(folder / "draft.onnx", value)
    recovered = read_onnx(path)
    module = assemble(recovered.spec).eval()
    module.load_state_dict(recovered.weights)
    return Subject(f"spelt, opset {opset}", module, (Port("x", ("batch", 6)),), onnx.load(str(path)))


def _by_legacy_torch(rng: Rng, _folder: Path) -> Subject:
    """What ``torch.onnx.export(dynamo=False)`` makes of building blocks."""
    spec, module = _network(_whole(rng))
    opset = (11, 13, 15, 17)[rng.integers(4)]
    rows, written = torch.zeros(2, *spec.input.row_shape), io.BytesIO()
    batch = {"x": {0: "batch"}, "y": {0: "batch"}}
    options: dict[str, Any] = {"opset_version": opset, "dynamic_axes": batch, "dynamo": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (rows,), cast("Any", written), input_names=["x"], output_names=["y"], **options)
    proto = onnx.load_from_string(written.getvalue())
    return Subject(f"torch, opset {opset}", module, (Port("x", ("batch", *spec.input.row_shape)),), proto)


def _by_torch(rng: Rng, folder: Path) -> Subject:
    """What ``torch.onnx.export(dynamo=True)`` makes of one of a few modules, each of which takes it seconds, once."""
    number = int(rng.integers(len(_DYNAMO)))
    spec = MLPSpec(name="torch", input={"features": 5}, blocks=_DYNAMO[number])
    module = randomised(assemble(spec, seed=number), number)
    kept = folder.parent / f"torch-{number}.onnx"
    if not kept.exists():
        made = folder / "torch.onnx"
        made.write_bytes(by_torch(module, free_batch=True).SerializeToString())
        made.replace(kept)
    proto = onnx.load(str(kept))
    return Subject("torch, dynamo", module, (Port(proto.graph.input[0].name, ("batch", 5)),), proto)


_DYNAMO: Sequence[list[Any]] = (
    [{"linear": 6}, "gelu", {"linear": 4}, "softmax"],
    ["standardize", {"linear": 6}, "silu", {"linear": 3}],
    [{"linear": 6}, "layer_norm", "leaky_relu", {"residual": ["tanh"]}, {"linear": 3}],
    [{"linear": 4}, "hardsigmoid", {"scale": {"factor": 2.0, "offset": 0.5}}, {"elu": 0.7}],
)
SOURCES: dict[str, tuple[int, Callable[[Rng, Path], Subject]]] = {
    "building blocks, exported by mlpx": (30, _blocks),
    "a forward as people write it, exported by mlpx": (26, _written),
    "operators beyond the blocks, exported by mlpx": (8, _family),
    "other spellings of the blocks": (22, _spelt),
    "torch.onnx, TorchScript": (12, _by_legacy_torch),
    "torch.onnx, dynamo": (2, _by_torch),
}
"""How many of a hundred networks are of each kind, and how one is made."""


def subject(number: int, seed: int, folder: Path) -> Subject:
    """One of the networks of a seed; ``folder`` is its own, and the one above it is shared by all of a run."""
    rng = np.random.default_rng([seed, number])
    shares = np.cumsum([share for share, _ in SOURCES.values()])
    place = (37 * number + seed) % 100  # so that any hundred in a row have each kind as often as it should be
    make = list(SOURCES.values())[int(np.searchsorted(shares, place, side="right"))][1]
    while True:
        try:
            return make(rng, folder)
        except (ValueError, torch.onnx.errors.OnnxExporterError):  # no exporter has all of its operators
            continue
