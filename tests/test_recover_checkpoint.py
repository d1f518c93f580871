"""Checkpoints in the layouts that training code writes: read back, assembled, and compared with the original."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations

from builder import Recovered, RecoveryError, assemble, read_checkpoint

Module = TypeVar("Module", bound=nn.Module)


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ELU) -> nn.Sequential:
    """Linear layers of these widths with an activation between, not behind."""
    modules = [module for into, out in pairwise(widths) for module in (nn.Linear(into, out), act())]
    return nn.Sequential(*modules[:-1])


def randomised(module: Module, seed: int = 0) -> Module:
    """The module with every tensor drawn anew, in evaluation mode; variances and stds stay positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(drawn.abs() + 0.1 if "var" in name or "std" in name else drawn * 0.5)
    return module.eval()


def recovered(directory: Path, saved: Any, **options: Any) -> Recovered:
    torch.save(saved, directory / "checkpoint.pt")
    return read_checkpoint(directory / "checkpoint.pt", **options)


def agree(found: Recovered, original: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The recovered network gives the original's outputs bit for bit."""
    module = assemble(found.spec)
    module.load_state_dict(found.weights)
    rows = torch.randn(33, *found.spec.input.row_shape, generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad():
        assert torch.equal(module.eval()(rows), original(rows))


def kinds(found: Recovered) -> list[str]:
    return [block.kind for block in found.spec.blocks]


def said(error: pytest.ExceptionInfo[RecoveryError], *words: str) -> None:
    for word in words:
        assert word in str(error.value)


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


def named(parts: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


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


def test_indices_say_where_modules_are(tmp_path: Path) -> None:
    wide = [nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 8), nn.Linear(8, 2)]
    original = nn.Sequential(*wide).eval()
    found = recovered(tmp_path, original.state_dict(), activation="relu", dropout=0.1)
    assert kinds(found) == ["linear", "relu", "dropout", "linear", "linear"]
    agree(found, original)
    bare = recovered(tmp_path, original.state_dict(), activation="relu")
    assert any("between 0 and 3: 2 modules without weights, of which one module is not named" in n for n in bare.notes)
    assert any("no activation between 3 and 4" in note for note in bare.notes)
    with pytest.raises(RecoveryError, match="names 3, and there are 1 places"):
        recovered(tmp_path, original.state_dict(), activations=["relu", "relu", "relu"])
    with pytest.raises(RecoveryError, match="leave no room"):
        recovered(tmp_path, mlp(4, 8, 2).state_dict(), activation="relu", dropout=0.1)
    with pytest.raises(RecoveryError, match="2 modules are named"):
        recovered(tmp_path, mlp(4, 8, 2).state_dict(), activation="relu+tanh")


def test_an_index_before_the_first_layer_is_said(tmp_path: Path) -> None:
    original = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    found = recovered(tmp_path, original.state_dict(), activation="relu")
    agree(found, original)
    assert any("before 1, such as Flatten" in note for note in found.notes)


def test_what_a_checkpoint_cannot_say_is_asked_for_with_the_layers_found(tmp_path: Path) -> None:
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, mlp(4, 8, 2).state_dict())
    said(caught, "0: linear, 4 -> 8", "2: linear, 8 -> 2", "--activation NAME", "--activations relu ")
    assert kinds(recovered(tmp_path, nn.Linear(3, 2).state_dict())) == ["linear"]
    with pytest.raises(RecoveryError, match="no place for it"):
        recovered(tmp_path, nn.Linear(3, 2).state_dict(), activation="relu")
    with pytest.raises(RecoveryError, match="did you mean 'relu'"):
        recovered(tmp_path, mlp(4, 8, 2).state_dict(), activation="rleu")


def test_a_normalisation_layer_between_named_ones_needs_a_list(tmp_path: Path) -> None:
    layers = OrderedDict(fc1=nn.Linear(4, 8), bn1=nn.BatchNorm1d(8), fc2=nn.Linear(8, 2))
    saved = randomised(nn.Sequential(layers)).state_dict()
    with pytest.raises(RecoveryError, match="not said by --activation alone"):
        recovered(tmp_path, saved, activation="relu")
    found = recovered(tmp_path, saved, activations=["none", "relu", "none"], epsilon=1e-3)
    assert kinds(found) == ["linear", "batch_norm", "relu", "linear"]
    layers["bn1"].eps = 1e-3
    agree(found, nn.Sequential(layers["fc1"], layers["bn1"], nn.ReLU(), layers["fc2"]))


def test_safetensors_has_no_order_and_shapes_give_it_or_it_is_asked_for(tmp_path: Path) -> None:
    deep = mlp(*[6] * 13, act=nn.Tanh)  # 10.weight sorts before 2.weight
    save_file(deep.state_dict(), tmp_path / "deep.safetensors")
    agree(read_checkpoint(tmp_path / "deep.safetensors", activation="tanh"), deep)
    parts = {"stem": nn.Linear(4, 8), "body": nn.Linear(8, 6), "head": nn.Linear(6, 2)}
    save_file(named(parts), tmp_path / "named.safetensors")
    original = nn.Sequential(parts["stem"], nn.ReLU(), parts["body"], nn.ReLU(), parts["head"])
    agree(read_checkpoint(tmp_path / "named.safetensors", activation="relu"), original)
    square = {"stem": nn.Linear(8, 8), "body": nn.Linear(8, 8), "head": nn.Linear(8, 2)}
    save_file(named(square), tmp_path / "square.safetensors")
    with pytest.raises(RecoveryError, match="keeps no order"):
        read_checkpoint(tmp_path / "square.safetensors", activation="relu")
    found = read_checkpoint(
        tmp_path / "square.safetensors", prefix=["stem", "body", "head"], activations=["relu", "relu", "none"]
    )
    agree(found, nn.Sequential(square["stem"], nn.ReLU(), square["body"], nn.ReLU(), square["head"]))


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
    path = Path(__file__).resolve().parents[2] / "shared" / "cases" / f"{name}.pth"
    if not path.exists():
        pytest.skip("the folder of real networks is not here")
    found = read_checkpoint(path, activation="relu")
    tensors = list(torch.load(path, weights_only=True, map_location="cpu").values())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found.weights.values(), tensors, strict=True))
    assert found.spec.name == name and found.spec.input.features == tensors[0].shape[1]


