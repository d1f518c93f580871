"""Networks as people write them by hand, over operators beyond the building blocks: each seeded, with an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Written = tuple[nn.Module, tuple[Tensor, ...]]
"""A module in evaluation mode, and the tensors to call it with."""


def _size(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _rows(*shape: int) -> Tensor:
    return torch.randn(4, *shape)


class Tables(nn.Module):
    """Users and items by number, numbers beside them, and the pairwise products of a factorisation machine."""

    def __init__(self, users: int, items: int, numbers: int, width: int):
        super().__init__()
        self.user, self.item = nn.Embedding(users, width), nn.Embedding(items, width)
        self.number, self.norm = nn.Linear(numbers, width), nn.LayerNorm(3 * width)
        self.deep = nn.Sequential(nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, user: Tensor, items: Tensor, numbers: Tensor) -> Tensor:
        seen = self.item(items).mean(dim=1)
        parts = [self.user(user), seen, self.number(torch.log1p(numbers.abs()))]
        pairs = torch.stack(parts, dim=1)
        crossed = 0.5 * (pairs.sum(dim=1) ** 2 - (pairs**2).sum(dim=1)).sum(dim=-1, keepdim=True)
        return crossed + self.deep(self.norm(torch.cat(parts, dim=-1)))


class Field(nn.Module):
    """A radiance field: sines and cosines of a position and a direction, and a skip that joins the position again."""

    def __init__(self, octaves: int, width: int):
        super().__init__()
        self.register_buffer("bands", 2.0 ** torch.arange(octaves))
        coded = 3 + 6 * octaves
        self.first, self.second = nn.Linear(coded, width), nn.Linear(width + coded, width)
        self.density, self.colour = nn.Linear(width, 1), nn.Linear(width + 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        position, direction = x[:, :3], x[:, 3:6]
        angles = (position[:, :, None] * self.get_buffer("bands")).flatten(1)
        coded = torch.cat([position, torch.sin(angles), torch.cos(angles)], dim=-1)
        h = F.relu(self.first(coded))
        h = F.relu(self.second(torch.cat([h, coded], dim=-1)))
        unit = direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-3)
        return torch.cat([F.softplus(self.density(h)), torch.sigmoid(self.colour(torch.cat([h, unit], -1)))], dim=-1)


class Gated(nn.Module):
    """Blocks of RMSNorm and a gated product, as in language models, over one row or several."""

    def __init__(self, width: int, inner: int, depth: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.RMSNorm(width, eps=1e-6) for _ in range(depth)])
        self.up = nn.ModuleList([nn.Linear(width, 2 * inner, bias=False) for _ in range(depth)])
        self.down = nn.ModuleList([nn.Linear(inner, width) for _ in range(depth)])
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            gate, value = up(norm(x)).chunk(2, dim=-1)
            x = x + down(F.silu(gate) * value)
        return F.log_softmax(self.last(x), dim=-1)


class Attention(nn.Module):
    """Self-attention of several heads over the entities of a row, and their mean."""

    def __init__(self, entities: int, width: int, heads: int):
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.all, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.place = nn.Parameter(torch.randn(entities, width) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        rows, entities, width = x.shape
        q, k, v = self.all(self.norm(x + self.place)).chunk(3, dim=-1)
        q, k, v = (part.reshape(rows, entities, self.heads, -1).transpose(1, 2) for part in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(rows, entities, width)
        return (x + self.out(mixed)).mean(dim=1)


class Mixer(nn.Module):
    """Dense layers over the entities of a row, then over the features of each."""

    def __init__(self, entities: int, width: int):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across, self.along = nn.Linear(entities, entities), nn.Linear(width, width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.gelu(self.across(self.before(x).transpose(1, 2))).transpose(1, 2)
        x = x + F.gelu(self.along(self.between(x)))
        return self.last(x.sum(dim=1) + x.amax(dim=1) - x.amin(dim=2).sum(dim=-1, keepdim=True))


class Duelling(nn.Module):
    """Values and advantages of actions, those that are not allowed far below, and the one that was taken."""

    def __init__(self, features: int, width: int, actions: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, width), nn.ELU())
        self.value, self.advantage = nn.Linear(width, 1), nn.Linear(width, actions)

    def forward(self, observed: Tensor, allowed: Tensor, taken: Tensor) -> Tensor:
        h = self.body(observed)
        advantage = self.advantage(h)
        q = self.value(h) + advantage - advantage.mean(dim=-1, keepdim=True)
        q = torch.where(allowed > 0, q, torch.full_like(q, -1e3))
        return torch.cat([q, q.gather(1, taken), torch.minimum(q, advantage)], dim=-1)


class Physics(nn.Module):
    """Columns in another order, powers, roots and conditions, as a hand-written model of a process has them."""

    def __init__(self, features: int, width: int, exponent: float, order: list[int]):
        super().__init__()
        self.exponent = exponent
        self.register_buffer("order", torch.tensor(order))
        self.hidden, self.last = nn.Linear(features + 3, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, self.get_buffer("order")]
        first, second = x[:, 0], x[:, 1]
        speed = torch.sqrt(first**2 + second**2 + 1e-3)
        drag = torch.pow(speed, self.exponent) * torch.exp(-first.abs())
        wet = (second > 0.1) & (first < 1.5)
        chosen = torch.where(wet, drag, torch.sin(second) - speed)
        x = torch.cat([x, torch.stack([speed, drag, chosen], dim=1)], dim=1)
        return self.last(F.leaky_relu(self.hidden(x))) * torch.maximum(first, second)[:, None]


class Experts(nn.Module):
    """A gate's weighted sum of several experts, and a covariance of their answers."""

    def __init__(self, features: int, experts: int):
        super().__init__()
        self.gate = nn.Linear(features, experts)
        self.experts = nn.ModuleList([nn.Linear(features, experts) for _ in range(experts)])

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.stack([F.hardsigmoid(expert(x)) for expert in self.experts], dim=1)
        weights = torch.softmax(self.gate(x), dim=-1)
        mixed = (weights.unsqueeze(-1) * answers).sum(dim=1)
        shared = answers @ answers.transpose(1, 2)
        return torch.cat([mixed, torch.softmax(shared, dim=1).mean(dim=2), (shared @ answers).sum(dim=2)], dim=1)


