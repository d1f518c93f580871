"""``mlpx recover``: what it writes, what it refuses, and that nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from builder import RecoveryError, assemble, load_spec, load_weights
from export import publish, recover
from tests.support.commands import Run
from tests.support.onnx_drafts import Draft
from tests.support.spellings import S, W


def test_what_recover_writes_builds_again_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Linear(8, 2))
    torch.save({"model_state_dict": module.state_dict()}, tmp_path / "net.pt")
    options = ["--key", "model_state_dict", "--activation", "elu", "--output-activation", "tanh", "--name", "arm"]
    done = run("recover", tmp_path / "net.pt", "-o", tmp_path / "a", *options, "--json")
    record = json.loads(done.out)
    assert done.code == 0
    assert record["path"] is None
    assert record["spec"]["name"] == "arm"
    assert run("build", tmp_path / "a" / "spec.yaml", "-o", tmp_path / "b", "--no-html").code == 0
    built = tmp_path / "b" / "arm.onnx"
    again = json.loads(run("recover", built, "-o", tmp_path / "c", "--json", "--no-html").out)
    assert again["proved"]
    assert again["parity"]["verdict"] == again["original"]["verdict"] == "proved"
    spec = load_spec(tmp_path / "a" / "spec.yaml")
    assert [block.kind for block in spec.blocks] == ["linear", "batch_norm", "elu", "linear", "tanh"]
    loaded = assemble(spec)
    load_weights(loaded, tmp_path / "a" / "weights.safetensors")
    with torch.no_grad():
        x = torch.randn(3, 4)
        assert torch.equal(loaded.eval()(x), torch.tanh(module.eval()(x)))


def test_options_of_the_other_kind_of_file_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "m.pt")
    with pytest.raises(RecoveryError, match="--keep-shape is for ONNX files"):
        recover(tmp_path / "m.pt", tmp_path / "o", keep_shape=True)
    publish(nn.Linear(3, 2), tmp_path / "m.onnx", device="cpu", page=False)
    with pytest.raises(RecoveryError, match=r"an ONNX file defines its layers itself.*leave out --activation"):
        recover(tmp_path / "m.onnx", tmp_path / "o", activation="relu")
    assert not (tmp_path / "o").exists()


class Payload:
    """What a pickle runs when it is loaded: it would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".onnx", ".safetensors", ""])
