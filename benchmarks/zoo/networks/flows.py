"""Normalizing flows, their conditioners, and networks with constraints."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.zoo.entries import Entry, at, floats, of


def _subnet(wide: int, out: int) -> nn.Module:
    """The sub-network of FrEIA's own examples."""
    return nn.Sequential(nn.Linear(wide, 16), nn.ReLU(), nn.Linear(16, out))


def _sequence(kind: str, **options: Any) -> nn.Module:
    whole = at("FrEIA.framework").SequenceINN(6)
    for _ in range(2):
        whole.append(getattr(at("FrEIA.modules"), kind), subnet_constructor=_subnet, **options)
    return whole


def _made(package: str, **options: Any) -> nn.Module:
    return at(package).MADE(features=4, hidden_features=16, num_blocks=2, output_multiplier=2, **options)


def _masked(**options: Any) -> nn.Module:
    return at("zuko.nn").MaskedMLP(torch.ones(4, 4).tril(-1).bool(), hidden_features=[16, 16], **options)


def _nested(*layers: nn.Module, **options: Any) -> nn.Module:
    return at("monotonicnetworks").SigmaNet(nn.Sequential(*layers), sigma=1.0, **options)


def _lipschitz(*parts: nn.Module) -> nn.Module:
    return at("deel.torchlip").Sequential(*parts)


ENTRIES: list[Entry] = [
    *of(
        "nflows",
        ("MLP", lambda: at("nflows.nn.nets").MLP((8,), (3,), [16, 16]), floats(8)),
        ("MLP of a matrix", lambda: at("nflows.nn.nets").MLP((2, 4), (3, 2), [16], torch.tanh), floats(2, 4)),
        ("ResidualNet", lambda: at("nflows.nn.nets").ResidualNet(8, 3, 16), floats(8)),
        (
            "ResidualNet of a context",
            lambda: at("nflows.nn.nets").ResidualNet(8, 3, 16, context_features=4, use_batch_norm=True),
            (floats(8), floats(4)),
        ),
        ("MADE", lambda: _made("nflows.transforms.made"), floats(4)),
        ("MADE masked blocks", lambda: _made("nflows.transforms.made", use_residual_blocks=False), floats(4)),
    ),
    *of(
        "normflows",
        ("MLP", lambda: at("normflows.nets").MLP([8, 16, 16, 3], leaky=0.1), floats(8)),
        (
            "MLP clipped",
            lambda: at("normflows.nets").MLP([8, 16, 3], output_fn="clampexp", output_scale=2.0),
            floats(8),
        ),
        ("MLP of tanh", lambda: at("normflows.nets").MLP([8, 16, 3], output_fn="tanh", score_scale=2.0), floats(8)),
        ("ResidualNet", lambda: at("normflows.nets").ResidualNet(8, 3, 16), floats(8)),
        ("MADE", lambda: _made("normflows.nets"), floats(4)),
        ("LipschitzMLP", lambda: at("normflows.nets").LipschitzMLP([8, 16, 3], init_zeros=False), floats(8)),
        (
            "AffineCouplingBlock",
            lambda: at("normflows.flows").AffineCouplingBlock(at("normflows.nets").MLP([3, 16, 6])),
            floats(6),
        ),
        (
            "MaskedAffineFlow",
            lambda: at("normflows.flows").MaskedAffineFlow(
                torch.tensor([1.0, 0.0, 1.0, 0.0]), *(at("normflows.nets").MLP([4, 16, 4]) for _ in range(2))
            ),
            floats(4),
        ),
    ),
    *of(
        "zuko",
        ("MLP", lambda: at("zuko.nn").MLP(8, 3, [16, 16]), floats(8)),
        ("MLP normalised", lambda: at("zuko.nn").MLP(8, 3, [16, 16], nn.ELU, normalize=True), floats(8)),
        ("MaskedMLP", _masked, floats(4)),
        ("MaskedMLP residual", lambda: _masked(residual=True, activation=nn.SiLU), floats(4)),
        ("MonotonicMLP", lambda: at("zuko.nn").MonotonicMLP(4, 2, [16, 16]), floats(4)),
    ),
    *of(
        "pyro-ppl",
        ("DenseNN", lambda: at("pyro.nn").DenseNN(8, [16, 16], [3, 3]), floats(8)),
        ("DenseNN of one output", lambda: at("pyro.nn").DenseNN(8, [16], [4], nn.Tanh()), floats(8)),
        ("ConditionalDenseNN", lambda: at("pyro.nn").ConditionalDenseNN(8, 3, [16], [2, 2]), (floats(8), floats(3))),
        ("AutoRegressiveNN", lambda: at("pyro.nn").AutoRegressiveNN(4, [16, 16], [1, 1]), floats(4)),
        (
            "ConditionalAutoRegressiveNN",
            lambda: at("pyro.nn").ConditionalAutoRegressiveNN(4, 3, [16], [1, 1], skip_connections=True),
            (floats(4), floats(3)),
        ),
    ),
    *of(
        "FrEIA",
        ("AllInOneBlock", lambda: _sequence("AllInOneBlock"), floats(6)),
        ("AllInOneBlock soft", lambda: _sequence("AllInOneBlock", permute_soft=True), floats(6)),
        ("RNVPCouplingBlock", lambda: _sequence("RNVPCouplingBlock"), floats(6)),
        ("GLOWCouplingBlock", lambda: _sequence("GLOWCouplingBlock", clamp_activation="TANH"), floats(6)),
        ("NICECouplingBlock", lambda: _sequence("NICECouplingBlock"), floats(6)),
    ),
    *of(
        "monotonicnetworks",
        (
            "LipschitzLinear",
            lambda: nn.Sequential(
                at("monotonicnetworks").LipschitzLinear(4, 8, kind="one-inf"),
                nn.ReLU(),
                at("monotonicnetworks").LipschitzLinear(8, 1, kind="inf"),
            ),
            floats(4),
        ),
        (
            "SigmaNet of GroupSort",
            lambda: _nested(
                at("monotonicnetworks").LipschitzLinear(4, 8, kind="one-inf"),
                at("monotonicnetworks").GroupSort(4),
                at("monotonicnetworks").LipschitzLinear(8, 1, kind="inf"),
                monotonic_constraints=[1, 0, -1, 0],
            ),
            floats(4),
        ),
    ),
    *of(
        "deel-torchlip",
        (
            "SpectralLinear and FullSort",
            lambda: _lipschitz(
                at("deel.torchlip").SpectralLinear(8, 16),
                at("deel.torchlip").FullSort(),
                at("deel.torchlip").SpectralLinear(16, 2),
            ),
            floats(8),
        ),
        (
            "SpectralLinear and GroupSort2",
            lambda: _lipschitz(
                at("deel.torchlip").SpectralLinear(8, 16),
                at("deel.torchlip").GroupSort2(),
                at("deel.torchlip").FrobeniusLinear(16, 2),
            ),
            floats(8),
        ),
    ),
]
