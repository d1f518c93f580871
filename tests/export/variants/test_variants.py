"""Files of reduced precision: what they compute, what they say of themselves, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from builder import MLPSpec
from export import ExportError, Variant, export, publish, write_variant
from export.variants import KINDS
from runtime import InputError, ModelError, Session, read_header, summary_of
from runtime.model.summary import rows_depend
from tests.support.cases import network, normal
from tests.support.commands import Run
from tests.support.onnx_drafts import Draft, layer

WAYS = [(kind, way) for kind, one in KINDS.items() for way in one.ways]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, one without a bias, after a Standardize, with a Tanh, a ReLU and labels."""
    folder = tmp_path_factory.mktemp("variants")
    blocks = ["standardize", {"linear": 40}, "tanh", {"linear": {"features": 24, "bias": False}}, "relu", {"linear": 3}]
    spec, module = network(blocks, features=37, output={"labels": ["a", "b", "c"]})
    return export(module, folder / "m.onnx", spec=spec).path


def made(model: Path, kind: str, folder: Path, way: str | None = None) -> Variant:
    with Session(model, "cpu") as session:
        name = session.inputs[0].name
    return write_variant(model, kind, folder, rows={name: normal(200, 37)}, way=way)


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_variant_runs_every_batch_and_is_near(kind: str, way: str, model: Path, tmp_path: Path) -> None:
    variant = made(model, kind, tmp_path, way)
    assert variant.path == tmp_path / f"m.{kind}.onnx"
    assert variant.layers == 3
    assert variant.way == way
    with Session(model, "cpu") as exact, Session(variant.path, "cpu") as reduced:
        assert reduced.inputs == exact.inputs
        assert reduced.outputs == exact.outputs
        for count in (0, 1, 17):
            x = normal(count, 37, count)
            expected, outputs = exact.predict(x), reduced.predict(x)
            assert outputs.shape == expected.shape
            limit = {"float16": 0.01, "weights4": 0.8}.get(kind, 0.1)
            assert count == 0 or 0 < np.abs(outputs - expected).max() < limit


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_source_gives_the_same_bytes(kind: str, model: Path, tmp_path: Path) -> None:
    first = made(model, kind, tmp_path / "a").path.read_bytes()
    assert made(model, kind, tmp_path / "b").path.read_bytes() == first


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_independent_where_the_file_says_so(kind: str, model: Path, tmp_path: Path) -> None:
    variant = made(model, kind, tmp_path)
    depend = rows_depend(read_header(variant.path).metadata)
    assert depend is (kind == "int8-dynamic")
    x = np.concatenate([normal(16, 37), 40 * normal(1, 37)])
    with Session(variant.path, "cpu", threads=1) as session:
        alone = np.concatenate([session.predict(row) for row in x[:, None]])
        apart = np.abs(session.predict(x) - alone).max()
    assert apart > 0.05 if depend else apart < 1e-5


def test_rows_that_depend_on_each_other_are_never_cut_into_chunks(model: Path, tmp_path: Path) -> None:
    x = np.concatenate([normal(1000, 37), 40 * normal(1, 37)])
    variant = made(model, "int8-dynamic", tmp_path)
    with Session(variant.path, "cpu", threads=1) as whole, Session(variant.path, "cpu", workers=2, chunk_rows=100) as s:
        assert s.predict(x).tobytes() == whole.predict(x).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_what_it_is(kind: str, model: Path, tmp_path: Path, run: Run) -> None:
    variant = made(model, kind, tmp_path)
    summary = summary_of(read_header(variant.path).metadata)
    assert summary is not None
    assert summary.variant is not None
    assert summary.weights_sha256 is None
    assert summary.variant["kind"] == kind
    assert summary.variant["label"] == "not proved equal, measured"
    assert summary.variant.get("calibration_rows") == (200 if kind == "int8-static" else None)
    original = summary_of(read_header(model).metadata)
    assert original is not None
    assert summary.outputs == original.outputs
    assert original.variant is None
    done = run("inspect", variant.path)
    assert f"{kind} of m.onnx" in done.out
    assert "not proved equal, measured" in done.out
    assert "not proved" not in run("inspect", model).out


@pytest.mark.parametrize("kind", KINDS)
def test_no_variant_is_proved(kind: str, tmp_path: Path, run: Run, root: Path) -> None:
    folder = root / "models" / "breast_cancer"
    done = run("build", folder / "spec.yaml", "-o", tmp_path, "--no-html")
    assert done.code == 0
    with Session(tmp_path / "breast_cancer.onnx", "cpu") as session:
        x = {session.inputs[0].name: normal(50, 30)}
    variant = write_variant(tmp_path / "breast_cancer.onnx", kind, rows=x)
    done = run("verify", variant.path, "--spec", folder / "spec.yaml", "--weights", folder / "weights.safetensors")
    assert done.code == 1
    assert done.out.startswith(("failed", "not proved"))
    assert "proved    on" not in done.out


