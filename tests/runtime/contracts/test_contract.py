"""A file's contract is what the file declares and applies, with every digit, and survives as YAML."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn

from builder import MLPSpec, assemble
from export import export, publish
from runtime import InputError, ModelError, contract, read_contract
from tests.support.commands import Run
from tests.support.repeats import examples
from tests.support.robot import FACTOR, JOINTS, MEAN, NAMES, OFFSET, STD, policy_file, policy_module, policy_spec


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_file(tmp_path_factory.mktemp("whole") / "policy.onnx")


def applied(steps: Any, rows: np.ndarray) -> np.ndarray:
    for step in steps:
        rows = step.apply(rows)
    return rows


def test_names_say_term_joint_and_age(tmp_path: Path) -> None:
    found = contract(policy_file(tmp_path / "p.onnx"))
    meanings = [feature.meaning for feature in found.inputs[0].features]
    assert [(m.term, m.joint, m.age) for m in meanings if m is not None] == [
        *[("ang_vel", None, 0)] * 3,
        *[("joint_pos", joint, 1) for joint in JOINTS],
        *[("joint_pos", joint, 0) for joint in JOINTS],
        ("height", None, 0),
    ]
    assert [feature.unit for feature in found.inputs[0].features][-2:] == [None, "m"]
    assert found.inputs[0].features[0].range == (-3, 3)
    assert found.period == 0.02
    assert [str(layer) for layer in found.layers] == ["linear 12 to 16", "elu", "linear 16 to 4"]


def test_each_feature_lists_what_the_file_applies_to_it(tmp_path: Path) -> None:
    found = contract(policy_file(tmp_path / "p.onnx"))
    second = found.inputs[0].features[1]
    assert second.applied == (
        ("clip", {"min": np.float32(-18), "max": np.float32(18)}),
        ("standardize", {"mean": np.float32(MEAN[1]), "std": np.float32(STD[1])}),
    )
    third = found.outputs[0].features[2]
    assert third.name == f"joint_pos:{JOINTS[2]}"
    assert third.applied == (
        ("clip", {"min": np.float32(-1), "max": np.float32(1)}),
        ("scale", {"factor": np.float32(FACTOR[2]), "offset": np.float32(OFFSET[2])}),
    )


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(2.0**-100, 2.0**100, width=32)


@st.composite
def step_blocks(draw: st.DrawFn, features: int) -> list[dict[str, Any]]:
    def each(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=features, max_size=features))

    found: list[dict[str, Any]] = []
    for kind in draw(st.lists(st.sampled_from(["clip", "standardize", "scale"]), max_size=4)):
        if kind == "clip":
            low, high = sorted(draw(st.tuples(FLOATS, FLOATS).filter(lambda ends: ends[0] != ends[1])))
            found.append({"clip": [low, high]})
        elif kind == "standardize":
            found.append({"standardize": {"mean": each(FLOATS), "std": each(POSITIVE)}})
        else:
            found.append({"scale": {"factor": each(FLOATS), "offset": each(FLOATS)}})
    return found


@settings(deadline=None, max_examples=examples(25, of=150))
@given(first=step_blocks(3), last=step_blocks(2), opset=st.sampled_from([9, 11, 17]), own=st.booleans())
def test_every_number_is_the_modules_bit_for_bit_also_from_yaml(
    first: list[Any], last: list[Any], opset: int, own: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Applying the contract's steps gives what the module's own blocks give, from a file of any tool."""
    folder = tmp_path_factory.mktemp("contract")
    middle: list[Any] = [{"linear": 4}, "tanh", {"linear": 2}]
    spec = MLPSpec(name="p", input={"features": 3}, blocks=[*first, *middle, *last])
    module = assemble(spec, seed=1).eval()
    path = export(module, folder / "p.onnx", spec=spec, opset=opset).path
    if not own:
        model = onnx.load(path)
        del model.metadata_props[:]
        onnx.save(model, path)
    found = contract(path)
    (folder / "p.yaml").write_text(found.to_yaml(), encoding="utf-8")
    again = read_contract(folder / "p.yaml")
    assert again.layers == found.layers
    assert [layer.kind for layer in found.layers] == ["linear", "tanh", "linear"]
    parts = (module[: len(first)], found.inputs[0].steps, again.inputs[0].steps, 3)
    ends = (module[len(first) + 3 :], found.outputs[0].steps, again.outputs[0].steps, 2)
    for blocks, steps, read, width in (parts, ends):
        rows = torch.randn(20, width) * 10
        with torch.no_grad(), np.errstate(all="ignore"):
            expected = blocks(rows).numpy()
            assert np.array_equal(applied(steps, rows.numpy()), expected, equal_nan=True)
            assert np.array_equal(applied(read, rows.numpy()), expected, equal_nan=True)
        for a, b in zip(steps, read, strict=True):
            assert a.kind == b.kind
            assert {r: v.tobytes() for r, v in a.values.items()} == {r: v.tobytes() for r, v in b.values.items()}


