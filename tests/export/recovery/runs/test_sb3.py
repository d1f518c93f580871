"""Archives of Stable-Baselines3: written as ``model.save`` writes them, and compared with ``model.predict``."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from builder import RecoveryError
from export import Recovered, read_network, recover
from tests.support.commands import Run
from tests.support.recovering import kinds, mlp, named, randomised

LOW, HIGH = np.array([-2.0, -2.0 / 3], np.float32), np.array([2.0, 1.0], np.float32)


class _Program:
    """What runs if a pickle of the archive is opened."""

    mark = Path("ran")

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def pickled() -> str:
    return base64.b64encode(pickle.dumps(_Program())).decode()


def policy_class(name: str) -> dict[str, Any]:
    """A class in ``data``, as ``data_to_json`` of release 2.9 writes it."""
    return {
        ":type:": "<class 'abc.ABCMeta'>",
        ":serialized:": pickled(),
        "__module__": "stable_baselines3.common.policies",
        "__init__": f"<function {name}.__init__ at 0x7f0e9669b420>",
        "__abstractmethods__": "frozenset()",
    }


def box(lowest: np.ndarray, highest: np.ndarray, **more: Any) -> dict[str, Any]:
    return {
        ":type:": "<class 'gymnasium.spaces.box.Box'>",
        ":serialized:": pickled(),
        "dtype": "float32",
        "_shape": list(lowest.shape),
        "low": str(lowest),
        "high": str(highest),
        "low_repr": None,
        "high_repr": None,
        **more,
    }


DISCRETE = {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", ":serialized:": "", "n": "3"}


def archive(path: Path, policy: str, state: Mapping[str, torch.Tensor], **data: Any) -> Path:
    """An archive; ``data`` replaces entries of its JSON."""
    _Program.mark = path.parent / "ran"
    entries: dict[str, Any] = {
        "policy_class": policy_class(policy),
        "verbose": 0,
        "policy_kwargs": {},
        "observation_space": box(np.full(5, -np.inf, np.float32), np.full(5, np.inf, np.float32)),
        "action_space": box(LOW, HIGH),
        "n_envs": 1,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("data", json.dumps(entries | data, indent=4))
        for name, content in (("pytorch_variables.pth", {}), ("policy.pth", state), ("policy.optimizer.pth", {})):
            buffer = io.BytesIO()
            torch.save(dict(content), buffer)
            written.writestr(name, buffer.getvalue())
        written.writestr("_stable_baselines3_version", "2.9.2")
        written.writestr("system_info.txt", "- OS: Linux\n- Stable-Baselines3: 2.9.2\n- PyTorch: 2.13.0+cpu\n")
    return path


def actor_critic(hidden: nn.Sequential, head: nn.Linear) -> dict[str, torch.Tensor]:
    """``policy.pth`` of PPO and A2C."""
    parts = {"mlp_extractor.policy_net": hidden, "mlp_extractor.value_net": mlp(5, 8), "action_net": head}
    return named(parts | {"value_net": nn.Linear(8, 1)}) | {"log_std": torch.zeros(2)}


def squashed(hidden: nn.Sequential, head: nn.Module) -> dict[str, torch.Tensor]:
    """``policy.pth`` of SAC."""
    parts = {"actor.latent_pi": hidden, "actor.mu": head, "actor.log_std": nn.Linear(8, 2), "critic.qf0": mlp(7, 8, 1)}
    return named(parts)


def close(found: Recovered, predicted: Callable[[torch.Tensor], torch.Tensor]) -> None:
    rows = torch.randn(64, 5, generator=torch.Generator().manual_seed(2)) * 2
    with torch.no_grad():
        torch.testing.assert_close(found.module()(rows), predicted(rows), rtol=1e-6, atol=1e-6)


def clipped(y: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.clip(y.numpy(), LOW, HIGH))


def stretched(y: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(LOW + (0.5 * (y.numpy() + 1.0) * (HIGH - LOW)))


def noted(found: Recovered, words: str) -> bool:
    return any(words in note for note in found.notes)


CLASS = "<class 'torch.nn.modules.activation.{}'>"


@pytest.mark.parametrize(
    ("kwargs", "activation", "place"),
    [
        ({}, nn.Tanh, "activation tanh: the default of ActorCriticPolicy, data of model.zip, policy_class"),
        (
            {"activation_fn": CLASS.format("ELU")},
            nn.ELU,
            "activation elu: data of model.zip, policy_kwargs.activation_fn",
        ),
        ({"net_arch": [16, 8]}, nn.Tanh, "hidden layers of 16, 8: data of model.zip, policy_kwargs.net_arch"),
    ],
)
def test_ppo_is_recovered_with_no_option(
    kwargs: dict[str, Any], activation: Callable[[], nn.Module], place: str, tmp_path: Path
) -> None:
    hidden, head = randomised(mlp(5, 16, 8, act=activation)), randomised(nn.Linear(8, 2), 1)
    stored = {":type:": "<class 'dict'>", ":serialized:": pickled(), **kwargs} if kwargs else {}
    path = archive(tmp_path / "model.zip", "ActorCriticPolicy", actor_critic(hidden, head), policy_kwargs=stored)
    for given in (path, tmp_path):
        found = read_network(given)
        close(found, lambda x: clipped(head(activation()(hidden(x)))))
        assert noted(found, place)
        assert noted(found, "model.zip of Stable-Baselines3 2.9.2 with PyTorch 2.13.0+cpu")
        assert noted(found, "NORMALISER UNKNOWN")
    assert not _Program.mark.exists()


def test_sac_and_its_gsde(tmp_path: Path) -> None:
    hidden, head = randomised(mlp(5, 16, 8, act=nn.ReLU)), randomised(nn.Linear(8, 2), 1)
    path = archive(tmp_path / "sac.zip", "SACPolicy", squashed(hidden, head), policy_kwargs={"use_sde": False})
    close(read_network(path), lambda x: stretched(torch.tanh(head(torch.relu(hidden(x))))))
    noisy = squashed(hidden, nn.Sequential(head, nn.Hardtanh(-2.0, 2.0)))
    path = archive(tmp_path / "sde" / "sac.zip", "SACPolicy", noisy, policy_kwargs={"use_sde": True})
    close(read_network(path), lambda x: stretched(torch.tanh(head(torch.relu(hidden(x))).clamp(-2.0, 2.0))))


def test_td3_and_dqn(tmp_path: Path) -> None:
    actor = randomised(mlp(5, 16, 8, 2, act=nn.ReLU))
    state = named({"actor.mu": actor, "actor_target.mu": actor, "critic.qf0": mlp(7, 8, 1)})
    close(read_network(archive(tmp_path / "td3.zip", "TD3Policy", state)), lambda x: stretched(torch.tanh(actor(x))))
    values = randomised(mlp(5, 16, 3, act=nn.ReLU))
    state = named({"q_net.q_net": values, "q_net_target.q_net": values})
    found = read_network(archive(tmp_path / "dqn.zip", "DQNPolicy", state, action_space=DISCRETE))
    close(found, values)
    assert noted(found, "ACTION: the outputs are values of a discrete action")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (DISCRETE, "ACTION: the outputs are logits of a discrete action; the action is the index of the largest"),
        (
            {":type:": "<class 'gymnasium.spaces.multi_discrete.MultiDiscrete'>", "nvec": "[3 2]", "_shape": [2]},
            "each action is the index of the largest of its part; the sizes of the parts are [3 2]",
        ),
        (
            {":type:": "<class 'gymnasium.spaces.multi_binary.MultiBinary'>", "n": "5"},
            "1 where the output is above 0, and 0 elsewhere",
        ),
    ],
)
def test_what_becomes_of_logits_is_said_of_their_space(space: dict[str, Any], words: str, tmp_path: Path) -> None:
    hidden, head = randomised(mlp(5, 16, 8, act=nn.Tanh)), randomised(nn.Linear(8, 5), 1)
    found = read_network(
        archive(tmp_path / "m.zip", "ActorCriticPolicy", actor_critic(hidden, head), action_space=space)
    )
    close(found, lambda x: head(torch.tanh(hidden(x))))
    (note,) = [note for note in found.notes if note.startswith("ACTION")]
    assert words in note


def test_the_choice_of_the_checkpoint_is_said_as_it_is(tmp_path: Path) -> None:
    state, run = named({"actor.mu": mlp(5, 8, 2)}), tmp_path / "run"
    for name, words in (
        ("rl_model_900_steps", "the only one"),
        ("rl_model_1000_steps", "the newest of 2; another"),
        ("a_final", "the last by name, after those with numbers, of 3; another"),
        ("best_model", "the best of 4; another"),
    ):
        archive(run / f"{name}.zip", "TD3Policy", state)
        assert noted(read_network(run), f"checkpoint {name}.zip: {words}")
    for path in run.glob("*_steps.zip"):
        path.unlink()
    (run / "best_model.zip").rename(run / "b.zip")
    assert noted(read_network(run), "checkpoint b.zip: the last by name of 2; another")


def test_limits_that_are_all_alike_are_one_number(tmp_path: Path) -> None:
    actor = randomised(mlp(5, 8, 2, act=nn.ReLU))
    space = box(LOW, HIGH, low="[-0.1 ... -0.1]", low_repr="-0.1", high="[0.1 ... 0.1]", high_repr="0.1")
    path = archive(tmp_path / "m.zip", "TD3Policy", named({"actor.mu": actor}), action_space=space)
    close(read_network(path), lambda x: torch.tanh(actor(x)) * 0.1)


def test_statistics_of_vec_normalize_are_given(run: Run, tmp_path: Path) -> None:
    hidden, head = randomised(mlp(5, 16, 8, act=nn.Tanh)), randomised(nn.Linear(8, 2), 1)
    path = archive(tmp_path / "run" / "best_model.zip", "ActorCriticPolicy", actor_critic(hidden, head))
    (tmp_path / "run" / "vecnormalize.pkl").write_bytes(pickle.dumps(_Program()))
    left_out = read_network(tmp_path / "run")
    assert noted(left_out, "NORMALISER LEFT OUT: vecnormalize.pkl is the pickle of VecNormalize")
    generator = np.random.default_rng(0)
    mean, var = generator.standard_normal(5), generator.random(5) + 0.1
    np.savez(tmp_path / "normalizer.npz", mean=mean, var=var)
    done = run("recover", tmp_path / "run", "-o", tmp_path / "out", "--normalizer", tmp_path / "normalizer.npz")
    assert done.code == 0, done.err
    assert "NORMALISER" not in done.err
    assert "epsilon 1e-08 (the default) and clip 10 (the default)" in done.err
    found = read_network(path, normalizer=tmp_path / "normalizer.npz")
    assert kinds(found)[:2] == ["standardize", "clip"]

    def predicted(x: torch.Tensor) -> torch.Tensor:
        normal = np.clip((x.numpy() - mean) / np.sqrt(var + 1e-8), -10.0, 10.0).astype(np.float32)
        return clipped(head(torch.tanh(hidden(torch.from_numpy(normal)))))

    rows = torch.randn(64, 5, generator=torch.Generator().manual_seed(2)) * 2
    with torch.no_grad():
        torch.testing.assert_close(found.module()(rows), predicted(rows), rtol=1e-5, atol=1e-5)
    assert not _Program.mark.exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mean": np.zeros(5)}, "expected the arrays mean and var, found mean"),
        ({"mean": np.zeros(4), "var": np.ones(4)}, r"mean has the shape \[4\], and the network takes 5 features"),
        ({"mean": np.zeros(5), "var": -np.ones(5)}, "feature 0 has mean .* a positive variance"),
        ({"mean": np.zeros(5), "var": np.ones(5), "clip": np.array(0.0)}, "clip is 0"),
        ({"mean": np.array([_Program()], object), "var": np.ones(5)}, "not arrays of numbers"),
        ({"mean": np.zeros(5), "var": np.ones(5), "epsilon": np.ones(2)}, "epsilon has the shape"),
    ],
)
def test_a_normaliser_that_does_not_fit_is_refused(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    _Program.mark = tmp_path / "ran"
    path = archive(tmp_path / "m.zip", "TD3Policy", named({"actor.mu": mlp(5, 8, 2)}))
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(RecoveryError, match=words):
        read_network(path, normalizer=tmp_path / "n.npz")
    assert not _Program.mark.exists()


def test_no_archive_of_arrays(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.zip", "TD3Policy", named({"actor.mu": mlp(5, 8, 2)}))
    given = tmp_path / "n.npz"
    with pytest.raises(RecoveryError) as error:
        read_network(path, normalizer=given)
    assert str(error.value).startswith(f"{given}: cannot be read: no such file. What to do: write it with")
    given.write_bytes(b"\x80\x04.")
    with pytest.raises(RecoveryError) as error:
        read_network(path, normalizer=given)
    assert str(error.value).startswith(f"{given}: not a NumPy archive (.npz). What to do: write it with")


IMAGE = {"features_extractor.cnn.0.weight": torch.zeros(8, 3, 3, 3)}


@pytest.mark.parametrize(
    ("policy", "more", "data", "words"),
    [
        ("MultiInputPolicy", {}, {}, r"data of m\.zip, policy_class: the policy is MultiInputPolicy"),
        ("ActorCriticPolicy", {}, {}, r"expected tensors such as action_net\.weight"),
        ("TD3Policy", IMAGE, {}, "features extractor with weights of its own"),
        ("TD3Policy", {}, {"policy_kwargs": {"activation_fn": CLASS.format("SELU")}}, "SELU.* is no activation"),
        ("TD3Policy", {}, {"policy_kwargs": {"net_arch": [9]}}, r"net_arch says hidden layers of \[9\].*has \[8\]"),
        (
            "TD3Policy",
            {},
            {"action_space": box(LOW, HIGH, low="[-1. ... -1.]")},
            "limits of 2 actions are not readable",
        ),
        ("TD3Policy", {}, {"observation_space": DISCRETE}, "no Box of numbers"),
        ("TD3Policy", {}, {"policy_class": "MlpPolicy"}, "the policy is not named"),
    ],
)
def test_what_is_not_understood_says_where(
    policy: str, more: dict[str, torch.Tensor], data: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = archive(tmp_path / "m.zip", policy, named({"actor.mu": mlp(5, 8, 2)}) | more, **data)
    with pytest.raises(RecoveryError, match=words):
        read_network(path)
    assert not _Program.mark.exists()


def refusals_of_damage(path: Path, read: Callable[[], object]) -> list[str]:
    """The messages where a file is read that has another byte at one place, for some 200 places and three bytes."""
    content, messages = path.read_bytes(), list[str]()
    for at in range(0, len(content), max(1, len(content) // 200)):
        for byte in (0x00, 0x5A, 0xFF):
            path.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
            try:
                read()
            except RecoveryError as error:
                messages.append(str(error))
    return messages


def test_a_damaged_archive_is_one_clear_error(tmp_path: Path) -> None:
    whole = archive(tmp_path / "m.zip", "TD3Policy", named({"actor.mu": mlp(5, 8, 2)}))
    path = tmp_path / "n.zip"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in ("data", "policy.pth", "system_info.txt"):
            new.writestr(name, old.read(name))
    messages = refusals_of_damage(path, lambda: read_network(path))
    assert len(messages) > 200
    assert {message.count(str(path)) for message in messages} == {1}


def test_a_damaged_normaliser_is_one_clear_error(tmp_path: Path) -> None:
    given, path = archive(tmp_path / "m.zip", "TD3Policy", named({"actor.mu": mlp(5, 8, 2)})), tmp_path / "n.npz"
    np.savez_compressed(path, mean=np.linspace(0, 1, 5), var=np.ones(5))
    messages = refusals_of_damage(path, lambda: read_network(given, normalizer=path))
    assert len(messages) > 200
    assert {message.count(str(path)) for message in messages} == {1}


def test_json_that_is_none(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.zip", "TD3Policy", named({"actor.mu": mlp(5, 8, 2)}))
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    for content, words in ((b'{"policy', "is not JSON"), (b"[]", "expected an object")):
        with zipfile.ZipFile(path, "w") as new:
            for name, value in (entries | {"data": content}).items():
                new.writestr(name, value)
        with pytest.raises(RecoveryError, match=words):
            recover(path, tmp_path / "o")