def test_what_cannot_be_written_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is not a kind of reduced precision.*float16, int8-dynamic"):
        write_variant(model, "int3", tmp_path)
    with pytest.raises(ExportError, match=r"has no way 'fast'.*u8 rows, s8 weights"):
        write_variant(model, "int8-dynamic", tmp_path, way="fast")
    with pytest.raises(ExportError, match="needs your own rows for its ranges"):
        write_variant(model, "int8-static", tmp_path)
    with pytest.raises(InputError, match="no rows to measure ranges on"):
        made_with(model, np.zeros((0, 37), np.float32), tmp_path)
    with pytest.raises(InputError, match=r"makes the value .* nan.*drop rows that are not finite"):
        made_with(model, np.full((2, 37), np.nan, np.float32), tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        write_variant(tmp_path / "none.onnx", "float16")
    variant = write_variant(model, "float16", tmp_path)
    with pytest.raises(ExportError, match=r"of reduced precision itself.*name the float32 file"):
        write_variant(variant.path, "weights8", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.float16.onnx"]


def made_with(model: Path, x: np.ndarray, folder: Path) -> Variant:
    with Session(model, "cpu") as session:
        return write_variant(model, "int8-static", folder, rows={session.inputs[0].name: x})


def test_networks_that_a_kind_cannot_hold(tmp_path: Path) -> None:
    zeros = np.zeros(2, np.float32)
    with pytest.raises(ExportError, match=r"'.*' is 70000 in magnitude, and float16 ends at 65504"):
        write_variant(layer(tmp_path, np.array([[7e4, 1]], np.float32), zeros), "float16")
    with pytest.raises(ExportError, match="not finite"):
        write_variant(layer(tmp_path, np.array([[np.inf, 1]], np.float32), zeros), "weights8")
    draft = Draft()
    draft.save(tmp_path / "relu.onnx", draft("Relu", "x"))
    with pytest.raises(ExportError, match="no linear layer"):
        write_variant(tmp_path / "relu.onnx", "weights8")
    spec = MLPSpec(name="old", input={"features": 4}, blocks=[{"linear": 3}])
    _, module = network([{"linear": 3}], features=4)
    path = export(module, tmp_path / "old.onnx", spec=spec, opset=10).path
    with pytest.raises(ExportError, match=r"of opset 10, and int8-dynamic needs opset 11.*--opset 11"):
        write_variant(path, "int8-dynamic")


def test_constants_of_zero_and_a_bias_that_needs_more_bits(tmp_path: Path) -> None:
    """A column of zeros has any scale, and a large bias over tiny weights widens theirs."""
    weight = np.array([[0, 1e-12, 0.5], [0, -1e-12, 1]], np.float32)
    bias, x = np.array([2, 3, -1], np.float32), np.array([[1, 1], [0.5, -1]], np.float32)
    path = layer(tmp_path, weight, bias)
    for kind in KINDS:
        with Session(write_variant(path, kind, rows={"x": x}).path, "cpu") as session:
            assert np.abs(session.predict(x) - (x @ weight + bias)).max() < 0.15, kind


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_tools(kind: str, tmp_path: Path, run: Run) -> None:
    """MatMul with Add, a Gemm with alpha, beta and a weight that is not transposed, and a product of two values."""
    draft = Draft(dims=("batch", 6))
    value = draft("Add", draft("MatMul", "x", normal(6, 20)), normal(1, 20, 1)[0])
    value = draft("Gemm", draft("Tanh", value), normal(20, 5, 2), normal(1, 5, 3), alpha=0.5, beta=2.0)
    path = draft.save(tmp_path / "other.onnx", draft("Mul", value, value))
    x = normal(30, 6, 4)
    variant = write_variant(path, kind, rows={"x": x})
    assert variant.layers == 2
    names = {node.op_type for node in onnx.load(str(variant.path)).graph.node}
    assert "Mul" in names
    assert (kind in ("float16", "int8-static")) == ("Gemm" in names)
    assert "MatMul" not in names
    with Session(path, "cpu") as exact, Session(variant.path, "cpu") as reduced:
        expected, outputs = exact.predict(x), reduced.predict(x)
    assert 0 < np.abs(outputs - expected).max() < (0.25 if kind == "weights4" else 0.03) * np.abs(expected).max()
    done = run("inspect", variant.path)
    assert done.code == 0
    assert "not proved equal, measured" in done.out


@pytest.mark.parametrize("read", ["relu", "constant", "product"])
def test_values_that_only_the_body_of_an_operator_reads_stay(read: str, tmp_path: Path) -> None:
    """A value, a constant, and the product before an Add, which then stays apart from it."""
    draft = Draft(dims=("batch", 6))
    condition, constant = draft.constant(np.array(True)), draft.constant(normal(1, 3, 5)[0])
    product = draft("MatMul", "x", normal(6, 3))
    total = draft("Add", product, normal(1, 3, 1)[0])
    value = {"relu": draft("Relu", total), "constant": constant, "product": product}[read]
    output = onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
    body = onnx.helper.make_graph([onnx.helper.make_node("Neg", [value], ["inner"])], "body", [], [output])
    chosen = draft("If", condition, then_branch=body, else_branch=body)
    path = draft.save(tmp_path / "m.onnx", draft("Sub", total, chosen))
    x = normal(5, 6, 2)
    variant = write_variant(path, "weights8")
    with Session(path, "cpu") as exact, Session(variant.path, "cpu") as reduced:
        assert np.abs(reduced.predict(x) - exact.predict(x)).max() < 0.1


def test_an_older_file_stays_whole_where_none_can_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    from runtime import OutputError

    with pytest.raises(OutputError):
        write_variant(model, "float16", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_fixed_batch_is_calibrated_and_stays_fixed(tmp_path: Path) -> None:
    draft = Draft(dims=(4, 6))
    path = tmp_path / "fixed.onnx"
    path.write_bytes(draft.model(draft("Gemm", "x", normal(6, 3), normal(1, 3)[0]), (4, 3)).SerializeToString())
    variant = write_variant(path, "int8-static", rows={"x": normal(10, 6)})
    with Session(variant.path, "cpu") as session:
        assert session.predict(normal(4, 6)).shape == (4, 3)
        with pytest.raises(InputError, match="exactly 4 rows"):
            session.predict(normal(5, 6))


def test_a_proved_file_beside_it_is_left_alone(tmp_path: Path) -> None:
    spec, module = network([{"linear": 8}, "relu", {"linear": 2}])
    artifact, _ = publish(module, tmp_path / "m.onnx", spec=spec, page=False)
    before = artifact.path.read_bytes()
    write_variant(artifact.path, "weights8")
    assert artifact.path.read_bytes() == before


STAYS: dict[str, Callable[[Draft, str], str]] = {
    "a Gemm of columns": lambda d, x: d("Gemm", d("Transpose", x), normal(6, 4), transA=1),
    "a Gemm whose bias is computed": lambda d, x: d("Gemm", x, normal(6, 4), d("Tanh", d("MatMul", x, normal(6, 4)))),
    "a product of matrices": lambda d, x: d("MatMul", d("Reshape", x, np.array([-1, 2, 3])), normal(3, 4)),
    "a product of two values": lambda d, x: d("MatMul", d("Transpose", x), x),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_no_linear_layer_of_rows_stays(name: str, tmp_path: Path) -> None:
    draft = Draft(dims=(6, 6))
    path = draft.save(tmp_path / "m.onnx", STAYS[name](draft, draft("Gemm", "x", normal(6, 6))))
    kept = {node.name or node.output[0] for node in onnx.load(str(path)).graph.node[1:]}
    variant = write_variant(path, "float16", tmp_path)
    assert variant.layers == 1 + (name == "a Gemm whose bias is computed")  # the product in the bias is one
    assert {node.name or node.output[0] for node in onnx.load(str(variant.path)).graph.node} & kept


@pytest.mark.parametrize("bias", ["a value", "a bias of another shape"])
def test_a_sum_with_something_else_is_not_part_of_the_layer(bias: str, tmp_path: Path) -> None:
    draft, x = Draft(dims=(3, 6)), normal(3, 6)
    product = draft("MatMul", "x", normal(6, 6))
    path = draft.save(tmp_path / "m.onnx", draft("Add", product, "x" if bias == "a value" else normal(3, 6)))
    variant = write_variant(path, "float16", tmp_path)
    assert "Add" in {node.op_type for node in onnx.load(str(variant.path)).graph.node}
    with Session(path, "cpu") as exact, Session(variant.path, "cpu") as reduced:
        np.testing.assert_allclose(reduced.predict(x), exact.predict(x), atol=0.03)


def test_a_file_that_no_variant_can_hold(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = onnx.load(str(model))
    proto.functions.add(name="mine", domain="d")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="the file defines operators of its own: 'mine'"):
        write_variant(tmp_path / "m.onnx", "float16")
    monkeypatch.setattr("export.variants.writing._LARGEST_FILE", 100)
    with pytest.raises(ExportError, match="its float16 file would exceed 2 GB, the limit of an ONNX file"):
        write_variant(model, "float16", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
