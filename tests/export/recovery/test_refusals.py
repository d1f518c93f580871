"""Files from which no dense network can be read: one clear error each, and nothing run or allocated."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from builder import RecoveryError
from export import read_checkpoint
from tests.support.outcomes import outcome


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        read_checkpoint(path, **{"activation": "relu", **options})
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def refused_state(directory: Path, saved: Any, **options: Any) -> str:
    torch.save(saved, directory / "c.pt")
    return refused(directory / "c.pt", **options)


def _dense_beside(other: nn.Module) -> dict[str, torch.Tensor]:
    return nn.ModuleDict({"first": other, "head": nn.Linear(8, 2)}).state_dict()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Conv2d(1, 8, 3), r"first\.weight .* is a 2-D convolution"),
        (lambda: nn.Conv1d(1, 8, 3), r"first\.weight .* is a 1-D convolution"),
        (lambda: nn.LSTM(4, 8), r"first\.weight_ih_l0 .* is a recurrent cell"),
        (lambda: nn.GRUCell(4, 8), r"first\.weight_ih .* is a recurrent cell"),
        (lambda: nn.MultiheadAttention(8, 2), r"first\.in_proj_weight .* is attention"),
        (lambda: nn.Embedding(10, 4), "Embedding"),
        (lambda: nn.PReLU(), r"first\.weight \[1\] is .*PReLU"),
        (lambda: nn.RMSNorm(8), r"first\.weight \[8\] is .*RMSNorm"),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)), "remove_parametrizations"),
        (lambda: nn.Bilinear(4, 4, 8), "convolution|3 dimensions"),
    ],
)
def test_other_networks_are_refused_by_name(make: Callable[[], nn.Module], words: str, tmp_path: Path) -> None:
    torch.save(_dense_beside(make()), tmp_path / "c.pt")
    with pytest.raises(RecoveryError, match=words):
        read_checkpoint(tmp_path / "c.pt", activation="relu")


def test_a_dense_head_beside_another_network_can_be_named(tmp_path: Path) -> None:
    torch.save(_dense_beside(nn.Conv2d(1, 8, 3)), tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt", prefix=["head."])
    assert found.spec.input.features == 8
    assert any("first." in note for note in found.notes)
    assert "convolution" in refused(tmp_path / "c.pt", prefix=["first.", "head."])


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch is about to drop them; files with them remain
        weight = torch.quantize_per_tensor(torch.ones(2, 4), 0.1, 0, torch.qint8)
    assert "0.weight [2, 4] is quantised" in refused_state(tmp_path, {"0.weight": weight})


def test_tensors_that_are_not_dense_real_numbers_are_refused(tmp_path: Path) -> None:
    for odd in (torch.ones(2, 8).to_sparse(), torch.ones(2, 8, dtype=torch.complex64), torch.ones(2, 8, device="meta")):
        assert "a dense tensor of real numbers" in refused_state(tmp_path, network().state_dict() | {"2.weight": odd})


def test_shapes_that_do_not_chain_name_both_layers(tmp_path: Path) -> None:
    state = network().state_dict() | {"2.weight": torch.zeros(2, 9)}
    assert "0 gives 8 features, and 2 (linear) expects 9" in refused_state(tmp_path, state)
    assert "0 gives 8 features, and 2 (linear) expects 9" in refused_state(tmp_path, state, prefix=[""])


def test_other_dtypes_are_converted_only_where_no_value_changes(tmp_path: Path) -> None:
    original = network()
    for dtype in (torch.float16, torch.bfloat16):
        torch.save({key: value.to(dtype) for key, value in original.state_dict().items()}, tmp_path / "half.pt")
        found = read_checkpoint(tmp_path / "half.pt", activation="relu")
        assert torch.equal(found.weights["0.weight"], original.get_parameter("0.weight").to(dtype).float())
    double = {key: value.double() + 1e-12 for key, value in original.state_dict().items()}
    assert "--dtype float32" in refused_state(tmp_path, double)
    found = read_checkpoint(tmp_path / "c.pt", activation="relu", dtype="float32")
    assert found.weights["0.weight"].dtype == torch.float32


def test_a_std_that_cannot_be_divided_by_is_refused(tmp_path: Path) -> None:
    saved = {"norm.mean": torch.zeros(4), "norm.std": torch.tensor([1.0, 0.0, 1.0, 1.0])}
    saved |= {f"net.{key}": value for key, value in network().state_dict().items()}
    assert "std of feature 1 is 0.0" in refused_state(tmp_path, saved)
    found = read_checkpoint(tmp_path / "c.pt", activation="relu", epsilon=0.5)
    assert found.weights["0.std"].tolist() == [1.5, 0.5, 1.5, 1.5]


class _Payload:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("protocol", ["zip", "plain"])
def test_a_pickle_with_code_is_refused_and_not_run(protocol: str, trust: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pt"
    payload = {"0.weight": _Payload(marker)}
    torch.save(payload, path) if protocol == "zip" else path.write_bytes(pickle.dumps(payload, protocol=2))
    said = refused(path, trust=trust)
    assert "nothing was run" in said or "damaged" in said
    assert not marker.exists()


def _rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes], compression: int = 0) -> None:
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", compression) as out:
        for entry in archive.infolist():
            out.writestr(entry.filename, change(entry.filename, archive.read(entry)))


def test_an_archive_that_would_unpack_to_far_more_is_refused(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "c.pt")
    large = bytes(64 << 20)
    swell = lambda name, content: large if name.endswith("data/0") else content  # noqa: E731
    _rewritten(tmp_path / "c.pt", tmp_path / "bomb.pt", swell, zipfile.ZIP_DEFLATED)
    assert "refused: an archive of" in refused(tmp_path / "bomb.pt")


def test_a_record_that_is_shorter_than_its_tensor_is_refused(tmp_path: Path) -> None:
    torch.save(network().state_dict() | {"large": torch.zeros(100)}, tmp_path / "c.pt")
    cut = lambda name, content: content[:8] if name.endswith("data/0") else content  # noqa: E731
    _rewritten(tmp_path / "c.pt", tmp_path / "cut.pt", cut)
    assert "damaged" in refused(tmp_path / "cut.pt")


def test_a_changed_bit_is_noticed(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "c.pt")
    content = bytearray((tmp_path / "c.pt").read_bytes())
    content[content.index(network_bytes(tmp_path / "c.pt"))] ^= 1
    (tmp_path / "c.pt").write_bytes(content)
    assert "checksum" in refused(tmp_path / "c.pt")


def network_bytes(path: Path) -> bytes:
    return torch.load(path, weights_only=True)["0.weight"].numpy().tobytes()


def test_a_few_bytes_with_an_absurd_shape_are_refused(tmp_path: Path) -> None:
    vast = torch.zeros(1).expand(1_000_000, 1_000_000)
    assert "needs more bytes than it has in the file" in refused_state(tmp_path, {"0.weight": vast})
    old = tmp_path / "old.pt"
    torch.save({"0.weight": vast}, old, _use_new_zipfile_serialization=False)
    assert "needs more bytes than it has in the file" in refused(old)
    header = json.dumps({"0.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}})
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(16))
    refused(tmp_path / "w.safetensors")
    (tmp_path / "long.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{")
    refused(tmp_path / "long.safetensors")


def test_many_layers_that_share_a_few_bytes_are_refused(tmp_path: Path) -> None:
    weight = torch.zeros(64, 64)
    saved = {f"{index}.weight": weight for index in range(0, 400, 2)}
    assert "share" in refused_state(tmp_path, saved)


def test_containers_within_themselves_and_very_deep_names_end(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"model": network().state_dict()}
    loop["again"] = [loop, loop]
    torch.save(loop, tmp_path / "c.pt")
    assert read_checkpoint(tmp_path / "c.pt", activation="relu").spec.input.features == 4
    assert "nested deeper" in refused_state(tmp_path, {"a." * 5000 + "weight": torch.ones(2, 2)})
    assert "\n" not in refused_state(tmp_path, {"a": 1, "b": [2]})
    torch.save(network().state_dict() | {"9" * 5000 + ".scalar": torch.ones(1)}, tmp_path / "c.pt")
    assert read_checkpoint(tmp_path / "c.pt", activation="relu").spec.input.features == 4


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    for name, content in {
        "empty": b"",
        "text": b"hello, world\n" * 9,
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "pickle": pickle.dumps({"a": 1}),
        "zip": b"PK\x03\x04" + bytes(99),
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    refused(tmp_path / "nothing")
    refused(tmp_path)
    with zipfile.ZipFile(tmp_path / "sb3.zip", "w") as archive:
        archive.writestr("policy.pth", b"")
    assert "unzip sb3.zip policy.pth" in refused(tmp_path / "sb3.zip")
    refused_state(tmp_path, torch.ones(2, 2))
    refused_state(tmp_path, torch.optim.Adam(network().parameters()).state_dict())


def test_parameters_that_code_uses_in_a_way_of_its_own_are_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    assert "norm.scale [8] is one number per feature" in refused_state(tmp_path, state | {"norm.scale": torch.ones(8)})
    assert "table [8, 8] is" in refused_state(tmp_path, state | {"table": torch.ones(8, 8)})


def test_a_normaliser_that_fits_the_input_and_the_output_is_not_placed(tmp_path: Path) -> None:
    state = {f"net.{key}": value for key, value in nn.Linear(4, 4).state_dict().items()}
    state |= {"scaler.mean": torch.zeros(4), "scaler.std": torch.ones(4)}
    assert "not clear where a normaliser or a scale belongs" in refused_state(tmp_path, state, activation=None)
    found = read_checkpoint(tmp_path / "c.pt", prefix=["net.", "scaler."])
    assert [block.kind for block in found.spec.blocks] == ["linear", "standardize"]


def test_two_normalisers_in_one_module_are_told_apart(tmp_path: Path) -> None:
    state = {"obs_mean": torch.zeros(4), "obs_std": torch.ones(4), "state_mean": torch.ones(4)}
    state |= {"state_std": torch.ones(4), "net.weight": torch.ones(2, 4)}
    torch.save(state, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt", prefix=["obs_", "state_", "net."])
    assert [block.kind for block in found.spec.blocks] == ["standardize", "standardize", "linear"]
    assert found.weights["0.mean"].tolist() == [0.0] * 4
    assert found.weights["1.mean"].tolist() == [1.0] * 4
    assert "another --prefix selects" in refused(tmp_path / "c.pt", activation=None, prefix=["obs_", "obs_", "net."])


def test_a_normaliser_whose_tensors_differ_in_size_is_refused(tmp_path: Path) -> None:
    state = {"n.mean": torch.zeros(4), "n.std": torch.ones(4), "n.var": torch.ones(8), "net.weight": torch.ones(2, 8)}
    assert "[2, 4] is expected" in refused_state(tmp_path, state, activation=None, prefix=["n.", "net."])


def test_a_residual_connection_that_names_speak_of_is_mentioned(tmp_path: Path) -> None:
    torch.save({f"res_block.{key}": value for key, value in network().state_dict().items()}, tmp_path / "c.pt")
    assert any("residual connection" in note for note in read_checkpoint(tmp_path / "c.pt", activation="relu").notes)


def test_options_that_name_nothing(tmp_path: Path) -> None:
    state = {"model": network().state_dict()}
    assert "--key other" in refused_state(tmp_path, state, key="other")
    assert "--prefix actor." in refused_state(tmp_path, state, prefix=["actor."])
    assert "another --prefix selects" in refused_state(tmp_path, state, prefix=["0.", ""])
    assert "the parts do not chain" in refused_state(tmp_path, state, prefix=["2.", "0."])
    assert "--epsilon" in refused_state(tmp_path, state, epsilon=1e-3)
    assert "--dropout 2" in refused_state(tmp_path, state, dropout=2)
    assert "dtype" in refused_state(tmp_path, state, dtype="float16")
    assert "input" in refused_state(tmp_path, state, output_name="input")
    assert "string" in refused_state(tmp_path, state, name="no/name")


def _files() -> dict[str, bytes]:
    import io

    files = {"safetensors": save(network().state_dict())}
    for kind, new in (("zip", True), ("plain", False)):
        buffer = io.BytesIO()
        torch.save({"model": network().state_dict()}, buffer, _use_new_zipfile_serialization=new)
        files[kind] = buffer.getvalue()
    return files


FILES = _files()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(FILES)), data=st.data())
def test_damaged_files_give_a_network_or_one_error(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        if not content:
            break
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            del content[at : at + data.draw(st.integers(1, 400))]
    path = tmp_path / "damaged"
    path.write_bytes(content)
    found = outcome(RecoveryError, read_checkpoint, path, activation="relu")
    assert not isinstance(found, RecoveryError) or str(found).startswith(str(path))


def test_safetensors_is_read_as_torch_files_are(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    assert "several" not in str(read_checkpoint(tmp_path / "w.safetensors", activation="relu").notes)
