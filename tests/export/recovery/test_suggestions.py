"""What a message suggests works when it is pasted, and suits the network that it is suggested for."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from builder import RecoveryError
from export import Recovered, read_checkpoint
from tests.support.recovering import agree, kinds, mlp, named, recovered
from tests.support.repeats import examples

State = dict[str, torch.Tensor]


def statistics(path: str, width: int) -> State:
    return {f"{path}.{name}": torch.ones(1, width) for name in ("_mean", "_var", "_std")}


def squashed(path: str = "") -> State:
    """CleanRL's actor for SAC."""
    sizes = {"fc1": (8, 16), "fc2": (16, 16), "fc_mean": (16, 2), "fc_logstd": (16, 2)}
    parts = {f"{path}{name}": nn.Linear(*size) for name, size in sizes.items()}
    return named(parts) | {f"{path}action_scale": torch.rand(1, 2), f"{path}action_bias": torch.rand(1, 2)}


def options_of(text: str) -> dict[str, Any]:
    """The arguments of a command line's ``--key`` and ``--prefix``."""
    words = shlex.split(text)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert {option for option, _ in pairs} <= {"--key", "--prefix"}
    keys = [value for option, value in pairs if option == "--key"]
    return {"key": keys[0] if keys else None, "prefix": tuple(v for option, v in pairs if option == "--prefix")}


def suggested(message: str) -> list[dict[str, Any]]:
    """The options of every line of a message that gives a network's widths."""
    lines = re.findall(r"^  (--(?:key|prefix) .*?)  \S.*->", message, re.MULTILINE)
    return [options_of(line) for line in lines]


def pasted(note: str) -> dict[str, Any]:
    """The options at the end of a note on what was left out."""
    return options_of(re.sub(r"^.*?(--key|--prefix)", r"\1", note))


def left_out(found: Recovered, what: str) -> list[str]:
    return [note for note in found.notes if note.startswith(what)]


def test_the_parts_of_a_squashed_policy_are_one_chain(tmp_path: Path) -> None:
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, squashed("actor.") | named({"qf1": mlp(10, 16, 1)}), activation="relu")
    chains = [options["prefix"] for options in suggested(str(caught.value)) if len(options["prefix"]) > 1]
    assert chains == [("actor.fc1.", "actor.fc2.", "actor.fc_mean.", "actor.action_scale")]


def test_a_chain_that_skips_a_layer_or_mixes_actor_and_critic_is_not_suggested(tmp_path: Path) -> None:
    parts = {"mlp_extractor.policy_net": mlp(8, 16, 8), "mlp_extractor.value_net": mlp(8, 16, 8)}
    heads = {"action_net": nn.Linear(8, 2), "value_net": nn.Linear(8, 1)}
    with pytest.raises(RecoveryError) as caught:
        recovered(tmp_path, named(parts | heads), activation="tanh")
    chains = [options["prefix"] for options in suggested(str(caught.value)) if len(options["prefix"]) > 1]
    expected = [("mlp_extractor.policy_net.", "action_net."), ("mlp_extractor.value_net.", "value_net.")]
    assert chains == expected


def test_an_actors_normaliser_is_not_offered_to_a_critic_nor_the_reverse(tmp_path: Path) -> None:
    saved = named({"actor": mlp(8, 16, 2), "critic": mlp(8, 16, 1)})
    saved |= statistics("actor_obs_normalizer", 8) | statistics("critic_obs_normalizer", 8)
    for network in ("actor", "critic"):
        found = recovered(tmp_path, {"model_state_dict": saved}, prefix=[f"{network}."], activation="elu")
        (note,) = left_out(found, "NORMALISER LEFT OUT")
        assert pasted(note)["prefix"] == (f"{network}_obs_normalizer.", f"{network}.")


@pytest.mark.parametrize(
    ("key", "prefix", "advised"),
    [
        (None, ("running_mean_std", "a2c_network.actor_mlp", "a2c_network.mu."), None),
        (None, ("a2c_network.actor_mlp", "a2c_network.mu."), (None, "running_mean_std.")),
        ("model", ("a2c_network.actor_mlp.", "a2c_network.mu."), ("model", "running_mean_std.")),
        (None, ("model.a2c_network.actor_mlp", "model.a2c_network.mu"), (None, "model.running_mean_std.")),
    ],
)
def test_the_advice_repeats_every_prefix_as_it_was_typed(
    key: str | None, prefix: tuple[str, ...], advised: tuple[str | None, str] | None, tmp_path: Path
) -> None:
    trunk, mu = mlp(8, 16, 4), nn.Linear(4, 2)
    saved = named({"a2c_network.actor_mlp": trunk, "a2c_network.value": nn.Linear(4, 1), "a2c_network.mu": mu})
    saved |= {"running_mean_std.running_mean": torch.zeros(8), "running_mean_std.running_var": torch.ones(8)}
    options: dict[str, Any] = {"activations": ["elu", "elu"], "epsilon": 0.0 if advised is None else None}
    if advised is None:
        options["activations"] = ["none", "elu", "elu"]
        assert not left_out(recovered(tmp_path, {"model": saved}, prefix=prefix, **options), "NORMALISER")
        return
    found = recovered(tmp_path, {"model": saved, "epoch": 3}, key=key, prefix=prefix, **options)
    (note,) = left_out(found, "NORMALISER LEFT OUT")
    new = pasted(note)
    assert (new["key"], new["prefix"]) == (advised[0], (advised[1], *prefix))
    whole = read_checkpoint(tmp_path / "checkpoint.pt", **new, activations=["none", "elu", "elu"], epsilon=0.0)
    assert kinds(whole) == ["standardize", *kinds(found)]


