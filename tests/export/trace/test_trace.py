"""What a forward may do: each is exported, proved, and gives what eager PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from export import export, inspect, publish
from runtime import Session
from tests.support.cases import normal
from tests.support.hand_written import Written, differences, proved

FOUR = torch.tensor([0.7, -1.2, 0.4, 2.0])


def hidden_view(_: Written, x: Tensor) -> Tensor:
    flat = torch.flatten(x * 1, 1)
    return torch.relu_(flat) + torch.flatten(x, 1)


def input_overwritten(_: Written, x: Tensor) -> Tensor:
    x[:, 0] = 0
    x += 1
    return x.mul_(2)


def two_views(_: Written, x: Tensor) -> Tensor:
    first, second = torch.flatten(x, 1), torch.flatten(x, 1)
    torch.relu_(first)
    return first + second


def of_parameters(m: Written, x: Tensor) -> Tensor:
    t = torch.ones(4)
    power: Any = m.p
    t += power**4
    t[0], half = 0.5, t.view(2, 2)[1]
    half *= 3
    return x * t


def branch_on_a_parameter(m: Written, x: Tensor) -> Tensor:
    return x if m.p[0] == 0 else x * m.p.sum().item()


def types(m: Written, x: Tensor) -> Tensor:
    y = x.to(x.dtype).type_as(x).float().to(torch.float32)
    return y * m.p.to(x).type_as(x) + F.softmax(x, 1, dtype=torch.float32)


def asserts(m: Written, x: Tensor) -> Tensor:
    assert isinstance(x, Tensor)
    assert x.dtype == torch.float32
    assert x.device.type == "cpu"
    assert x.dim() == 2
    assert x.shape[1] == 4
    assert not x.requires_grad
    assert x.is_contiguous()
    torch._assert(x.size(-1) == 4, "four features")
    if x.ndim > 2:
        raise ValueError(x.shape)
    return m.parts[0](torch.as_tensor(x, dtype=torch.float32))


def shapes(m: Written, x: Tensor) -> Tensor:
    y = m.parts[0](x).reshape(len(x), *x.shape[1:])
    y = y.view(*x.shape[:-1], 2, 2).flatten(x.dim() - 1)
    y = y.reshape(-1, np.prod(x.shape[1:])) + y.view(x.size(0), -1) + y.view(y.size()) + y.view_as(x)
    return y.unflatten(-1, (2, 2)).reshape(x.shape[0], x.numel() // len(x))


def a_decimal_written(m: Written, x: Tensor) -> Tensor:
    """0.1 is another number in float64 than in float32."""
    y = torch.cat([x, -x], dim=1) * 1.25
    y.T[0] = 0.1
    y = y + 0.5
    for part in m.parts:
        y = y + F.elu(part(y))
    return y


def writes(m: Written, x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1] = y[:, 0] * 2
    y[:, 2:4] = 0.5
    y[:, ::2] += 1
    y[:, [0, 3]] *= 2
    y[:, torch.tensor([1, 3])] = x[:, torch.tensor([0, 2])]
    y[:, torch.tensor([True, False, True, False])] -= m.p[:2]
    y[..., -1] = x[..., 0]
    y[:, 1:-1] = m.p[:2]
    return y


def masks(_: Written, x: Tensor) -> Tensor:
    y = x * 1
    y[x > 1] = 1.0
    y[y < -1] = -1
    y[x[:, 0] > 0] = 0.5
    return y.masked_fill(y == 0.5, 2).masked_fill_(x > 2, 7.0)


def a_mask_of_two_dimensions(_: Written, x: Tensor) -> Tensor:
    y = x.view(-1, 2, 2).clone()
    y[:, torch.tensor([[True, False], [True, True]])] = x[:, 1:]
    return y


def into_zeros(m: Written, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 6)
    out[:, :4] = x
    out[:, 4] = x.sum(1)
    grid = x.new_empty(x.shape[0], 2, 3)
    grid[:, 0], grid[:, 1, 1:], grid[:, 1, 0] = x[:, 1:], x[:, :2], 0.0
    wide = m.p.expand(len(x), 4).clone()
    wide[:, 0] = x[:, 0]
    return torch.cat([out, grid.flatten(1), wide, torch.zeros_like(x).copy_(x)], 1)


def views_of_views(_: Written, x: Tensor) -> Tensor:
    y = x * 1
    y[:, 1:3][:, 0] = 3
    y[:, 1:3][:, 1] += x[:, 0]
    y.view(-1, 2, 2)[:, 1, :].mul_(2)
    turned = y.view(-1, 2, 2).transpose(1, 2)
    turned[:, 0] = turned[:, 1]
    first, second = y.chunk(2, 1)
    second.add_(first)
    for column in y.unbind(1):
        column.clamp_(min=-1)
    return y + turned.reshape(-1, 4) + torch.cat([second, first], 1)


def a_view_of_a_constant(_: Written, x: Tensor) -> Tensor:
    y = torch.zeros(len(x), 4)
    early = y[:, :2]
    early += 1
    y += x
    later = y[:, 2:]
    later.copy_(early)
    return y + early.sum(1, keepdim=True)


def detached(m: Written, x: Tensor) -> Tensor:
    y = m.parts[0](x)
    y.detach().mul_(2)
    y.data[:, 0] = 0
    return x + (torch.round(y) - y).detach()


def all_in_place(_: Written, x: Tensor) -> Tensor:
    y = x * 1
    y.addcmul_(x, x, value=0.5).sub_(x, alpha=2).neg_().abs_().add_(1).div_(3).pow_(2).sqrt_()
    y.exp_().log_().sigmoid_().tanh_()
    return F.elu(F.relu(y, inplace=True), inplace=True).clamp_(0, 0.4)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0) * 2

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient


@torch.enable_grad()
def with_gradients(m: Written, x: Tensor) -> Tensor:
    return m.parts[0](x)


def unread(m: Written, x: Tensor) -> Tensor:
    _ = torch.rand(3), torch.rand_like(x), m.parts[1](x.unsqueeze(1)), x.sort(1), x.double()
    return m.parts[0](x)


def a_sum_of_prefixes(_: Written, x: Tensor) -> Tensor:
    y = torch.zeros(len(x), 4)
    for i in range(4):
        y[:, i] += x[:, : i + 1].sum(1)
    return y


def distribution(m: Written, x: Tensor) -> tuple[Tensor, Tensor]:
    normal = torch.distributions.Normal(m.parts[0](x), m.p.exp())
    return normal.mean * 1, normal.log_prob(x)


def masked_attention(m: Written, x: Tensor) -> Tensor:
    rows = x.view(-1, 2, 2)
    hidden = torch.ones(2, 2, dtype=torch.bool).triu(1)
    causal = F.scaled_dot_product_attention(rows, rows, rows, is_causal=True)
    return m.parts[0](rows, rows, rows, attn_mask=hidden)[0] + causal


def a_lookup_of_a_choice(m: Written, x: Tensor) -> Tensor:
    y = x
    for _ in range(40):
        y = y + torch.tanh(y)
    return m.parts[0](y.argmax(1))


LINEAR = nn.Linear(4, 4)


def seeded_layers() -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return [nn.Linear(8, 8), nn.Linear(8, 8)]


ACCEPTED: dict[str, nn.Module] = {
    "softshrink": nn.Sequential(nn.Linear(4, 4), nn.Softshrink()),
    "cosine": Written(lambda _, x: x.cos()),
    "a hidden view overwritten": Written(hidden_view),
    "two views, one overwritten": Written(two_views),
    "the input overwritten": Written(input_overwritten),
    "a layer made in forward": Written(lambda _, x: nn.LeakyReLU(0.3)(x)),
    "an option that is a constant": Written(lambda m, x: F.leaky_relu(x, m.p[0].item()) * x.clamp(m.p[1], m.p[3]),
        p=FOUR),
    "a temporary of parameters": Written(of_parameters, p=FOUR),
    "a branch on a parameter": Written(branch_on_a_parameter, p=FOUR),
    "the shape of a weight": Written(lambda m, x: F.layer_norm(x, m.p.shape, m.p, m.p * 2), p=FOUR),
    "types": Written(types, p=FOUR),
    "asserts": Written(asserts, LINEAR),
    "sizes": Written(shapes, LINEAR),
    "writes": Written(writes, p=FOUR),
    "a decimal": Written(a_decimal_written, *seeded_layers()),
    "masks": Written(masks),
    "a mask of two dimensions": Written(a_mask_of_two_dimensions),
    "into zeros": Written(into_zeros, p=FOUR),
    "views of views": Written(views_of_views),
    "a view of a constant": Written(a_view_of_a_constant),
    "detached": Written(detached, LINEAR),
    "in place": Written(all_in_place),
    "a sum of prefixes": Written(a_sum_of_prefixes),
    "autograd.Function": Written(lambda m, x: Doubled.apply(m.parts[0](x)), LINEAR),
    "gradients in the forward": Written(with_gradients, LINEAR),
    "checkpointing": Written(lambda m, x: checkpoint(m.parts[0], x, use_reentrant=False), LINEAR),
    "nothing refused is read": Written(unread, LINEAR, nn.Conv1d(1, 4, 3)),
    "the moments of a distribution": Written(distribution, LINEAR, p=FOUR),
    "masked attention": Written(masked_attention, nn.MultiheadAttention(2, 1, batch_first=True)),
    "a guard for what is not finite": Written(lambda _, x: torch.where(torch.isfinite(x), x, torch.zeros_like(x))),
    "a mean of what is there": Written(lambda _, x: (x * (x > 0)).sum(1) / (x > 0).sum(1).clamp(min=1)),
    "a product with a vector": Written(lambda m, x: x @ m.p, p=FOUR),
    "a matrix times rows": Written(lambda m, x: (m.w @ x.t()).t(), w=FOUR.expand(3, 4).clone()),
    "products of heads beside each other": Written(lambda _, x: torch.einsum("hnik,hnjk->hnij",
        *(torch.stack((y.view(-1, 2, 2), 3 * y.view(-1, 2, 2))) for y in (x, 2 * x))).mT.sum(0)),
    "its input beside": Written(lambda _, x: (x * 2, x, x.view(-1, 2, 2))),
    "a constant beside, for every row": Written(lambda _, x: {"y": x * 2, "ones": torch.ones(len(x), 2)}),
    "padding": Written(lambda _, x: torch.cat([F.pad(x[:, None], (2, 1), mode=k) for k in ("reflect", "circular",
        "replicate")], 1)),
    "a lookup of what many residual blocks choose": Written(a_lookup_of_a_choice, nn.Embedding(4, 3)),
    "int32 on the way": Written(lambda _, x: (x > 0).int().float() * (x > 1).int().sum(1, keepdim=True) * x),
}  # fmt: skip
"""Each takes rows of four features."""


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_a_forward_may_do(name: str, tmp_path: Path) -> None:
    proved(ACCEPTED[name], tmp_path, input_shape=(4,))


def test_an_input_with_a_default(tmp_path: Path) -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor | None = None, scale: float = 2.0) -> Tensor:
            return self.layer(torch.zeros(1, 4) if x is None else x) * scale

    artifact = proved(Optional(), tmp_path)
    assert [port.name for port in artifact.summary.inputs] == ["input"]


def test_a_forward_replaced_by_a_lambda(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4)
    module = nn.Sequential(layer)
    vars(module)["forward"] = lambda x: layer(x) + x
    proved(module, tmp_path, input_shape=(4,))


OVER_ROWS: dict[str, Callable[[Written, Tensor], Tensor]] = {
    "softmax": lambda m, x: torch.softmax(m.parts[0](x), 0),
    "mean": lambda _, x: x - x.mean(0),
    "attention": lambda _, x: torch.softmax(x @ x.t(), -1) @ x,
    "mean of all": lambda _, x: x - x.mean(),
    "largest": lambda _, x: x / x.abs().max(),
}


@pytest.mark.parametrize("name", OVER_ROWS)
def test_rows_that_depend_on_each_other_are_told(name: str, tmp_path: Path) -> None:
    module = Written(OVER_ROWS[name], LINEAR)
    artifact = proved(module, tmp_path, input_shape=(4,))
    summary = inspect(artifact.path).summary
    assert summary.rows_depend
    assert "a row's result depends on the rows beside it: batches are never cut or joined" in summary.remarks
    x = torch.from_numpy(normal(40_000, 4)) if name != "attention" else torch.from_numpy(normal(500, 4))
    with Session(artifact.path, "cpu") as session:
        assert not session.divisible
        assert session.predict(x).shape == (len(x), 4)
    differences(module, artifact, {"input": x[:500]})


def test_rows_that_stand_alone_are_not_told_to_depend(tmp_path: Path) -> None:
    artifact = export(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Softmax(1)), tmp_path / "m.onnx")
    assert not artifact.summary.rows_depend
    assert not any("rows beside it" in remark for remark in artifact.summary.remarks)


def test_values_are_named_by_their_place_in_the_module(tmp_path: Path) -> None:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Dropout(0.1)), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.head(self.body(x) + torch.relu(self.body[0](x))))

    artifact, _ = publish(Policy(), tmp_path / "m.onnx", device="cpu", page=False)
    assert [(block.path, block.op) for block in artifact.summary.blocks] == [
        *(("body.0", "linear"), ("body.1", "gelu"), ("body.0_1", "linear"), ("relu", "relu"), ("add", "add")),
        *(("head", "linear"), ("tanh", "tanh")),
    ]
    assert "dropout 'body.2' (p 0.1) is not in the file: in evaluation mode it does nothing" in artifact.summary.remarks
    assert str(tmp_path).encode() not in artifact.path.read_bytes()
    assert b".py" not in artifact.path.read_bytes()
