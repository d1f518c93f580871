"""Checkpoints in the layouts that training code writes: read back, assembled, and compared with the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from builder import RecoveryError, assemble
from export import read_checkpoint
from tests.support.recovering import agree, kinds, mlp, named, randomised, real_network, recovered, said


class Normaliser(nn.Module):
    """rsl_rl's EmpiricalNormalization in evaluation."""

    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("_mean", torch.zeros(1, width))
        self.register_buffer("_var", torch.ones(1, width))
        self.register_buffer("_std", torch.ones(1, width))
        self.register_buffer("count", torch.tensor(0, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self._mean) / (self._std + 1e-2)


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.std = nn.Parameter(torch.ones(12))
        self.actor, self.critic = mlp(48, 32, 16, 12), mlp(48, 32, 1)
        self.actor_obs_normalizer = Normaliser(48)


@pytest.mark.parametrize("name", ["", "model.", "net.layers.", "module.", "_orig_mod.", "module._orig_mod.actor."])
@pytest.mark.parametrize("nest", [[], ["state_dict"], ["a", "b"]])
def test_one_sequential_is_found_by_itself(name: str, nest: list[str], tmp_path: Path) -> None:
    original = mlp(5, 16, 8, 3)
    saved: Any = {name + key: value for key, value in original.state_dict().items()}
    for key in nest:
        saved = {key: saved, "epoch": 3, "hyper_parameters": {"lr": 1e-3}}
    found = recovered(tmp_path, saved, activation="ELU")
    assert kinds(found) == ["linear", "elu", "linear", "elu", "linear"]
    assert any("no activation after the output" in note for note in found.notes)
    assert bool(nest) == any("--key" in note for note in found.notes)
    agree(found, original)


def test_rsl_rl(tmp_path: Path) -> None:
    model = randomised(ActorCritic())
    saved = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": torch.optim.Adam(model.parameters()).state_dict(),
        "iter": 3,
        "infos": None,
    }
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, saved, activation="elu")
    said(caught, "--prefix actor.  48 -> 32 -> 16 -> 12", "--prefix critic.  48 -> 32 -> 1", "actor_obs_normalizer.")
    alone = recovered(tmp_path, saved, prefix=["actor."], activation="elu")
    agree(alone, model.actor)
    assert any("NORMALISER LEFT OUT" in note and "actor_obs_normalizer" in note for note in alone.notes)
    assert any("critic. (4 tensors)" in note and "std" in note for note in alone.notes)
    parts = ["actor_obs_normalizer.", "actor"]
    with pytest.raises(RecoveryError, match=r"rsl_rl adds 1e-2.*--epsilon"):
        recovered(tmp_path, saved, prefix=parts, activation="elu")
    whole = recovered(tmp_path, saved, prefix=parts, activation="elu", epsilon=1e-2, output_activation="none")
    agree(whole, nn.Sequential(model.actor_obs_normalizer, model.actor))
    assert not any("LEFT OUT" in note or "after the output" in note for note in whole.notes)


def test_rsl_rl_with_the_normaliser_in_a_state_dict_of_its_own(tmp_path: Path) -> None:
    model = randomised(ActorCritic())
    saved = {"model_state_dict": {k: v for k, v in model.state_dict().items() if "obs" not in k}}
    saved["obs_norm_state_dict"] = model.get_submodule("actor_obs_normalizer").state_dict()
    prefix = ["obs_norm_state_dict.", "model_state_dict.actor."]
    agree(
        recovered(tmp_path, saved, prefix=prefix, activation="elu", epsilon=0.01),
        nn.Sequential(model.actor_obs_normalizer, model.actor),
    )
    alone = recovered(tmp_path, saved, prefix=["actor."], activation="elu")
    assert any("NORMALISER LEFT OUT: obs_norm_state_dict" in note for note in alone.notes)


