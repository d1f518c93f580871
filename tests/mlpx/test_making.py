"""``mlpx build``, ``export`` and ``schema``: what they write, what they say, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from builder import json_schema
from runtime import Session
from tests.support.commands import Run


def test_build_takes_the_weights_beside_the_spec(run: Run, root: Path, tmp_path: Path) -> None:
    done = run("build", root / "models" / "digits" / "spec.yaml", "-o", tmp_path)
    written = ["digits.onnx", "digits.parity.html", "digits.parity.json"]
    assert done.code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == written
    assert f"written   {tmp_path / 'digits.onnx'}" in done.out
    assert "opset 17, IR 8" in done.out
    assert "pixels [batch, 64] -> logits [batch, 10]" in done.out
    assert "\nproved    on cpu: every layer within its bound on " in done.out
    assert "not proved" not in done.out


def test_build_with_named_weights_and_data_in_json(run: Run, root: Path, tmp_path: Path) -> None:
    folder = root / "models" / "digits"
    weights, data = folder / "weights.safetensors", folder / "heldout.parquet"
    done = run("build", folder / "spec.yaml", "--weights", weights, "--data", data, "-o", tmp_path, "--json")
    record = json.loads(done.out)
    assert done.code == 0
    assert record["proved"] is True
    assert record["summary"]["name"] == "digits"
    assert record["parity"]["verdict"] == "proved"
    assert record["parity"]["inputs"][0]["rows"] == 450
    assert record["parity"]["end_to_end"]["from_float64"] < 1e-4


def test_build_without_weights_or_seed(run: Run, spec: Path, tmp_path: Path) -> None:
    done = run("build", spec, "-o", tmp_path / "out")
    assert done.code == 2
    assert "weights.safetensors: no such file" in done.err
    assert "--seed" in done.err
    assert not (tmp_path / "out").exists()


def test_build_folds_when_asked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: two\ninput: {features: 3}\nblocks: [{linear: 4}, {linear: 2}]")
    plain = run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path)
    folded = run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path, "--fold-affine")
    assert "remark    linear '0' and linear '1' stand in a row" in plain.out
    assert "folded    linear '0', linear '1' folded into linear '1': 20 multiply-adds became 6" in folded.out


def test_a_difference_between_spec_and_weights_is_noted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: n\ninput: {features: 1}\nblocks: [{standardize: {mean: 1}}, {linear: 1}]")
    state = {"0.mean": [3.0], "0.std": [1.0], "1.weight": [[1.0]], "1.bias": [0.0]}
    torch.save({name: torch.tensor(value) for name, value in state.items()}, tmp_path / "w.pt")
    done = run("build", tmp_path / "s.yaml", "--weights", tmp_path / "w.pt", "-o", tmp_path)
    assert done.code == 0
    assert "note: " in done.err
    assert "0.mean differs from the spec's by up to 2" in done.err
    with Session(tmp_path / "n.onnx", "cpu") as session:
        assert session.predict([[3.0]]).tolist() == [[0.0]]


def test_build_publishes_nothing_that_could_not_be_run(run: Run, spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run("build", spec, "--seed", 1, "-o", folder, "--external-data").code == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    written = ["tiny.onnx", "tiny.onnx.data", "tiny.parity.html", "tiny.parity.json"]
    assert sorted(path.name for path in before) == written
    np.save(tmp_path / "wide.npy", np.zeros((3, 4), np.float32))
    done = run("build", spec, "--seed", 2, "-o", folder, "--data", tmp_path / "wide.npy")
    assert done.code == 2
    assert "(batch, 3)" in done.err
    assert run("build", spec, "--seed", 2, "-o", folder, "--device", "cuda:99").code == 3
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert run("build", spec, "--seed", 2, "-o", folder, "--external-data").code == 0
    assert (folder / "tiny.onnx.data").read_bytes() != before[folder / "tiny.onnx.data"]


def test_external_data_goes_beside_the_file_that_a_link_names(run: Run, spec: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run("build", spec, "--seed", 1, "-o", tmp_path / "a").code == 0
    (tmp_path / "b" / "tiny.onnx").symlink_to(tmp_path / "a" / "tiny.onnx")
    assert run("build", spec, "--seed", 2, "-o", tmp_path / "b", "--external-data").code == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["tiny.onnx"]
    for folder in "ab":
        with Session(tmp_path / folder / "tiny.onnx", "cpu") as session:
            assert session.predict([[0.0, 0.0, 0.0]]).shape == (1, 2)


def test_a_range_that_is_wide(run: Run, tmp_path: Path) -> None:
    text = "name: wide\ninput: {features: 2, range: [-3e38, 3e38]}\nblocks: [{linear: 2}, sigmoid]"
    (tmp_path / "s.yaml").write_text(text)
    assert run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path).code == 0
    (tmp_path / "s.yaml").write_text(text.replace("3e38]", "1e39]"))
    done = run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path)
    assert done.code == 2
    assert "both within float32" in done.err


def test_a_refusal_in_json(run: Run, digits: tuple[Path, Path], root: Path, tmp_path: Path) -> None:
    spec, folder = digits
    state = load_file(root / "models" / "digits" / "weights.safetensors")
    state["1.weight"][3, 4] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    done = run("build", spec, "--weights", tmp_path / "nan.safetensors", "-o", folder, "--json", "--no-html")
    record = json.loads(done.out)
    assert done.code == 1
    assert record["proved"] is False
    assert record["parity"]["verdict"] == "not proved"
    assert "first at [3, 4]" in record["why"]
    assert (folder / "digits.failed" / "digits.onnx").exists()
    assert run("build", spec, "-o", folder, "--no-html").code == 0
    assert not (folder / "digits.failed").exists()


def test_schema(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("schema").out) == json_schema()
    done = run("schema", "-o", tmp_path / "schema.json")
    assert done.code == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == json_schema()
    assert json.loads(run("schema", "-o", tmp_path / "s.json", "--json").out)["path"] == str(tmp_path / "s.json")


def test_export_a_hand_written_module(run: Run, nets: Path, tmp_path: Path) -> None:
    for name, seed in (("Net", ["--seed", 0]), ("ready", [])):
        reference, target = f"{nets}:{name}", tmp_path / f"{name}.onnx"
        done = run("export", reference, "-o", target, "--output-name", "y", *seed)
        assert done.code == 0
        assert "input [batch, 3] -> y [batch, 4]" in done.out
        assert "\nproved " in done.out
    done = run("export", f"{nets}:number", "-o", tmp_path / "n.onnx")
    assert done.code == 2
    assert "is a int; expected an nn.Module" in done.err
    done = run("export", f"{nets}:Nat", "-o", tmp_path / "n.onnx")
    assert done.code == 2
    assert "has no 'Nat'; it has" in done.err
    assert "Net" in done.err


def test_a_class_of_random_weights_wants_weights_or_a_seed(run: Run, nets: Path, tmp_path: Path) -> None:
    reference, target = f"{nets}:Net", tmp_path / "net.onnx"
    done = run("export", reference, "-o", target)
    assert done.code == 2
    assert "a new network with random weights at every call" in done.err
    assert "--seed 0" in done.err
    assert run("export", reference, "-o", target, "--seed", 7).code == 0
    random = target.read_bytes()
    torch.manual_seed(7)
    layer = nn.Linear(3, 4)
    trained = {"a.weight": layer.weight.detach(), "a.bias": layer.bias.detach()}
    torch.save(trained, tmp_path / "net.pth")
    assert run("export", reference, "-o", target, "--weights", tmp_path / "net.pth").code == 0
    assert target.read_bytes() == random
    done = run("verify", target, "--module", reference, "--weights", tmp_path / "net.pth")
    assert done.code == 0
    assert "\nmodule " in done.out


def test_another_method_and_whole_numbers(run: Run, nets: Path, tmp_path: Path) -> None:
    done = run("export", f"{nets}:ready", "-o", tmp_path / "act.onnx", "--method", "act")
    assert done.code == 0
    assert [n.op_type for n in onnx.load(tmp_path / "act.onnx").graph.node] == ["Gemm", "Tanh"]
    done = run("export", f"{nets}:table", "-o", tmp_path / "t.onnx", "--integers", "input", "--features", "3")
    assert done.code == 0, done.err
    assert "input [batch, 3]" in done.out
    with Session(tmp_path / "t.onnx", "cpu") as session:
        assert session.inputs[0].dtype == "int64"
        assert session.inputs[0].indices == ((0, 4),) * 3


def test_an_operator_that_no_file_has_is_named(run: Run, nets: Path, tmp_path: Path) -> None:
    done = run("export", f"{nets}:Odd", "-o", tmp_path / "odd.onnx", "--seed", 0)
    assert done.code == 2
    assert "a file has no operator for tan at line 17 of nets.py" in done.err
    assert not list(tmp_path.glob("odd*"))


def test_export_of_a_file_that_imports_its_neighbour(run: Run, tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_nets.py").write_text("width = 3")
    (tmp_path / "nets2.py").write_text(
        "from neighbour_of_nets import width\nfrom torch import nn\nnet = nn.Linear(width, 2)"
    )
    assert run("export", f"{tmp_path / 'nets2.py'}:net", "-o", tmp_path / "m.onnx").code == 0
    (tmp_path / "nets3.py").write_text("raise SystemExit(0)")
    done = run("export", f"{tmp_path / 'nets3.py'}:net", "-o", tmp_path / "n.onnx")
    assert done.code == 2
    assert "running it raised SystemExit" in done.err
