"""A file is proved when it computes what its module computes, and never otherwise."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from torch import nn

from benchmarks.modules import of_family
from benchmarks.planted import FAULTS, OF_OPERATORS, RUNTIME_ONLY, faulty, plan, planted
from builder import Scale, assemble, load_spec, load_weights
from export import ExportError, ProofError, export, publish, verify
from export.onnxfile.model import Model
from export.onnxfile.reading import external_data, read_model
from export.proof.rules import RULES
from export.proof.running import Opener, Running, on_device
from export.proof.structure import Structure, match
from export.proof.verify import prove
from export.trace import signature_of, trace
from export.trace.decompositions import DECOMPOSED
from runtime import InputError, ModelError
from tests.support.by_torch import by_torch
from tests.support.cases import BLOCKS, network, normal, randomised, specs
from tests.support.hand_written import HAND_WRITTEN
from tests.support.onnx_drafts import Draft

GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
EVERY_PLACE = [
    "standardize",
    {"linear": 16},
    "batch_norm",
    "leaky_relu",
    {"linear": 16},
    "hardsigmoid",
    {"dropout": 0.2},
]
EVERY_PLACE += [{"linear": 16}, "gelu", {"linear": 16}, "relu", {"linear": 5}]
"""A network with a place for every fault of the building blocks."""


def outcome(report: object, name: str) -> str:
    return next(check.outcome for check in report.checks if check.name == name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "between linear layers"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_proved(name: str, alone: bool, device: str, tmp_path: Path) -> None:
    if alone and name in ("dropout", "identity", "flatten"):
        return
    spec, module = network([BLOCKS[name]] if alone else [{"linear": 9}, BLOCKS[name], {"linear": 3}])
    report = verify(module, export(module, tmp_path / "m.onnx", spec=spec), device=device)
    assert report.proved, report.why
    assert report.verdict == "proved", report.why
    assert report.device.startswith(device)
    assert all(layer.ratio <= 1 for layer in report.layers)
    assert not [check for check in report.checks if check.outcome != "passed"]


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_modules_are_proved(name: str, device: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, _ = HAND_WRITTEN[name]()
    report = verify(module.train(), export(module, tmp_path / "m.onnx"), device=device)
    assert report.proved, report.why
    assert module.training


@settings(GENERATED, max_examples=40)
@given(spec=specs(), seed=st.integers(0, 2**16), fold=st.booleans())
def test_generated_networks_are_proved(spec: object, seed: int, fold: bool, device: str, tmp_path: Path) -> None:
    module = randomised(assemble(spec, seed=seed), seed)
    report = verify(module, export(module, tmp_path / "m.onnx", spec=spec, fold_affine=fold), device=device)
    assert report.proved, report.why


Victim = tuple[nn.Module, Any, Model, Structure]
"""A module, the example it is called with, its file, and what the file's operators are of it."""


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Victim]:
    """One of building blocks, one of every operator."""
    made = {"blocks": (network(EVERY_PLACE)[1], torch.randn(4, 7)), "operators": of_family("every operator", 0)}
    found = {}
    for name, (module, example) in made.items():
        model = read_model(export(module, tmp_path_factory.mktemp(name) / "m.onnx", example=example).path)
        graph = trace(module, signature_of(module, example=example))
        found[name] = module, example, model, match(graph, model)
    return found


@pytest.fixture(scope="module")
def victim(victims: dict[str, Victim]) -> Victim:
    return victims["blocks"]


def with_a_place(victims: dict[str, Victim], fault: str) -> Victim:
    return victims["operators" if fault in OF_OPERATORS else "blocks"]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in RUNTIME_ONLY])