def test_an_action_scale_that_is_left_out_is_said_and_the_advice_puts_it_back(tmp_path: Path) -> None:
    saved = squashed()
    options: dict[str, Any] = {"activation": "relu", "output_activation": "tanh"}
    found = recovered(tmp_path, saved, prefix=["fc1", "fc2.", "fc_mean."], **options)
    (note,) = left_out(found, "ACTION SCALE LEFT OUT")
    new = pasted(note)
    assert new["prefix"] == ("fc1", "fc2.", "fc_mean.", "action_scale")
    whole = read_checkpoint(tmp_path / "checkpoint.pt", **new, **options)
    assert not left_out(whole, "ACTION SCALE")

    def actor(x: torch.Tensor) -> torch.Tensor:
        for name in ("fc1", "fc2", "fc_mean"):
            x = nn.functional.linear(x, saved[f"{name}.weight"], saved[f"{name}.bias"])
            x = x.tanh() if name == "fc_mean" else x.relu()
        return x * saved["action_scale"] + saved["action_bias"]

    agree(whole, actor)


def test_a_tensor_of_an_action_that_no_block_can_hold_is_said_to_be_left_out(tmp_path: Path) -> None:
    saved = named({"net": mlp(4, 8, 2)}) | {"action_low": -torch.ones(2), "action_high": torch.ones(2)}
    found = recovered(tmp_path, saved, prefix=["net."], activation="relu")
    assert [note.split()[4] for note in left_out(found, "ACTION SCALE LEFT OUT")] == ["action_low", "action_high"]
    saved = named({"actor": mlp(4, 8, 2), "critic": mlp(4, 8, 2)}) | {"critic.action_low": torch.ones(2)}
    assert not left_out(recovered(tmp_path, saved, prefix=["actor."], activation="relu"), "ACTION SCALE")


@st.composite
def checkpoints(draw: st.DrawFn) -> Any:
    """State dicts with actors, critics, heads, normalisers and scales in the layouts that frameworks write."""
    inputs, width, outputs = draw(st.sampled_from([(6, 8, 2), (8, 8, 2), (4, 8, 4), (8, 8, 8)]))
    sizes = (inputs, *[width] * draw(st.integers(1, 3)))
    state: State = {}
    for name in draw(st.sets(st.sampled_from(["actor", "critic", "net", "policy.actor", "a b", ""]), min_size=1)):
        start, last = f"{name}." if name else "", 1 if name == "critic" else outputs
        style = draw(st.sampled_from(["sequential", "named", "heads"]))
        if style == "sequential":
            state |= {f"{start}{key}": value for key, value in mlp(*sizes, last).state_dict().items()}
        elif style == "named":
            pairs = pairwise(sizes)
            layers = {f"{start}fc{number}": nn.Linear(*pair) for number, pair in enumerate(pairs, 1)}
            heads = draw(st.sets(st.sampled_from(["fc_mean", "fc_logstd", "out"]), min_size=1))
            state |= named(layers | {f"{start}{head}": nn.Linear(width, last) for head in sorted(heads)})
        else:
            heads = draw(st.sets(st.sampled_from(["mu", "value", "sigma"]), min_size=1))
            state |= named({f"{start}trunk": mlp(*sizes)})
            state |= named({f"{start}{head}": nn.Linear(width, last) for head in sorted(heads)})
        if draw(st.booleans()):
            state |= {f"{start}action_scale": torch.ones(last), f"{start}action_bias": torch.zeros(last)}
    for name in draw(st.sets(st.sampled_from(["obs_norm", "actor_obs_normalizer", "critic_obs_normalizer", "rms"]))):
        state |= statistics(name, inputs)
    if draw(st.booleans()):
        state |= {"std": torch.ones(outputs)}
    nested = draw(st.sampled_from(["", "model", "two"]))
    if nested == "two":
        return {"first": state, "second": dict(state)}
    return {nested: state, "iter": 3} if nested else state


@settings(max_examples=examples(25, of=300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saved=checkpoints(), flat=st.booleans())
def test_every_suggestion_recovers_or_asks_only_for_what_no_checkpoint_says(
    saved: Any, flat: bool, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    if flat and all(isinstance(value, torch.Tensor) for value in saved.values()):
        path = tmp_path / "checkpoint.safetensors"
        save_file(saved, path)
    else:
        torch.save(saved, path)
    try:
        attempt(path, {})
        return
    except RecoveryError as error:
        message = str(error)
    for options in suggested(message):
        for note in attempt(path, options):
            if "--prefix" in note and " LEFT OUT: " in note:
                attempt(path, pasted(note))


def attempt(path: Path, options: dict[str, Any]) -> tuple[str, ...]:
    """The notes on what the options select, with whatever activation or epsilon is asked for; none if it is asked."""
    try:
        return read_checkpoint(path, **options).notes
    except RecoveryError as error:
        asked = re.search(r"does not hold its activations|--output-activation NAME|which epsilon", str(error))
        if not asked:
            raise
    try:
        return read_checkpoint(path, **options, activation="relu").notes
    except RecoveryError as error:
        if not re.search(r"which epsilon|--activation|--activations", str(error)):
            raise
    return ()
