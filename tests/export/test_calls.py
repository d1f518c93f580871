"""How a module is called: examples, names, shapes, types, methods, and what it returns."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from export import Artifact, ExportError, export, publish, verify
from runtime import Session
from tests.support.hand_written import Written, differences, proved, rows_of

Made = namedtuple("Made", "first second")


def floats(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs_of(artifact: Artifact) -> list[tuple[str, tuple[int | str, ...], str]]:
    return [(port.name, port.shape, port.dtype) for port in artifact.summary.inputs]


def outputs_of(artifact: Artifact) -> list[str]:
    return [port.name for port in artifact.summary.outputs]


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: Any = 2.0) -> Tensor:
        y = self.layer(x) * scale
        return y if mask is None else y * mask


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, obs: Any) -> Tensor:
        return self.layer(torch.cat([obs["a"], obs["b"]], dim=1))

    def act_inference(self, obs: Any) -> Tensor:
        return torch.tanh(self.forward(obs))


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, *, obs: Tensor, goal: Tensor) -> Tensor:
        return self.layer(torch.cat([obs, goal], dim=1))


EXAMPLES: dict[str, tuple[nn.Module, Any, list[str]]] = {
    "a tensor": (nn.Linear(6, 2), floats(4, 6), ["input"]),
    "an array": (nn.Linear(6, 2), floats(4, 6).numpy(), ["input"]),
    "one row": (nn.Linear(6, 2), floats(1, 6), ["input"]),
    "rows turned in memory": (nn.Linear(6, 2), floats(6, 4).t(), ["input"]),
    "a tensor with a gradient": (nn.Linear(6, 2), floats(4, 6).requires_grad_(), ["input"]),
    "an optional input": (Optional(), (floats(4, 4), floats(4, 1)), ["x", "mask"]),
    "an option that is a number": (Optional(), {"x": floats(4, 4), "scale": 0.5}, ["input"]),
    "an option that is a tensor": (Optional(), {"x": floats(4, 4), "scale": floats(4, 1)}, ["x", "scale"]),
    "keywords": (Keywords(), {"obs": floats(4, 1), "goal": floats(4, 3)}, ["obs", "goal"]),
    "*args": (Written(lambda _, *xs: torch.cat(xs, 1) * 2), (floats(4, 2), floats(4, 3)), ["input_0", "input_1"]),
    "**kwargs": (Written(lambda _, **xs: torch.cat([*xs.values()], 1) * 2), {"a": floats(4, 2), "b": floats(4, 3)},
        ["a", "b"]),
    "a dict": (Joined(), ({"a": floats(4, 2), "b": floats(4, 4)},), ["obs.a", "obs.b"]),
    "a dict by name": (Joined(), {"obs": {"a": floats(4, 2), "b": floats(4, 4)}}, ["obs.a", "obs.b"]),
    "nested": (
        Written(lambda _, x: torch.cat([x["p"][0], x["p"][1][0], x["q"]["r"]], 1) * 2),
        ({"p": (floats(4, 2), [floats(4, 3)]), "q": {"r": floats(4, 1)}},),
        ["input_0.p.0", "input_0.p.1.0", "input_0.q.r"],
    ),
    "a named tuple": (Written(lambda _, x: torch.cat([x.first, x.second], 1) * 2), (Made(floats(4, 2), floats(4, 3)),),
        ["input_0.first", "input_0.second"]),
    "None, a flag and a word": (Written(lambda _, x, y, flag,
        word: x * 2 if y is None and flag and word == "a" else x), (floats(4, 2), None, True, "a"), ["input"]),
    "whole numbers beside floats": (Written(lambda _, x, i: x * i),
        (floats(4, 2), torch.ones(4, 1, dtype=torch.int64)), ["input_0", "input_1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str, tmp_path: Path) -> None:
    module, example, names = EXAMPLES[name]
    artifact, report = publish(module, tmp_path / "m.onnx", example=example, device="cpu", page=False)
    assert report.proved
    assert [port[0] for port in inputs_of(artifact)] == names
    flat, tree = tree_flatten(example)
    tensors = [i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor | np.ndarray)]
    shapes = [("batch", *flat[i].shape[1:]) for i in tensors]
    assert [port[1] for port in inputs_of(artifact)] == shapes
    rows = {port.name: rows_of(port, 7) for port in artifact.summary.inputs}
    for i, part in zip(tensors, rows.values(), strict=True):
        flat[i] = part
    given = tree_unflatten(flat, tree)
    args, options = ((), given) if isinstance(given, dict) else (given if isinstance(given, tuple) else (given,), {})
    with torch.no_grad(), Session(artifact.path, "cpu") as session:
        found = session.run({key: part.numpy() for key, part in rows.items()})["output"]
        np.testing.assert_allclose(found, module.eval()(*args, **options), rtol=0, atol=1e-5)
    assert verify(module, artifact.path, example=example, device="cpu").proved


def test_optional_inputs_that_are_not_given_keep_their_defaults(tmp_path: Path) -> None:
    artifact = proved(Optional(), tmp_path)
    assert inputs_of(artifact) == [("input", ("batch", 4), "float32")]


def test_another_method_than_forward(tmp_path: Path) -> None:
    module = Joined()
    example = ({"a": floats(4, 2), "b": floats(4, 4)},)
    options: dict[str, Any] = {"example": example, "method": "act_inference"}
    artifact, report = publish(module, tmp_path / "m.onnx", device="cpu", page=False, **options)
    assert report.proved
    assert inputs_of(artifact)[0][0] == "obs.a"
    with torch.no_grad(), Session(artifact.path, "cpu") as session:
        found = session.run({"obs.a": example[0]["a"].numpy(), "obs.b": example[0]["b"].numpy()})["output"]
        np.testing.assert_allclose(found, module.act_inference(*example), rtol=0, atol=1e-6)
    assert not verify(module, artifact.path, example=example, device="cpu").proved  # forward is another function


class Record(OrderedDict[str, Any]):
    """A dict whose keys are attributes too, as model outputs of transformers are."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclass
class Scores:
    mean: Tensor
    spread: Tensor | None = None


RETURNED: dict[str, tuple[Callable[[Tensor], Any], list[str]]] = {
    "a tuple": (lambda y: (y, torch.relu(y)), ["output_0", "output_1"]),
    "a list": (lambda y: [y, torch.relu(y)], ["output_0", "output_1"]),
    "one in a tuple": (lambda y: (y,), ["output"]),
    "a dict": (lambda y: {"a": y, "b": torch.relu(y)}, ["a", "b"]),
    "one in a dict": (lambda y: {"a": y}, ["a"]),
    "a named tuple": (lambda y: Made(y, torch.relu(y)), ["first", "second"]),
    "a dataclass": (lambda y: Scores(y, torch.relu(y)), ["mean", "spread"]),
    "a dataclass with None": (lambda y: Scores(y), ["mean"]),
    "a record": (lambda y: Record(logits=y, hidden=(torch.relu(y), y * 2)), ["logits", "hidden.0", "hidden.1"]),
    "None beside one": (lambda y: (y, None), ["output"]),
    "None first": (lambda y: (None, y, torch.relu(y)), ["output_1", "output_2"]),
    "nested": (lambda y: (y, (torch.relu(y), [y * 2]), {"a": y * 3, "b": None}),
        ["output_0", "output_1.0", "output_1.1.0", "output_2.a"]),
    "numbers as keys": (lambda y: {0: y, 1: y * 2}, ["0", "1"]),
    "one value twice": (lambda y: {"a": y, "b": y}, ["a", "b"]),
    "a view of another": (lambda y: {"a": y, "b": y.unsqueeze(1)}, ["a", "b"]),
    "whole numbers and truths": (lambda y: {"a": y, "b": y.argmax(1), "c": y > 0}, ["a", "b", "c"]),
}  # fmt: skip