def test_rl_games(tmp_path: Path) -> None:
    trunk, mu = mlp(6, 16, 8), nn.Linear(8, 2)
    mean, var = torch.randn(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    network = {f"a2c_network.actor_mlp.{key}": value for key, value in trunk.state_dict().items()}
    network |= {f"a2c_network.mu.{key}": value for key, value in mu.state_dict().items()}
    network |= {f"a2c_network.value.{key}": value for key, value in nn.Linear(8, 1).state_dict().items()}
    network |= {"a2c_network.sigma": torch.zeros(2), "running_mean_std.running_mean": mean}
    network |= {"running_mean_std.running_var": var, "running_mean_std.count": torch.tensor(9.0)}
    options: dict[str, Any] = {"activations": ["clip:-5:5", "elu", "elu"], "epsilon": 1e-5}
    options["prefix"] = ["running_mean_std.", "a2c_network.actor_mlp.", "a2c_network.mu."]
    with pytest.raises(RecoveryError, match=r"float64.*--dtype float32"):
        recovered(tmp_path, {"model": network}, **options)
    found = recovered(tmp_path, {"model": network}, dtype="float32", **options)
    assert kinds(found) == ["standardize", "clip", "linear", "elu", "linear", "elu", "linear"]

    def original(x: torch.Tensor) -> torch.Tensor:
        normal = (x - mean.float()) / torch.sqrt(var.float() + 1e-5)
        return mu(nn.functional.elu(trunk(normal.clamp(-5, 5))))

    agree(found, original)


def test_stable_baselines(tmp_path: Path) -> None:
    policy, value = mlp(4, 64, 64, act=nn.Tanh), mlp(4, 64, 64, act=nn.Tanh)
    action, critic = nn.Linear(64, 2), nn.Linear(64, 1)
    parts = {"mlp_extractor.policy_net": policy, "mlp_extractor.value_net": value}
    saved = {"log_std": torch.zeros(2)} | named(parts | {"action_net": action, "value_net": critic})
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, saved, activation="tanh")
    said(caught, "--prefix mlp_extractor.policy_net. --prefix action_net.", "--prefix value_net.  64 -> 1")
    with pytest.raises(RecoveryError, match=r"value_net\.0 \(linear\) expects 4"):
        recovered(tmp_path, saved, prefix=["mlp_extractor."], activation="tanh")
    found = recovered(tmp_path, saved, prefix=["mlp_extractor.policy_net.", "action_net."], activation="tanh")
    agree(found, nn.Sequential(policy, nn.Tanh(), action))


def test_skrl(tmp_path: Path) -> None:
    net, head = mlp(4, 16, 8), nn.Linear(8, 2)
    statistics = {"running_mean": torch.randn(4), "running_variance": torch.rand(4), "current_count": torch.ones(())}
    policy = {"log_std_parameter": torch.zeros(2)} | named({"net_container": net, "policy_layer": head})
    saved = {"policy": policy, "value": mlp(4, 8, 1).state_dict(), "state_preprocessor": statistics}
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, saved, activation="elu")
    said(caught, "--key policy  4 -> 16 -> 8 -> 2", "--key value  4 -> 8 -> 1")
    found = recovered(tmp_path, saved, key="policy", activation="elu")
    agree(found, nn.Sequential(net, nn.ELU(), head))
    assert any("NORMALISER LEFT OUT: state_preprocessor" in note for note in found.notes)
    prefix = ["state_preprocessor.", "policy."]
    whole = recovered(tmp_path, saved, prefix=prefix, activation="elu", epsilon=1e-8)
    mean, std = statistics["running_mean"], torch.sqrt(statistics["running_variance"]) + 1e-8
    agree(whole, lambda x: head(nn.functional.elu(net((x - mean) / std))))