def test_what_mixes_features_or_is_read_twice_is_no_step(tmp_path: Path) -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scaled = x * 2
            return (scaled + self.body(scaled)) * torch.tensor([1.0, 2.0, 3.0])

    found = contract(export(Skip(), tmp_path / "s.onnx", input_shape=(3,)).path)
    assert [step.kind for step in found.inputs[0].steps] == ["scale"]
    assert found.outputs[0].steps[0].values["factor"].tolist() == [1, 2, 3]
    assert [layer.kind for layer in found.layers] == ["linear", "add"]


def test_the_end_of_a_layer_norm_is_no_scale(tmp_path: Path) -> None:
    spec = MLPSpec(name="n", input={"features": 3}, blocks=[{"linear": 4}, "layer_norm"])
    found = contract(export(assemble(spec, seed=0), tmp_path / "n.onnx", spec=spec, opset=12).path)
    assert found.outputs[0].steps == ()
    assert [layer.kind for layer in found.layers] == ["linear", "layer_norm"]


def test_the_bias_of_a_product_is_no_offset(tmp_path: Path) -> None:
    a, b = np.eye(3, 4, dtype=np.float32), np.arange(4, dtype=np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "a"], ["p"]),
        onnx.helper.make_node("Add", ["p", "b"], ["q"]),
        onnx.helper.make_node("Mul", ["q", "c"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(n, 1, ["n", s]) for n, s in (("x", 3), ("y", 4))]
    values = [
        onnx.numpy_helper.from_array(np.asarray(v), n)
        for n, v in (("a", a), ("b", b), ("c", np.array([2], np.float32)))
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], values)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    found = contract(tmp_path / "m.onnx")
    assert [(step.kind, list(step.values)) for step in found.outputs[0].steps] == [("scale", ["factor"])]
    (layer,) = found.layers
    assert str(layer) == "linear 3 to 4"
    assert layer.weights["bias"].tolist() == b.tolist()


def test_the_certificate_beside_it_gives_verdict_and_bounds(tmp_path: Path) -> None:
    spec = policy_spec()
    artifact, report = publish(policy_module(spec), tmp_path / "p.onnx", spec=spec, device="cpu", page=False)
    found = contract(artifact.path)
    assert report.bound is not None
    assert found.proof is not None
    assert (found.proof.verdict, found.proof.largest) == ("proved", report.bound.largest)
    assert [f.bound for f in found.outputs[0].features] == list(report.bound.outputs["action"].bound)
    assert found.sha256 == report.file.sha256
    policy_file(tmp_path / "p.onnx", scale=None)  # another file under the same name
    again = contract(tmp_path / "p.onnx").proof
    assert again is not None
    assert (again.verdict, again.bound) == ("of another file", None)


def test_inspect_prints_the_table_and_writes_the_file(run: Run, tmp_path: Path) -> None:
    path = policy_file(tmp_path / "p.onnx")
    code, out, _ = run("inspect", path, "--contract")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [
        "3",
        "joint_pos:left_hip@-1",
        "joint_pos",
        "left_hip",
        "1",
        "-3",
        "to",
        "3",
        "-18.0",
        "18.0",
        "0.0",
        "0.5",
    ] in lines
    assert ["1", "joint_pos:left_knee", "joint_pos", "left_knee", "-1.0", "1.0", "0.5", "-0.4"] in lines
    assert "  layers  linear 12 to 16, elu, linear 16 to 4\n" in out
    code, out, err = run("inspect", path, "--contract", "-o", tmp_path / "c" / "p.yaml")
    assert (code, out) == (0, "")
    assert f"written to {tmp_path / 'c' / 'p.yaml'}" in err
    assert read_contract(tmp_path / "c" / "p.yaml").to_yaml() == contract(path).to_yaml()
    code, out, _ = run("inspect", path, "--contract", "--json")
    assert json.loads(out) == yaml.safe_load((tmp_path / "c" / "p.yaml").read_text())
    code, _, err = run("inspect", path, "-o", tmp_path / "x.yaml")
    assert code == 2
    assert "-o goes with --contract" in err
    before = path.read_bytes()
    code, _, err = run("inspect", path, "--contract", "-o", path)
    assert code == 2
    assert "is FILE itself" in err
    assert path.read_bytes() == before