@pytest.mark.parametrize("name", RETURNED)
def test_what_is_returned(name: str, tmp_path: Path) -> None:
    function, names = RETURNED[name]
    module = Written(lambda m, x: function(m.parts[0](x)), nn.Linear(4, 2))
    artifact, report = publish(module, tmp_path / "m.onnx", device="cpu", page=False)
    assert report.proved
    assert outputs_of(artifact) == names
    differences(module, artifact, {"input": floats(7, 4)})


def test_outputs_of_one_name_are_not_lost(tmp_path: Path) -> None:
    for returned in (lambda _, x: {"a": {"b": x * 2}, "a.b": x * 3}, lambda _, x: {0: x * 2, "0": x * 3}):
        with pytest.raises(ExportError, match=r"two outputs.*name|name of its own"):
            export(Written(returned), tmp_path / "m.onnx", input_shape=(4,))


def test_names_that_are_asked_for(tmp_path: Path) -> None:
    module = Written(lambda m, x: (m.parts[0](x), x * 2), nn.Linear(4, 2))
    artifact = proved(module, tmp_path, input_name="obs", output_name=("mu", "twice"))
    assert inputs_of(artifact) == [("obs", ("batch", 4), "float32")]
    assert outputs_of(artifact) == ["mu", "twice"]
    example = (floats(4, 2), floats(4, 4))
    joined = Written(lambda _, *xs: torch.cat(xs, 1) * 2)
    named = proved(joined, tmp_path, example=example, input_name=("p", "q"))
    assert [port[0] for port in inputs_of(named)] == ["p", "q"]