def test_cleanrl(tmp_path: Path) -> None:
    layers = {"fc1": nn.Linear(5, 16), "fc2": nn.Linear(16, 16), "fc_mean": nn.Linear(16, 2)}
    scale = {"action_scale": torch.rand(1, 2), "action_bias": torch.rand(1, 2)}
    both = scale | named(layers | {"fc_logstd": nn.Linear(16, 2)})
    options: dict[str, Any] = {"activation": "relu", "output_activation": "tanh"}
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, both, **options)
    said(caught, "--prefix fc_mean.  16 -> 2", "--prefix fc_logstd.  16 -> 2", "action_scale")
    relu = nn.ReLU()
    trunk = nn.Sequential(layers["fc1"], relu, layers["fc2"], relu, layers["fc_mean"], nn.Tanh())
    found = recovered(tmp_path, both, prefix=["fc1.", "fc2.", "fc_mean.", "action_"], **options)
    agree(found, lambda x: trunk(x) * scale["action_scale"] + scale["action_bias"])
    agree(
        recovered(tmp_path, scale | named(layers), **options),
        lambda x: trunk(x) * scale["action_scale"] + scale["action_bias"],
    )


def test_an_ensemble_is_listed_and_a_member_taken(tmp_path: Path) -> None:
    members = [mlp(4, 8, 1), mlp(4, 8, 1)]
    saved = {"models": [member.state_dict() for member in members]}
    with pytest.raises(RecoveryError, match=r"--key models\.0  4 -> 8 -> 1(.|\n)*--key models\.1"):
        recovered(tmp_path, saved, activation="elu")
    agree(recovered(tmp_path, saved, key="models.1", activation="elu"), members[1])


@pytest.mark.parametrize("tensors", [("a", "b"), ("actor", "critic"), ("policy", "target_policy"), ("0", "1")])
def test_two_chains_are_never_tied_or_chosen_though_their_shapes_chain(
    tensors: tuple[str, str], tmp_path: Path
) -> None:
    saved = named(dict.fromkeys(tensors, mlp(8, 8, 8)))
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, saved, activation="elu")
    said(caught, *(f"--prefix {name}.  8 -> 8 -> 8" for name in tensors))


def test_named_heads_and_lists_of_layers(tmp_path: Path) -> None:
    encoder, head = mlp(20, 8, 6), nn.Linear(6, 2)
    found = recovered(tmp_path, named({"encoder": encoder, "head": head}), activation="elu")
    agree(found, nn.Sequential(encoder, nn.ELU(), head))
    assert any("encoder.2 and head" in note for note in found.notes)
    layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)])
    found = recovered(tmp_path, named({"layers": layers}), activation="relu")
    agree(found, nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]))


def test_weight_norm_is_folded_as_torch_computes_it(tmp_path: Path) -> None:
    new = [parametrizations.weight_norm(nn.Linear(4, 8)), nn.Tanh(), parametrizations.weight_norm(nn.Linear(8, 2))]
    original = nn.Sequential(*new)
    found = recovered(tmp_path, original.state_dict(), activation="tanh")
    agree(found, original)
    assert any("weight norm" in note for note in found.notes)
    old = {key.replace("parametrizations.weight.original0", "weight_g"): v for key, v in original.state_dict().items()}
    old = {key.replace("parametrizations.weight.original1", "weight_v"): value for key, value in old.items()}
    agree(recovered(tmp_path, old, activation="tanh"), original)


def test_the_models_own_state_dict_comes_back(tmp_path: Path) -> None:
    """Standardize, Scale and norms at indices of their own stay where they are."""
    from builder import MLPSpec

    blocks = ["standardize", {"linear": 8}, "batch_norm", "relu", {"linear": 3}, "tanh", "scale"]
    original = randomised(assemble(MLPSpec(name="m", input={"features": 4}, blocks=blocks)))
    found = recovered(tmp_path, original.state_dict(), activation="relu", output_activation="tanh")
    assert kinds(found) == [block if isinstance(block, str) else "linear" for block in blocks]
    agree(found, original)


@pytest.mark.parametrize("name", ["mnist_2_20", "three_layer"])
def test_published_checkpoints(name: str) -> None:
    path = real_network(f"{name}.pth")
    found = read_checkpoint(path, activation="relu")
    tensors = list(torch.load(path, weights_only=True, map_location="cpu").values())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found.weights.values(), tensors, strict=True))
    assert found.spec.name == name
    assert found.spec.input.features == tensors[0].shape[1]
