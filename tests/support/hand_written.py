"""Modules with a forward of their own: of one function, and with a plain sequence of layers that computes the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from builder import Residual
from export import Artifact, publish
from runtime import Port, Session

Pair = tuple[nn.Module, nn.Sequential]


class Written(nn.Module):
    """A module whose forward is ``function(module, *inputs)``; ``parts`` are modules, and the tensors have names."""

    parts: Any
    p: Any  # the name of a tensor that most have

    def __init__(self, function: Callable[..., Any], *parts: nn.Module, **tensors: torch.Tensor) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)
        for name, values in tensors.items():
            if values.is_floating_point():
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.function(self, *inputs, **options)


def rows_of(port: Port, count: int, seed: int = 0) -> torch.Tensor:
    """Rows of an input of a file: standard normal, or whole numbers, within the limits of indices where it has any."""
    rng = np.random.default_rng(seed)
    shape = tuple(size for size in port.shape[1:] if isinstance(size, int))
    rows = rng.standard_normal((count, *shape)) if port.dtype == "float32" else rng.integers(-9, 10, (count, *shape))
    flat = rows.reshape(count, -1)
    for place, limits in enumerate(port.indices or ()):
        if limits is not None:
            flat[:, place] = rng.integers(limits[0], limits[1] + 1, count)
    return torch.from_numpy(flat.reshape(rows.shape).astype(port.dtype))


def tensors_of(returned: Any) -> list[torch.Tensor]:
    """The tensors that a forward returns, in dicts, tuples and dataclasses, in their order."""
    if isinstance(returned, torch.Tensor):
        return [returned.detach()]
    if dataclasses.is_dataclass(returned):
        returned = vars(returned)
    parts = returned.values() if isinstance(returned, Mapping) else returned if isinstance(returned, Sequence) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def differences(module: nn.Module, artifact: Artifact, rows: Mapping[str, torch.Tensor]) -> None:
    """Compare what the file gives for ``rows`` with eager PyTorch. Raises AssertionError."""
    with torch.no_grad():
        returned = module.eval()(*(part.clone() for part in rows.values()))
    expected = tensors_of(returned)
    with Session(artifact.path, "cpu") as session:
        found = list(session.run({name: part.numpy() for name, part in rows.items()}).values())
    assert [part.shape for part in found] == [tuple(part.shape) for part in expected]
    for given, wanted in zip(found, expected, strict=True):
        assert given.dtype == wanted.numpy().dtype
        size = wanted.double().abs().nan_to_num(0, 0, 0).max().item() if wanted.numel() else 0.0
        np.testing.assert_allclose(given, wanted.numpy(), rtol=1e-4, atol=1e-5 * (1 + size))


def proved(module: nn.Module, folder: Path, **options: Any) -> Artifact:
    """Publish a module, and compare the file with eager PyTorch on batches of 1 and 7 rows."""
    artifact, report = publish(module, folder / "m.onnx", device="cpu", page=False, **options)
    assert artifact.proved
    assert report.proved
    assert artifact.summary is not None
    for count in (1, 7):
        differences(module, artifact, {port.name: rows_of(port, count) for port in artifact.summary.inputs})
    return artifact


class Nested(nn.Module):
    """Containers in containers, dropout on every level."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"first": nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 12), nn.ELU()), "second": nn.Linear(12, 5)}
        )
        self.drop = nn.Dropout(1.0)
        self.head = nn.Sequential(nn.Sequential(nn.Sequential(self.drop, nn.Tanh())), self.drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.encoder["second"](self.encoder["first"](x))))


class Functional(nn.Module):
    """Calls of functions and methods in place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.a(x), 0.2)
        x = F.dropout(x, 0.5, training=self.training)
        x = torch.sigmoid(self.b(x).relu())
        return torch.softmax(self.c(x).tanh(), dim=-1)


class Skips(nn.Module):
    """Skip connections by +, and by += in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + F.silu(self.inner(x))
        z = self.outer(y)
        z += y
        return z


class InPlace(nn.Module):
    """Activations in place, whose input is read again: eager PyTorch reads what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.drop = nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held = self.layer(x)
        same = self.drop(held)
        self.act(same)
        return held + held


class Shared(nn.Module):
    """One layer called twice, one activation shared, one weight tied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.tied = nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6, bias=False)
        self.tied.weight = self.layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.act(self.layer(self.act(self.layer(x)))))


class Loop(nn.Module):
    """A loop over layers, an optional argument, and a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return torch.flatten(x, 1) if scale is None else x * scale


class Keywords(nn.Module):
    """The usual spelling of softmax, and a layer norm with a bias alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 5), nn.LayerNorm(5)
        nn.init.normal_(self.norm.bias)
        self.norm.weight = None  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softmax(self.norm(F.silu(input=self.layer(x))), dim=-1)


class TwoNames(nn.Module):
    """+= on a tensor that has a second name: who holds it sees the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layer(x)
        same = h
        same += torch.tanh(h)
        return h + same


class StateAtTheCall(nn.Module):
    """An option that forward changes between two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(6, 6), nn.LeakyReLU()

    def forward(self, x: torch.Tensor, *_: object, **options: object) -> torch.Tensor:
        self.act.negative_slope = 0.5
        x = self.act(self.layer(x))
        self.act.negative_slope = 0.1
        return self.act(self.layer(x)) if not options else x


class OwnCall(nn.Linear):
    """A module that overrides __call__."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().__call__(x))


def nested() -> Pair:
    module = Nested()
    first = module.encoder["first"]
    assert isinstance(first, nn.Sequential)
    return module, nn.Sequential(*first, module.encoder["second"], nn.Tanh())


def functional() -> Pair:
    m = Functional()
    layers = [m.a, nn.LeakyReLU(0.2), m.b, nn.ReLU(), nn.Sigmoid(), m.c, nn.Tanh(), nn.Softmax(dim=-1)]
    return m, nn.Sequential(*layers)


def skips() -> Pair:
    m = Skips()
    return m, nn.Sequential(Residual(m.inner, nn.SiLU()), Residual(m.outer))


def in_place() -> Pair:
    m = InPlace()
    return m, nn.Sequential(m.layer, nn.ReLU(), Residual(nn.Identity()))


def shared() -> Pair:
    m = Shared()
    return m, nn.Sequential(m.layer, m.act, nn.Sequential(m.layer, m.act), m.tied)


def loop() -> Pair:
    m = Loop()
    return m, nn.Sequential(*(nn.Sequential(layer, nn.ReLU()) for layer in m.layers))


def keywords() -> Pair:
    m = Keywords()
    return m, nn.Sequential(m.layer, nn.SiLU(), m.norm, nn.Softmax(dim=-1))


def two_names() -> Pair:
    m = TwoNames()
    return m, nn.Sequential(m.layer, Residual(nn.Tanh()), Residual(nn.Identity()))


def state_at_the_call() -> Pair:
    m = StateAtTheCall()
    return m, nn.Sequential(m.layer, nn.LeakyReLU(0.5), nn.Sequential(m.layer, nn.LeakyReLU(0.1)))


def own_call() -> Pair:
    m = OwnCall(6, 4)
    plain = nn.Linear(6, 4)
    plain.weight, plain.bias = m.weight, m.bias
    return m, nn.Sequential(plain, nn.ReLU())


HAND_WRITTEN: dict[str, Callable[[], Pair]] = {
    f.__name__: f
    for f in (
        *(nested, functional, skips, in_place, shared, loop),
        *(keywords, two_names, state_at_the_call, own_call),
    )
}