def test_the_file_has_the_keys_that_leapp_reads(tmp_path: Path) -> None:
    """Those that its InferenceManager requires, with the types that it takes."""
    path = policy_file(tmp_path / "p.onnx")
    record = yaml.safe_load(contract(path).to_yaml())
    assert {"models", "pipeline", "system information"} <= set(record)
    ((name, model),) = record["models"].items()
    assert {"model_path", "md5sum", "sha256sum", "backend"} <= set(model["parameters"])
    assert model["parameters"]["backend"] == "onnx"
    for port, names in ((model["inputs"][0], list(NAMES)), (model["outputs"][0], [f"joint_pos:{j}" for j in JOINTS])):
        assert (port["dtype"], port["shape"], port["type"]) == ("float32", [1, len(names)], "tensor")
        assert port["element_names"] == [None, names]
    assert record["pipeline"]["configs"]["frequency"] == 50
    assert record["pipeline"]["inputs"] == {name: ["obs"]}
    assert record["pipeline"]["outputs"] == {name: ["action"]}
    evaluator: Any = ReferenceEvaluator(str(tmp_path / model["parameters"]["model_path"]))
    assert evaluator.run(None, {"obs": np.zeros(model["inputs"][0]["shape"], np.float32)})[0].shape == (1, 4)


DAMAGES = [
    (lambda _: "- 1", "no contract: it has not the keys"),
    (lambda text: text.replace("models:", "model:"), "no contract"),
    (lambda text: text[: len(text) // 3], "not a YAML file"),
    (lambda text: text.replace("mean: 0.1", "maen: 0.1"), "do not have the same blocks"),
    (lambda text: text.replace("mean:", "maen:"), "the block standardize with maen, std; expected clip: min, max"),
    (lambda text: text.replace("mean: 0.1", "mean: x"), "could not convert string to float"),
    (lambda text: text.replace("mean: 0.1", f"mean: {10**400}"), "int too large"),
    (lambda text: text.replace("alpha: 1.0", f"alpha: {10**400}"), "not a whole contract: int too large"),
    (lambda text: text.replace("alpha: 1.0", "alpha: {}"), "not a whole contract: float() argument"),
    (lambda text: text.replace("alpha: 1.0", "alpha: []"), "not a whole contract: an option has no value"),
    (lambda text: text.replace("      dtype: float32\n", ""), "the key 'dtype' is missing"),
    (lambda text: text.replace("  policy:\n", "  policy: 3\n  other:\n", 1), "it describes 2: policy, other"),
    (lambda text: text.replace("name: height", "name: 'ang_vel[0]'"), "two features of the same name"),
    (lambda _: "a: !!python/object/apply:os.system [ls]", "not a YAML file"),
]


@pytest.mark.parametrize(("damage", "expected"), DAMAGES, ids=[words for _, words in DAMAGES])
def test_a_damaged_contract_is_one_clear_error(damage: Any, expected: str, tmp_path: Path) -> None:
    text = contract(policy_file(tmp_path / "p.onnx")).to_yaml()
    (tmp_path / "c.yaml").write_text(damage(text))
    with pytest.raises(InputError) as caught:
        read_contract(tmp_path / "c.yaml")
    assert expected in str(caught.value)
    assert "What to do: write it again" in str(caught.value)


def test_no_onnx_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"x\.onnx: not a whole ONNX file"):
        contract(tmp_path / "x.onnx")


@settings(deadline=None, max_examples=examples(40, of=400))
@given(data=st.data())
def test_a_damaged_file_gives_a_contract_or_one_clear_error(data: st.DataObject, whole: Path) -> None:
    """Also one whose operators lost inputs, read themselves or were given other names."""
    model = onnx.load(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(list(model.graph.node)))
        names = [name for each in model.graph.node for name in (*each.input, *each.output)]
        kind = data.draw(st.sampled_from(["input", "output", "lost", "operator", "bytes", "name"]))
        if kind in ("input", "output") and getattr(node, kind):
            place = data.draw(st.integers(0, len(getattr(node, kind)) - 1))
            getattr(node, kind)[place] = data.draw(st.sampled_from([*names, "", "obs"]))
        elif kind == "lost":
            del node.input[data.draw(st.integers(0, 2)) :]
        elif kind == "operator":
            node.op_type = data.draw(st.sampled_from(["Clip", "Mul", "Identity", "Gemm", "Relu", "Constant"]))
        elif kind == "name":
            node.name = data.draw(st.sampled_from(["", "0", "2", "x"]))
        else:
            tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
            tensor.raw_data = tensor.raw_data[: data.draw(st.integers(0, 64))]
    path = whole.with_name("damaged.onnx")
    path.write_bytes(model.SerializeToString())
    try:
        told = contract(path).to_yaml()
    except ModelError as error:
        told = str(error)
    assert "What to do" in told or yaml.safe_load(told)["models"]


def test_weights_outside_of_the_folder_are_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    model = onnx.load(whole)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../secret")
    path = tmp_path / "inner" / "p.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"its weights are in '\.\./secret', outside of its folder"):
        contract(path)


def test_a_contract_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    path = policy_file(tmp_path / "p.onnx")
    code = (
        "import sys; from mlpx.cli import main\n"
        f"sys.argv = ['mlpx', 'inspect', {str(path)!r}, '--contract']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