def test_code_in_a_file_is_never_run(suffix: str, run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    torch.save({"state_dict": Payload(trace)}, tmp_path / f"evil{suffix}")
    done = run("recover", tmp_path / f"evil{suffix}", "-o", tmp_path / "o", "--activation", "relu")
    assert done.code == 2
    assert not trace.exists()
    assert not (tmp_path / "o").exists()


def test_a_quantised_file_is_said_to_be_one(run: Run, tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4] x) => (float[1, 4] y)
        <float s = {0.1}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }""")
    onnx.save(model, str(tmp_path / "q.onnx"))
    done = run("recover", tmp_path / "q.onnx", "-o", tmp_path / "o")
    assert done.code == 2
    assert "quantised" in done.err
    assert "QuantizeLinear" in done.err


def test_recover_does_not_overwrite_what_it_reads(run: Run, tmp_path: Path) -> None:
    publish(nn.Linear(3, 2), tmp_path / "net.onnx", device="cpu", page=False)
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "weights.safetensors")
    for name in ("net.onnx", "weights.safetensors"):
        before = (tmp_path / name).read_bytes()
        done = run("recover", tmp_path / name, "-o", tmp_path)
        assert done.code == 2
        assert "would be overwritten" in done.err
        assert (tmp_path / name).read_bytes() == before
        assert not (tmp_path / "spec.yaml").exists()


def test_a_spec_that_somebody_completed_is_kept(run: Run, tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "net.pt")
    assert run("recover", tmp_path / "net.pt", "-o", tmp_path / "o").code == 0
    assert run("recover", tmp_path / "net.pt", "-o", tmp_path / "o").code == 0  # the same again
    spec = tmp_path / "o" / "spec.yaml"
    spec.write_text(spec.read_text() + "# mine\n")
    done = run("recover", tmp_path / "net.pt", "-o", tmp_path / "o")
    assert done.code == 2
    assert "--replace" in done.err
    assert "# mine" in spec.read_text()
    assert run("recover", tmp_path / "net.pt", "-o", tmp_path / "o", "--replace").code == 0
    assert "# mine" not in spec.read_text()


def test_weights_that_are_there_are_kept(run: Run, tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save(nn.Linear(3, 2).state_dict(), tmp_path / name)
    assert run("recover", tmp_path / "a.pt", "-o", tmp_path / "o", "--name", "net").code == 0
    before = (tmp_path / "o" / "weights.safetensors").read_bytes()
    done = run("recover", tmp_path / "b.pt", "-o", tmp_path / "o", "--name", "net")
    assert done.code == 2
    assert "holds other weights" in done.err
    assert (tmp_path / "o" / "weights.safetensors").read_bytes() == before
    assert run("recover", tmp_path / "b.pt", "-o", tmp_path / "o", "--name", "net", "--replace").code == 0


def test_tensors_that_share_their_memory(run: Run, tmp_path: Path) -> None:
    values = torch.randn(75)
    state = {"0.weight": values[:50].view(10, 5), "2.weight": values[25:75].view(10, 5).t()}
    torch.save(state, tmp_path / "net.pt")
    assert run("recover", tmp_path / "net.pt", "-o", tmp_path / "o", "--activation", "relu").code == 0
    held = load_file(tmp_path / "o" / "weights.safetensors")
    assert all(torch.equal(held[key], value) for key, value in state.items())


def test_numpy_numbers_beside_the_tensors_are_no_code(run: Run, tmp_path: Path) -> None:
    saved = {"model": nn.Linear(3, 2).state_dict(), "reward": np.float64(3.5), "history": np.arange(3.0)}
    torch.save(saved, tmp_path / "net.pt")
    assert run("recover", tmp_path / "net.pt", "-o", tmp_path / "o").code == 0


def test_a_layer_with_weights_that_is_not_read_is_never_left_out(tmp_path: Path) -> None:
    state = {"0.weight": torch.randn(8, 4), "1.weight": torch.randn(8), "3.weight": torch.randn(2, 8)}  # an RMSNorm
    torch.save(state, tmp_path / "net.pt")
    for prefix in ((), ("0.", "3.")):
        with pytest.raises(RecoveryError, match=r"1\.weight \[8\]"):
            recover(tmp_path / "net.pt", tmp_path / "o", prefix=prefix, activation="silu")


def test_the_command_that_the_note_on_a_normaliser_gives_works(run: Run, tmp_path: Path) -> None:
    normaliser = {"_mean": torch.zeros(1, 4), "_std": torch.ones(1, 4), "_var": torch.ones(1, 4)}
    actor = {f"actor.{key}": value for key, value in nn.Linear(4, 2).state_dict().items()}
    torch.save({"model_state_dict": actor, "obs_norm_state_dict": normaliser}, tmp_path / "net.pt")
    done = run("recover", tmp_path / "net.pt", "-o", tmp_path / "o", "--prefix", "actor.")
    note = next(line for line in done.err.splitlines() if "NORMALISER LEFT OUT" in line)
    options = note.rpartition("put it in front: ")[2].split()
    again = run("recover", tmp_path / "net.pt", "-o", tmp_path / "p", *options, "--epsilon", "0")
    assert again.code == 0, again.err
    assert "standardize" in again.out


@pytest.mark.parametrize("name", ["rows.npy", "notes.txt", "empty", "pickle.pkl"])
def test_what_is_no_network_is_said_to_be_none(name: str, run: Run, tmp_path: Path) -> None:
    content = {"rows.npy": b"\x93NUMPY\x01\x00", "notes.txt": b"dear diary", "empty": b"", "pickle.pkl": b"\x80\x04N."}
    (tmp_path / name).write_bytes(content[name])
    done = run("recover", tmp_path / name, "-o", tmp_path / "o", "--activation", "relu")
    assert done.code == 2
    assert "ONNX file defines" not in done.err
    assert not (tmp_path / "o").exists()


def test_a_file_of_one_row_without_a_batch_gets_one(run: Run, tmp_path: Path) -> None:
    draft = Draft(17, dims=(6,))
    done = run("recover", draft.save(tmp_path / "m.onnx", draft("Relu", "x")), "-o", tmp_path / "o")
    assert done.code == 0, done.err
    assert "one row without a batch" in done.err
    assert "signature x [batch, 6] -> v0 [batch, 6]" in done.out


def test_an_unknown_device_is_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "net.pt")
    assert run("recover", tmp_path / "net.pt", "-o", tmp_path / "o", "--device", "tpu").code in (2, 3)
    assert not (tmp_path / "o").exists()


def test_a_normaliser_that_a_file_computes_of_constants(tmp_path: Path) -> None:
    draft = Draft(13)
    std = draft("Sqrt", draft("Clip", draft("Add", np.full(6, 0.3, S), S(1e-2)), S(1e-6), S(1e6)))
    path = draft.save(tmp_path / "m.onnx", draft("MatMul", draft("Div", draft("Sub", "x", np.ones(6, S)), std), W))
    recovery = recover(path, tmp_path / "o", device="cpu", page=False)
    assert [block.kind for block in recovery.spec.blocks] == ["standardize", "linear"]