def test_a_fault_in_the_file_is_caught(fault: str, victims: dict[str, Victim], device: str, tmp_path: Path) -> None:
    module, example, model, structure = with_a_place(victims, fault)
    edit = plan(fault, model, structure, 0)
    assert edit is not None, "the victim has a place for every fault"
    planted(model, edit, tmp_path / "m.onnx")
    report = prove(module, tmp_path / "m.onnx", device=device, example=example)
    assert not report.proved
    assert report.why != "every check passed"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_runtime_is_caught_by_what_it_computes(
    fault: str, victims: dict[str, Victim], device: str
) -> None:
    module, example, model, structure = with_a_place(victims, fault)
    edit = plan(fault, model, structure, 0)
    assert edit is not None
    report = prove(module, model.path, device=device, opener=faulty(on_device(device), edit), example=example)
    assert not report.proved
    assert outcome(report, "structure") == outcome(report, "constants") == "passed"


def test_a_failure_names_the_first_layer_that_diverges(victim: Victim) -> None:
    module, _, model, structure = victim
    edit = plan("slope 0.010001", model, structure, 0)
    assert edit is not None
    report = prove(module, model.path, device="cpu", opener=faulty(on_device("cpu"), edit))
    e = report.failure
    assert e is not None
    assert e.layer == "3"
    assert e.ratio > 1
    assert e.features == 7
    assert len(e.x) == 7
    assert abs(e.file - e.exact) > e.bound >= abs(e.eager - e.exact)
    said = next(check.words for check in report.checks if check.name == "layer bounds")
    for part in (
        "'3'",
        f"row {e.row} of '{e.inputs}'",
        f"{e.file:.9g}",
        f"{e.eager:.9g}",
        f"{e.exact:.9g}",
        f"{e.bound:.3g}",
    ):
        assert part in said
    x = torch.tensor([e.x])
    before = module[:3](x) if isinstance(module, nn.Sequential) else x
    torch.testing.assert_close(float(nn.functional.leaky_relu(before)[0, e.index].detach()), e.eager)


def fused(outputs: int, factor: float) -> Opener:
    """A runtime that multiplies what an Elu gives, unless more than ``outputs`` values are asked for."""
    plain = on_device("cpu")

    def opener(source: Path | bytes) -> Running:
        model = onnx.load(str(source)) if isinstance(source, Path) else onnx.load_from_string(source)
        nodes = model.graph.node
        if len(nodes) > 1 and len(model.graph.output) <= outputs:
            elu = next(node for node in nodes if node.op_type == "Elu")
            own = elu.output[0]
            elu.output[0] = "fused"
            at = list(nodes).index(elu) + 1
            nodes.insert(at, onnx.helper.make_node("Mul", ["fused", "factor"], [own]))
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([factor]), "factor"))
        return plain(model.SerializeToString())

    return opener


