"""Loading weights safely and completely."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from builder import MLPSpec, WeightsError, WeightsWarning, assemble, load_weights
from tests.support.cases import network


def small() -> nn.Sequential:
    return assemble(MLPSpec(name="w", input={"features": 3}, blocks=[{"linear": 4}, "relu", {"linear": 2}]), seed=1)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "old torch"])
def test_both_formats_give_the_same_weights(kind: str, tmp_path: Path) -> None:
    _, trained = network([{"linear": 4}, "batch_norm", "standardize", "scale"], seed=3)
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file(trained.state_dict(), path)
    else:
        torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=kind == "torch")
    _, fresh = network([{"linear": 4}, "batch_norm", "standardize", "scale"], seed=4)
    load_weights(fresh, path)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_missing_surplus_and_misshapen_tensors_are_listed_together(tmp_path: Path) -> None:
    state = small().state_dict()
    del state["0.bias"]
    state["2.weight"] = torch.zeros(2, 5)
    state["extra"] = torch.zeros(7)
    save_file(state, tmp_path / "w.safetensors")
    module = small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(module, tmp_path / "w.safetensors")
    said = str(caught.value)
    assert "0.bias: missing; the module has [4]" in said
    assert "2.weight: the file has [2, 5], the module [2, 4]" in said
    assert "extra: surplus; the file has [7]" in said
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class _Payload:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("protocol", ["zip", "plain"])
def test_a_pickle_with_code_is_refused_and_not_run(protocol: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pt"
    payload = {"0.weight": _Payload(marker)}
    if protocol == "zip":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload, protocol=2))
    with pytest.raises(WeightsError, match=r"nothing was run|damaged"):
        load_weights(small(), path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("keep", [0, 1, 8, 100, 0.5, 0.99])
def test_truncated_files(kind: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_file(small().state_dict(), path) if kind == "safetensors" else torch.save(small().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(WeightsError, match=str(path)):
        load_weights(small(), path)


def test_a_checkpoint_that_is_not_a_state_dict_names_what_it_holds(tmp_path: Path) -> None:
    torch.save({"model_state_dict": small().state_dict(), "epoch": 3}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match="model_state_dict, epoch"):
        load_weights(small(), tmp_path / "c.pt")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        load_weights(small(), tmp_path / "nothing.pt")


def test_other_dtypes_are_converted_only_where_no_value_changes(tmp_path: Path) -> None:
    state = small().state_dict()
    halved = {name: value.half() for name, value in state.items()}
    save_file(halved, tmp_path / "half")
    module = small()
    load_weights(module, tmp_path / "half")
    assert torch.equal(module.get_parameter("0.weight"), halved["0.weight"].float())
    save_file({name: value.double() + 1e-12 for name, value in state.items()}, tmp_path / "double")
    with pytest.raises(WeightsError, match=r"float64.*float32.*--dtype float32"):
        load_weights(module, tmp_path / "double")
    load_weights(module, tmp_path / "double", dtype="float32")
    assert torch.allclose(module.get_parameter("0.weight"), state["0.weight"])


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_values_beyond_float32_are_refused(dtype: str | None, tmp_path: Path) -> None:
    state = {name: value.double() for name, value in small().state_dict().items()}
    state["2.bias"][0] = 1e300
    save_file(state, tmp_path / "w")
    with pytest.raises(WeightsError, match=r"2\.bias has values that torch.float32 cannot hold"):
        load_weights(small(), tmp_path / "w", dtype=dtype)


def test_tensors_that_are_not_dense_real_numbers_are_refused_before_any_is_loaded(tmp_path: Path) -> None:
    for odd in (torch.ones(2, 4).to_sparse(), torch.ones(2, 4, dtype=torch.complex64), torch.ones(2, 4, device="meta")):
        state = {name: torch.zeros_like(value) for name, value in small().state_dict().items()} | {"2.weight": odd}
        torch.save(state, tmp_path / "w.pt")
        module = small()
        with pytest.raises(WeightsError, match=r"2\.weight is .*a dense tensor of real numbers is expected"):
            load_weights(module, tmp_path / "w.pt", dtype="float32")
        assert module.get_parameter("0.bias").abs().sum() > 0


def test_a_header_that_looks_like_a_pickle_is_still_safetensors(tmp_path: Path) -> None:
    """The first bytes of a safetensors file are its header's length; 0x280 is how old pickles begin."""
    state = small().state_dict()
    for padding in range(1000):
        save_file(state, tmp_path / "w.bin", metadata={"pad": "x" * padding})
        if (tmp_path / "w.bin").read_bytes()[:2] == b"\x80\x02":
            break
    else:
        raise AssertionError("no header of that length")
    module = small()
    load_weights(module, tmp_path / "w.bin")
    assert torch.equal(module.get_parameter("0.weight"), state["0.weight"])


