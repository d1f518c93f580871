"""Coordinate networks: implicit representations, networks for differential equations, Kolmogorov-Arnold networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.zoo.entries import Entry, at, floats, of


def _deep(kind: str, *args: Any) -> nn.Module:
    return getattr(at("deepxde.nn"), kind)(*args)


def _equations(kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at("neurodiffeq.networks"), kind)(*args, **options)


def _kan(**options: Any) -> nn.Module:
    return at("kan").KAN(width=[3, 4, 2], grid=3, k=3, seed=0, auto_save=False, save_act=False, **options)


ENTRIES: list[Entry] = [
    *of(
        "siren-pytorch",
        ("SirenNet", lambda: at("siren_pytorch").SirenNet(2, 16, 3, 3, w0_initial=30.0), floats(2)),
        (
            "SirenNet sigmoid",
            lambda: at("siren_pytorch").SirenNet(2, 16, 3, 3, final_activation=nn.Sigmoid(), dropout=0.1),
            floats(2),
        ),
        ("Siren", lambda: at("siren_pytorch").Siren(8, 16, w0=3.0), floats(8)),
    ),
    *of(
        "deepxde",
        ("FNN", lambda: _deep("FNN", [2, 16, 16, 1], "tanh", "Glorot normal"), floats(2)),
        (
            "FNN of three activations",
            lambda: _deep("FNN", [2, 16, 16, 1], ["sin", "swish", "relu"], "He normal"),
            floats(2),
        ),
        ("PFNN", lambda: _deep("PFNN", [2, [8, 8], [8, 8], 2], "tanh", "Glorot normal"), floats(2)),
        ("PFNN shared", lambda: _deep("PFNN", [2, 16, [8, 8], 2], "silu", "Glorot normal"), floats(2)),
    ),
    *of(
        "neurodiffeq",
        ("FCNN", lambda: _equations("FCNN", 2, 1, hidden_units=(16, 16)), floats(2)),
        (
            "FCNN SinActv",
            lambda: _equations("FCNN", 2, 1, hidden_units=(16, 16), actv=at("neurodiffeq.networks").SinActv),
            floats(2),
        ),
        (
            "FCNN Swish",
            lambda: _equations("FCNN", 2, 1, hidden_units=(16,), actv=at("neurodiffeq.networks").Swish),
            floats(2),
        ),
        (
            "FCNN APTx",
            lambda: _equations("FCNN", 2, 1, hidden_units=(16,), actv=at("neurodiffeq.networks").APTx),
            floats(2),
        ),
        ("Resnet", lambda: _equations("Resnet", 2, 1, hidden_units=(16, 16)), floats(2)),
        ("MonomialNN", lambda: nn.Sequential(_equations("MonomialNN", [1, 2, 3]), nn.Linear(3, 1)), floats(1)),
    ),
    *of(
        "pykan",
        ("KAN", lambda: _kan(), floats(3)),
        ("KAN without symbols", lambda: _kan(symbolic_enabled=False), floats(3)),
        ("KANLayer", lambda: at("kan.KANLayer").KANLayer(3, 2, num=4), floats(3)),
        ("MLP", lambda: at("kan.MLP").MLP([3, 8, 2], save_act=False), floats(3)),
    ),
    *of(
        "e3nn",
        ("FullyConnectedNet", lambda: at("e3nn.nn").FullyConnectedNet([8, 16, 16, 3], torch.relu), floats(8)),
        ("FullyConnectedNet SiLU", lambda: at("e3nn.nn").FullyConnectedNet([8, 16, 3], nn.functional.silu), floats(8)),
        ("FullyConnectedNet linear", lambda: at("e3nn.nn").FullyConnectedNet([8, 16, 3]), floats(8)),
    ),
]