TWO = Written(lambda m, x: (m.parts[0](x), x * 2), nn.Linear(4, 2))
NAMES: dict[str, tuple[dict[str, Any], str]] = {
    "too few": ({"output_name": ("a",)},
        r"1 names are given for the outputs, and the module has 2: output_0, output_1"),
    "too many": ({"input_name": ("a", "b")}, r"2 names are given for the inputs, and the module has 1: input"),
    "one twice": ({"output_name": ("a", "a")}, r"every output needs a name of its own.*'a', 'a'"),
    "an empty one": ({"output_name": ("a", "")}, r"every output needs a name of its own.*'a', ''"),
    "one for both sides": ({"input_name": "a", "output_name": ("a", "b")}, r"need different names, not both 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    options, expected = NAMES[name]
    with pytest.raises(ExportError, match=expected):
        export(TWO, tmp_path / "m.onnx", **options)


class Apart(nn.Module):
    """The width of each input is that of its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(5, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.one(x) + self.other(y)


def test_shapes_are_found_from_the_weights(tmp_path: Path) -> None:
    assert inputs_of(export(nn.Linear(3, 2), tmp_path / "m.onnx")) == [("input", ("batch", 3), "float32")]
    given: list[dict[str, Any]] = [{}, {"input_shape": {"x": (3,)}}, {"input_dtype": {"x": "float32"}}]
    for options in given:
        found = inputs_of(export(Apart(), tmp_path / "m.onnx", **options))
        assert found == [("x", ("batch", 3), "float32"), ("y", ("batch", 5), "float32")]


def test_shapes_by_name(tmp_path: Path) -> None:
    module = Written(lambda _, x: x.flatten(1) * 2)
    assert inputs_of(proved(module, tmp_path, input_shape=(2, 3)))[0][1] == ("batch", 2, 3)
    assert inputs_of(proved(module, tmp_path, input_shape={"input": torch.Size([2, 3])}))[0][1] == ("batch", 2, 3)
    assert inputs_of(export(nn.ReLU(), tmp_path / "m.onnx", input_shape=()))[0][1] == ("batch",)
    shapes = {"obs": (1,), "goal": (3,)}
    kept = publish(Keywords(), tmp_path / "m.onnx", input_shape=shapes, device="cpu", page=False)[0]
    assert [port[1] for port in inputs_of(kept)] == [("batch", 1), ("batch", 3)]


AMBIGUOUS = Written(lambda _, x: x * 2, a=floats(3), b=floats(5))
ASKED: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "nothing shows it": (nn.ReLU(), {}, r"number of input features cannot be seen.*input_shape=\(features,\)"),
    "two would do": (AMBIGUOUS, {}, r"number of input features cannot be seen.*: 3 or 5 would do.*input_shape"),
    "a sum of two": (Keywords(), {}, r"features of the input 'obs' cannot.*input_shape=\{'obs': \(features,\)\}"),
    "a wrong one beside it": (Apart(), {"input_shape": {"x": (5,)}},
        r"the input 'y' cannot be seen.*mat1 and mat2.*--features y=N"),
    "a dict": (Joined(), {}, r"cannot be seen.*example="),
    "keywords of any name": (Written(lambda _, **xs: xs["a"] * 2), {}, r"cannot be seen.*example="),
    "one for several": (Apart(), {"input_shape": (3,)},
        r"one shape is given, and the module takes 2 inputs: x, y.*input_shape=\{'x'"),
    "an unknown name": (Apart(), {"input_shape": {"z": (3,)}},
        r"a shape is given for 'z'; the module's inputs are: x, y"),
    "a type that is none": (nn.Linear(3, 2), {"input_dtype": "int32"},
        r"input_dtype is 'float32' or 'int64', not 'int32'"),
    "another shape than the example": (nn.Linear(3, 2), {"example": floats(4, 3), "input_shape": (4,)},
        r"example of 'input' has rows of \[3\], not \[4\]"),
    "another type than the example": (nn.Linear(3, 2), {"example": floats(4, 3), "input_dtype": "int64"},
        r"example of 'input' is float32, not int64"),
    "float64": (nn.Linear(3, 2), {"example": floats(4, 3).double()},
        r"example of 'input' is torch.float64; a file takes float32 and int64"),
    "truths": (nn.Linear(3, 2), {"example": floats(4, 3) > 0}, r"example of 'input' is torch.bool"),
    "no row": (nn.Linear(3, 2), {"example": floats(0, 3)},
        r"has shape \[0, 3\]; expected \(batch, ...\), one row or more"),
    "no batch": (nn.Linear(3, 2), {"example": torch.tensor(1.0)}, r"has shape \[\]; expected \(batch, ...\)"),
    "other numbers of rows": (Apart(), {"example": (floats(4, 3), floats(3, 5))},
        r"different numbers of rows: 'x' 4, 'y' 3"),
    "no tensor": (nn.Linear(3, 2), {"example": [[1.0, 2.0, 3.0]]}, r"the example has no tensor"),
    "a number": (nn.Linear(3, 2), {"example": 3}, r"the example has no tensor|example is"),
    "another keyword": (Joined(), {"example": {"a": floats(4, 2)}}, r"TypeError.*unexpected keyword argument 'a'"),
    "no such method": (nn.Linear(3, 2), {"method": "act"}, r"a Linear has no method 'act'.*--method"),
    "no such method, with an example": (nn.Linear(3, 2), {"method": "act", "example": floats(4, 3)},
        r"a Linear has no method 'act'"),
    "an attribute for a method": (nn.Linear(3, 2), {"method": "in_features", "example": floats(4, 3)},
        r"has no method 'in_features'"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_has_to_be_asked_for(name: str, tmp_path: Path) -> None:
    module, options, expected = ASKED[name]
    with pytest.raises(ExportError, match=expected):
        export(module, tmp_path / "m.onnx", **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [5, (0,), (-1,), ("a",), (2.5,), "64"])
def test_an_input_shape_that_is_none(shape: object, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"input_shape is the shape of a row, such as \(64,\)"):
        export(nn.ReLU(), tmp_path / "m.onnx", input_shape=shape)  # type: ignore[arg-type]