@pytest.mark.parametrize(
    ("outputs", "factor", "verdict", "part"),
    [
        (2, 1 + 2.0**-23, "proved", "the runtime fuses layers, so every linear layer with its activation was compared"),
        (2, 1 + 2.0**-6, "failed", "'1', row "),
        (1, 1 + 2.0**-23, "not proved", "what it computes without them cannot be seen"),
    ],
)
def test_a_runtime_that_fuses_is_held_against_the_bound_of_what_it_fused(
    outputs: int, factor: float, verdict: str, part: str, tmp_path: Path
) -> None:
    spec, module = network([{"linear": 16}, "elu", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    report = prove(module, path, device="cpu", opener=fused(outputs, factor))
    assert report.verdict == verdict
    assert any(part in check.words for check in report.checks)


def test_a_block_without_a_bound_is_never_passed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "tanh", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    monkeypatch.delitem(RULES, "tanh")
    report = verify(module, path, device="cpu")
    assert report.verdict == "not proved"
    assert report.why == "no rule bounds tanh at '1'"


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    spec, module = network([{"linear": 16}, "elu", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    first, second, other = (verify(module, path, device="cpu", seed=seed) for seed in (3, 3, 4))
    dropped = {"seconds"}
    assert first.model_dump(exclude=dropped) == second.model_dump(exclude=dropped)
    assert first.model_dump(exclude=dropped) != other.model_dump(exclude=dropped | {"seed"})


def test_what_was_tried_is_said(root: Path, tmp_path: Path) -> None:
    folder = root / "models" / "digits"
    spec = load_spec(folder / "spec.yaml")
    module = assemble(spec)
    load_weights(module, folder / "weights.safetensors")
    artifact = export(module, tmp_path / "digits.onnx", spec=spec)
    report = verify(module, artifact, device="cpu", data=folder / "heldout.parquet")
    assert [given.kind for given in report.inputs] == ["data", "range", "normal", "kinks", "extremes", "search"]
    assert report.inputs[0].rows == 450
    assert "0 to 16" in report.inputs[1].words
    shares = report.layers[1].shares
    assert {*(f"batch of {size}" for size in (1, 2, 7, 64)), "row alone", "search"} <= set(shares)
    assert report.end_to_end is not None
    assert 0 < report.end_to_end.from_float64 < 1e-4
    assert [layer.path for layer in report.layers[:3]] == ["0/sub", "0/div", "1"]
    assert report.layers[1].inputs == ["0/sub"]
    assert report.layers[0].inputs == ["input"]
    many = np.resize(normal(500, 64), (12_000, 64))
    sampled = verify(module, artifact, device="cpu", data=many)
    assert sampled.inputs[0].rows == 10_000
    assert "10,000 rows sampled from the 12,000 rows" in sampled.inputs[0].words


class Dice(nn.Module):
    """Random in evaluation mode, in Python, for more rows than a trace has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.layer(x)
        return y + y if len(x) > 20 and random.random() < 0.5 else y


class Counter(nn.Module):
    """Another function at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(x) if self.calls < 9 else torch.relu(self.layer(x))


@pytest.mark.parametrize("kind", [Dice, Counter])
def test_a_module_that_is_not_one_function_is_not_proved(kind: type[nn.Module], tmp_path: Path) -> None:
    module = kind()
    report = verify(module, export(module, tmp_path / "m.onnx"), device="cpu")
    assert report.verdict == "not proved"
    assert "random in evaluation mode" in report.why or "not what its traced operators compute" in report.why


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    with torch.no_grad():
        next(module.parameters())[1, 2] = value
    with pytest.raises(ProofError, match=r"'0.weight' is NaN or infinite in 1 of 28 values"):
        publish(module, tmp_path / "m.onnx", spec=spec, device="cpu", page=False)
    assert not (tmp_path / "m.onnx").exists()


def test_files_of_torch_onnx_are_proved_where_every_node_is_a_block(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = [
        nn.Linear(5, 8),
        nn.LeakyReLU(0.2),
        nn.Linear(8, 8, bias=False),
        nn.GELU(),
        nn.LayerNorm(8),
        nn.Softplus(),
    ]
    module = nn.Sequential(*blocks, nn.Linear(8, 3), nn.Softmax(dim=-1)).eval()
    onnx.save(by_torch(module, free_batch=True), str(tmp_path / "m.onnx"))
    report = verify(module, tmp_path / "m.onnx", device="cpu")
    assert report.proved, report.why
    onnx.save(by_torch(module), str(tmp_path / "fixed.onnx"))
    fixed = verify(module, tmp_path / "fixed.onnx", device="cpu")
    words = next(check.words for check in fixed.checks if check.name == "batches")
    assert fixed.proved, fixed.why
    assert "takes batches of exactly 2 rows" in words, fixed.why
    with torch.no_grad():
        blocks[0].weight[0, 0] += 1e-6  # type: ignore[operator]
    assert verify(module, tmp_path / "m.onnx", device="cpu").verdict == "failed"
    assert verify(module, tmp_path / "fixed.onnx", device="cpu").verdict == "failed"


def rebuilt(path: Path, change: object) -> Path:
    model = onnx.load(str(path))
    change(model.graph)  # type: ignore[operator]
    onnx.save(model, str(path))
    return path


def test_more_operators_than_the_module_has(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    path = export(module, tmp_path / "m.onnx", spec=spec).path

    def one_more(graph: onnx.GraphProto) -> None:
        graph.node[-1].output[0] = "before"
        graph.node.append(onnx.helper.make_node("Clip", ["before"], [graph.output[0].name], name="extra"))

    report = verify(module, rebuilt(path, one_more), device="cpu")
    assert report.verdict == "not proved"
    assert "operator that the module lacks: Clip 'extra'" in report.why


def test_another_activation(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    changed = rebuilt(path, lambda graph: setattr(graph.node[1], "op_type", "Sigmoid"))
    report = verify(module, changed, device="cpu")
    assert report.verdict == "failed"
    assert "is off by" in report.why
    assert any("module has relu at '1', and the file has Sigmoid '1' there" in check.words for check in report.checks)


@pytest.mark.parametrize(
    ("blocks", "features", "part"),
    [
        ([{"linear": 4}], 6, "input 'input' has rows of shape [6], and the module's [7]"),
        ([{"linear": 5}], 7, "output 'output' has rows of shape [5], and the module's [4]"),
    ],
)
def test_other_shapes(blocks: list[object], features: int, part: str, tmp_path: Path) -> None:
    spec, other = network(blocks, features=features)
    path = export(other, tmp_path / "m.onnx", spec=spec).path
    report = verify(network([{"linear": 4}])[1], path, device="cpu")
    assert not report.proved
    assert any(part in check.words for check in report.checks)


def test_a_module_that_no_block_expresses_is_not_proved(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tan(self.layer(x))

    report = verify(Odd(), export(nn.Linear(3, 3), tmp_path / "m.onnx"), device="cpu")
    assert report.verdict == "not proved"
    assert "a file has no operator for tan at line" in report.why


def test_data_that_does_not_fit(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    with pytest.raises(InputError, match=r"rows of shape \[6\], and the module takes \[7\]"):
        verify(module, path, device="cpu", data=normal(3, 6))
    empty = verify(module, path, device="cpu", data=normal(0, 7))
    assert empty.proved
    assert empty.warnings == ["the given array has no rows, so it shows nothing"]
    odd = normal(9, 7)
    odd[3, 1] = np.nan
    odd.setflags(write=False)
    assert verify(module, path, device="cpu", data=odd).warnings == [
        "1 of the 9 rows of the given array hold NaN or infinity"
    ]
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="not a whole ONNX file"):
        verify(module, tmp_path / "cut.onnx", device="cpu")
    with pytest.raises(ExportError, match=r"expected an nn\.Module"):
        verify("not a module", path, device="cpu")


class ByRows(nn.Module):
    """Another function for more rows than a trace has; and a small output beside a very large one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(3, 2), kind
        with torch.no_grad():
            self.layer.bias[0] = 1e9 if kind == "beside" else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(torch.tanh(x))
        if len(x) < 100:
            return y
        return y + torch.tensor([0.0, 0.9]) if self.kind == "beside" else torch.sin(y)


@pytest.mark.parametrize("kind", ["beside", "another"])
def test_a_forward_that_the_trace_does_not_see(kind: str, tmp_path: Path) -> None:
    module = ByRows(kind)
    report = verify(module, export(module, tmp_path / "m.onnx"), device="cpu")
    assert report.verdict == "not proved"
    assert "not what its traced operators compute" in report.why


def hide(graph: onnx.GraphProto, how: str) -> None:
    """The same graph for one reader, another for the next."""
    weight = next(t for t in graph.initializer if t.name == "0.weight")
    values = onnx.numpy_helper.to_array(weight)
    if how == "sparse":
        indices = onnx.numpy_helper.from_array(np.arange(values.size, dtype=np.int64))
        held = onnx.numpy_helper.from_array(values.reshape(-1), "0.weight")
        graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(held, indices, list(values.shape)))
    elif how == "twice":
        graph.node.insert(0, onnx.helper.make_node("Constant", [], ["0.weight"], value=weight))
    else:
        last = graph.node[-1].output[0]
        graph.node[-1].output[0] = "inner"
        graph.node.append(onnx.helper.make_node("Identity", ["inner"], [last], domain="elsewhere"))


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("sparse", "sparse constant"),
        ("twice", "one name for two values: '0.weight'"),
        ("domain", "operator that the module lacks: Identity"),
    ],
)
def test_files_that_readers_understand_differently_are_not_proved(how: str, part: str, tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    path = rebuilt(export(module, tmp_path / "m.onnx", spec=spec).path, lambda graph: hide(graph, how))
    report = verify(module, path, device="cpu")
    assert not report.proved
    assert any(part in check.words for check in report.checks)


def test_identities_are_seen_through(tmp_path: Path) -> None:
    spec, module = network(["standardize", {"linear": 4}, "gelu", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path

    def indirect(graph: onnx.GraphProto) -> None:
        identity = onnx.helper.make_node
        first, last = graph.node[2], graph.node[-1]
        graph.node.insert(0, identity("Identity", [first.input[1]], ["weight again"]))
        graph.node.insert(0, identity("Identity", [graph.input[0].name], ["input again"]))
        graph.node[2].input[0] = "input again"
        first.input[1] = "weight again"
        final = last.output[0]
        last.output[0] = "inner"
        graph.node.append(identity("Identity", ["inner"], [final]))

    assert verify(module, rebuilt(path, indirect), device="cpu").proved


def test_values_without_a_bound_are_not_passed(tmp_path: Path) -> None:
    """A variance that cancels away in float32 on the user's own rows, and a layer whose products overflow."""
    spec, module = network(["layer_norm"], features=64)
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    far = (1e4 + 0.1 * normal(50, 64)).astype(np.float32)
    report = verify(module, path, device="cpu", data=far)
    assert report.verdict == "not proved"
    assert "values of '0' have no bound on usual rows" in report.why
    assert verify(module, path, device="cpu").proved
    spec, large = network([{"linear": 8}])
    with torch.no_grad():
        large[0].weight.mul_(3e38).mul_(2.5)  # type: ignore[operator]
    assert not verify(large, export(large, tmp_path / "l.onnx", spec=spec), device="cpu").proved


UNUSUAL = {
    "scale on rows that are not flat": (["flatten", {"linear": 3}], (3, 4)),
    "a decayed norm": ([{"linear": 5}, "relu", "batch_norm", {"linear": 3}], None),
    "layer norm without epsilon": ([{"layer_norm": {"eps": 1e-38}}, {"linear": 3}], None),
    "tiny weights": ([{"linear": 5}, "tanh", {"linear": 3}], None),
    "width 1": ([{"linear": 1}, "layer_norm", {"linear": 1}], None),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_networks_are_proved(name: str, tmp_path: Path) -> None:
    blocks, shape = UNUSUAL[name]
    spec, module = network(blocks, features=7 if shape is None else 12)
    if shape is not None:
        module = nn.Sequential(Scale(4, 2.0, 1.0), Scale(4, 3.0), *module).eval()
    with torch.no_grad():
        if name == "a decayed norm":
            module[2].weight[2] = 1.7e-41  # type: ignore[index]
        if name == "tiny weights":
            module[0].weight.mul_(1e-41)  # type: ignore[operator]
    for fold in (False, True):
        options = {"input_shape": shape} if shape is not None else {"spec": spec}
        artifact = export(module, tmp_path / "m.onnx", fold_affine=fold, **options)  # type: ignore[arg-type]
        report = verify(module, artifact, device="cpu")
        assert report.proved, report.why


def test_what_cannot_be_run_is_an_answer_and_no_crash(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    whole = path.read_bytes()

    def reshaped(graph: onnx.GraphProto) -> None:
        last = graph.node[-1].output[0]
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 4]), "shape"))
        graph.node.append(onnx.helper.make_node("Reshape", ["inner", "shape"], [last]))

    report = verify(module, rebuilt(path, reshaped), device="cpu")
    assert report.verdict == "not proved"
    assert any("cannot run it on" in check.words for check in report.checks)
    path.write_bytes(whole)
    nothing = verify(nn.Sequential(nn.Dropout(), nn.Identity()), path, device="cpu")
    assert not nothing.proved
    with pytest.raises(ModelError, match="has no output"):
        verify(module, rebuilt(path, lambda graph: graph.ClearField("output")), device="cpu")
    path.write_bytes(whole)
    with pytest.raises(ModelError, match=r"'0.weight' has dimensions .* and holds"):
        verify(module, rebuilt(path, lambda graph: graph.initializer[0].dims.append(9)), device="cpu")
    path.write_bytes(whole)
    with pytest.raises(InputError, match="different lengths"):
        verify(module, path, device="cpu", data=[[1.0, 2.0], [3.0]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a seed is a whole number"):
        verify(module, path, device="cpu", seed=-1)


def test_a_caller_in_inference_mode_and_other_defaults(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "gelu"])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    kind = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.inference_mode():
            assert verify(module, path, device="cpu").proved
    finally:
        torch.set_default_dtype(kind)


def test_external_data_and_rounded_weights(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "gelu"])
    artifact = export(module.double(), tmp_path / "m.onnx", spec=spec, dtype="float32", external_data=True)
    report = verify(module, artifact, device="cpu", dtype="float32")
    assert report.proved
    assert list(report.file.data) == ["m.onnx.data"]
    data = tmp_path / "m.onnx.data"
    held = bytearray(data.read_bytes())
    held[1] ^= 1
    data.write_bytes(held)
    changed = verify(module, artifact, device="cpu", dtype="float32")
    assert changed.verdict == "failed"
    assert "differs from the module's in 1 of" in changed.why


def test_publish_replaces_only_with_what_is_proved(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}])
    artifact, report = publish(module, tmp_path / "m.onnx", spec=spec, device="cpu")
    assert artifact.proved
    assert report is not None
    assert report.proved
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"m.onnx", "m.parity.json", "m.parity.html"}
    with torch.no_grad():
        next(module.parameters())[0, 0] = float("nan")
    with pytest.raises(ProofError):
        publish(module, tmp_path / "m.onnx", spec=spec, device="cpu")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert (tmp_path / "m.failed" / "m.parity.html").exists()


def test_a_constant_node_s_external_data_belongs_to_the_file(tmp_path: Path) -> None:
    """It is read, and it is among what is hashed and packaged."""
    draft = Draft(13)
    weight = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    (tmp_path / "weights.bin").write_bytes(weight.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    draft.nodes.append(onnx.helper.make_node("Constant", [], ["w"], value=tensor))
    path = draft.save(tmp_path / "m.onnx", draft("MatMul", "x", "w"))
    assert external_data(path) == {"weights.bin": tmp_path / "weights.bin"}
    assert np.array_equal(read_model(path).constants["w"], weight)
    module = nn.Linear(6, 4, bias=False)
    module.weight.data = torch.from_numpy(weight.T.copy())
    report = verify(module, path, device="cpu")
    assert report.proved


def test_weights_of_another_type_beside_the_file_are_not_proved(tmp_path: Path) -> None:
    draft = Draft(17)
    weight = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float16)
    product = draft("MatMul", draft("Cast", "x", to=TensorProto.FLOAT16), weight)
    model, path = draft.model(draft("Cast", product, to=TensorProto.FLOAT)), tmp_path / "half.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="half.data", size_threshold=0)
    module = nn.Linear(6, 4, bias=False)
    module.weight.data = torch.from_numpy(weight.T.astype(np.float32))
    assert verify(module, path, device="cpu").verdict == "not proved"


class Truths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.square(self.inner(x) > 0)  # whole numbers


def test_a_result_of_another_type_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"input_shape": (3,), "device": "cpu", "page": False}
    artifact, report = publish(Truths(), tmp_path / "whole.onnx", **options)
    assert report.proved
    assert artifact.summary.outputs[0].dtype == "int64"
    monkeypatch.setitem(DECOMPOSED, "square.default", lambda x: x * x)  # as truths have it in a file
    with pytest.raises(ProofError, match="gives int64, and its traced operators bool"):
        publish(Truths(), tmp_path / "truths.onnx", **options)