class EveryOperator(nn.Module):
    """A small network with a place for every fault of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.root, self.norm = nn.Embedding(9, 4), nn.RMSNorm(4, eps=1e-6), nn.LayerNorm(4)
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.first, self.last = nn.Linear(4, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        seen = self.table(kind)
        square = torch.stack([self.norm(x), self.root(x), torch.sin(x), x[:, self.get_buffer("order")]], dim=1)
        square = square * torch.sigmoid(kind.float()).unsqueeze(-1)
        square = torch.softmax(square, dim=-1) @ (square + seen).transpose(1, 2)
        parts = torch.cat([square.sum(dim=1)[:, 1:3], square.mean(dim=2)[:, :2]], dim=-1)
        chosen = torch.where(parts > x, self.first(parts), torch.minimum(x, parts).abs() ** 1.5)
        return self.last(torch.cat([chosen, x], dim=1))


def _tables(rng: np.random.Generator) -> Written:
    users, items, numbers, seen = (_size(rng, *span) for span in ((2, 200), (2, 300), (1, 12), (1, 6)))
    module = Tables(users, items, numbers, _size(rng, 2, 32))
    picked = torch.randint(users, (4,)), torch.randint(items, (4, seen))
    return module, (*picked, _rows(numbers))


def _duelling(rng: np.random.Generator) -> Written:
    features, actions = _size(rng, 2, 24), _size(rng, 2, 12)
    example = _rows(features), torch.ones(4, actions), torch.randint(actions, (4, 1))
    return Duelling(features, _size(rng, 4, 64), actions), example


def _attention(rng: np.random.Generator) -> Written:
    heads, each = 2 ** _size(rng, 0, 2), _size(rng, 2, 8)
    entities = heads if rng.random() < 0.4 else _size(rng, 1, 8)
    return Attention(entities, heads * each, heads), (_rows(entities, heads * each),)


def _mixer(rng: np.random.Generator) -> Written:
    entities = _size(rng, 2, 12)
    width = entities if rng.random() < 0.6 else _size(rng, 2, 32)
    return Mixer(entities, width), (_rows(entities, width),)


def _physics(rng: np.random.Generator) -> Written:
    features = _size(rng, 3, 12)
    exponent = [1.7, 0.5, 3.0, 2.2][rng.integers(4)]
    module = Physics(features, _size(rng, 2, 48), exponent, rng.permutation(features).tolist())
    return module, (_rows(features),)


def _gated(rng: np.random.Generator) -> Written:
    width = _size(rng, 4, 64)
    shape = (width,) if rng.random() < 0.5 else (_size(rng, 2, 6), width)
    return Gated(width, _size(rng, 4, 64), _size(rng, 1, 4)), (_rows(*shape),)


def _experts(rng: np.random.Generator) -> Written:
    features = _size(rng, 2, 24)
    return Experts(features, _size(rng, 2, 8)), (_rows(features),)


FAMILIES: Mapping[str, Callable[[np.random.Generator], Written]] = {
    "tables": _tables,
    "field": lambda rng: (Field(_size(rng, 1, 6), _size(rng, 8, 96)), (_rows(6),)),
    "gated": _gated,
    "attention": _attention,
    "mixer": _mixer,
    "duelling": _duelling,
    "physics": _physics,
    "experts": _experts,
    "every operator": lambda _: (EveryOperator(), (_rows(4), torch.randint(9, (4, 4)))),
}


def written(seed: int) -> Written:
    """One of the families after the other, with sizes and weights of the seed."""
    family = list(FAMILIES)[seed % len(FAMILIES)]
    return of_family(family, seed)


def of_family(family: str, seed: int) -> Written:
    """One network of a family, with norms away from their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, example = FAMILIES[family](np.random.default_rng(seed))
        for part in module.modules():
            if isinstance(part, nn.LayerNorm | nn.RMSNorm):
                for values in part.parameters():
                    values.data.normal_(0.5, 1)
    return module.eval(), example
