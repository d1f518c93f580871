"""Where modules without weights stand, and in which order layers come: told by indices and shapes, or asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from builder import RecoveryError
from export import read_checkpoint
from tests.support.recovering import agree, kinds, mlp, named, randomised, recovered, said


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
    layers: OrderedDict[str, Any] = OrderedDict(fc1=nn.Linear(4, 8), bn1=nn.BatchNorm1d(8), fc2=nn.Linear(8, 2))
    saved = randomised(nn.Sequential(layers)).state_dict()
    with pytest.raises(RecoveryError, match="--activation alone does not say"):
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


class Headed(nn.Sequential):
    """Layers at indices, and one with a name behind them."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.out = nn.Linear(4, 4)


def test_a_name_beside_indices_stands_where_it_was_made(tmp_path: Path) -> None:
    original = Headed()
    options: dict[str, Any] = {"activations": ["relu", "none"], "output_activation": "none"}
    agree(recovered(tmp_path, original.state_dict(), **options), original)
    sorted_backwards = dict(sorted(original.state_dict().items(), reverse=True))
    with pytest.raises(RecoveryError, match=r"more than one network(.|\n)*--prefix out\."):
        recovered(tmp_path, sorted_backwards, **options)


_BETWEEN: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu:0.7": lambda: nn.ELU(0.7),
    "leaky_relu:0.2": lambda: nn.LeakyReLU(0.2),
    "gelu:tanh": lambda: nn.GELU("tanh"),
    "clip:-0.5:0.5": lambda: nn.Hardtanh(-0.5, 0.5),
    "dropout": nn.Dropout,
    "Softplus": nn.Softplus,
    "softsign": nn.Softsign,
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