def test_names_of_one_tensor_must_agree(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module[2].weight = module[0].weight
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"0\.weight and 2\.weight are one tensor in the module, and differ"):
        load_weights(module, tmp_path / "w.pt")
    state["2.weight"] = state["0.weight"]
    torch.save(state, tmp_path / "w.pt")
    load_weights(module, tmp_path / "w.pt")


def test_integers_that_float32_cannot_hold(tmp_path: Path) -> None:
    for value, fits in ((2**24, True), (2**24 + 1, False), (2**53 + 1, False)):
        state = {name: torch.ones_like(v, dtype=torch.int64) for name, v in small().state_dict().items()}
        state["2.bias"][0] = value
        save_file(state, tmp_path / "w")
        if fits:
            load_weights(small(), tmp_path / "w")
        else:
            with pytest.raises(WeightsError, match="would change values"):
                load_weights(small(), tmp_path / "w")


def test_a_module_without_memory_is_refused(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "w")
    with pytest.raises(WeightsError, match=r"meta device.*to_empty"):
        load_weights(small().to("meta"), tmp_path / "w")
    with pytest.raises(WeightsError, match="dtype is 'float32' or left out"):
        load_weights(small(), tmp_path / "w", dtype="float64")


def test_the_files_constants_win_over_the_specs_and_the_difference_is_said(tmp_path: Path) -> None:
    spec = MLPSpec(name="w", input={"features": 3}, blocks=[{"standardize": {"mean": 1.0}}, {"linear": 2}])
    trained = assemble(spec)
    save_file(trained.state_dict(), tmp_path / "same")
    trained.get_buffer("0.mean").fill_(1.25)
    trained.get_buffer("0.std").fill_(2.0)
    save_file(trained.state_dict(), tmp_path / "other")
    fresh = assemble(spec)
    load_weights(fresh, tmp_path / "same")  # a warning would be an error here
    with pytest.warns(WeightsWarning, match=r"0\.mean differs from the spec's by up to 0\.25") as said:
        load_weights(fresh, tmp_path / "other")
    assert len(said) == 1  # the spec did not give a std
    assert fresh.get_buffer("0.mean").tolist() == [1.25] * 3
    assert fresh.get_buffer("0.std").tolist() == [2.0] * 3


def test_constants_that_the_spec_gives_may_be_missing_in_the_file(tmp_path: Path) -> None:
    """A block appended to the spec of a recovered checkpoint, such as an action scale."""
    spec = MLPSpec(name="arm", input={"features": 3}, blocks=[{"linear": 2}, {"scale": {"factor": 0.25, "offset": 1}}])
    module = assemble(spec)
    state = {key: torch.full_like(value, 2.0) for key, value in module.state_dict().items() if key.startswith("0.")}
    torch.save(state, tmp_path / "weights.pt")
    load_weights(module, tmp_path / "weights.pt")
    assert module.state_dict()["1.factor"].tolist() == [0.25, 0.25]
    assert module.get_parameter("0.bias").tolist() == [2.0, 2.0]
    half = MLPSpec(name="arm", input={"features": 3}, blocks=[{"linear": 2}, {"scale": {"factor": 0.25}}])
    with pytest.raises(WeightsError, match=r"1.offset: missing"):
        load_weights(assemble(half), tmp_path / "weights.pt")