_BETWEEN: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu:0.7": lambda: nn.ELU(0.7),
    "leaky_relu:0.2": lambda: nn.LeakyReLU(0.2),
    "gelu:tanh": lambda: nn.GELU("tanh"),
    "clip:-0.5:0.5": lambda: nn.Hardtanh(-0.5, 0.5),
    "dropout": nn.Dropout,
    "Softplus": nn.Softplus,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_sequentials_come_back_bit_for_bit(data: st.DataObject, tmp_path: Path) -> None:
    width = data.draw(st.integers(1, 6))
    modules: list[nn.Module] = []
    names: list[str] = []
    for kind in data.draw(
        st.lists(st.sampled_from(["linear", "linear", "batch_norm", "layer_norm", *_BETWEEN]), max_size=9)
    ):
        out = data.draw(st.integers(2, 6)) if kind == "linear" else width
        made = {
            "linear": lambda into=width, out=out: nn.Linear(into, out, bias=data.draw(st.booleans())),
            "batch_norm": lambda into=width: nn.BatchNorm1d(into, affine=data.draw(st.booleans())),
            "layer_norm": lambda into=width: nn.LayerNorm(into),
        } | _BETWEEN
        modules.append(made[kind]())
        names.append(kind)
        width = out
    modules.append(nn.Linear(width, 3))
    original = randomised(nn.Sequential(*modules))
    layers = [index for index, module in enumerate(modules) if module.state_dict()]
    modules_between = [names[one + 1 : other] for one, other in pairwise(layers)]
    listed: Iterable[list[str]] = [between for between in modules_between if between]
    linears = sum(isinstance(module, nn.Linear) for module in modules)
    if not any(modules_between) and linears > 1:
        listed = modules_between  # no room anywhere: it may as well be a list of layers
    activations = ["+".join(between) or "none" for between in listed]
    found = recovered(tmp_path, original.state_dict(), activations=activations, output_activation="none")
    skipped = layers[0]
    assert [block.kind for block in found.spec.blocks] == [
        {"elu:0.7": "elu", "leaky_relu:0.2": "leaky_relu", "gelu:tanh": "gelu"}.get(n, n.split(":")[0].lower())
        for n in [*names[skipped:], "linear"]
    ]
    agree(found, nn.Sequential(*modules[skipped:]).eval())
