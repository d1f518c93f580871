"""The dense parts of networks for recommending and for click-through rates."""

from __future__ import annotations

from typing import Any

from torch import nn

from benchmarks.zoo.entries import Entry, at, floats, ints, of


def _deep(kind: str, *args: Any, **options: Any) -> nn.Module:
    """A layer of deepctr-torch."""
    path = "core" if kind in ("DNN", "PredictionLayer", "LocalActivationUnit") else "interaction"
    return getattr(at(f"deepctr_torch.layers.{path}"), kind)(*args, **options)


def _hub(kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at("torch_rechub.basic.layers"), kind)(*args, **options)


def _fuxi(kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at("fuxictr.pytorch.layers"), kind)(*args, **options)


def _bole(kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at("recbole.model.layers"), kind)(*args, **options)


ENTRIES: list[Entry] = [
    *of(
        "deepctr-torch",
        ("DNN", lambda: _deep("DNN", 8, [16, 16], init_std=0.3), floats(8)),
        (
            "DNN normalised",
            lambda: _deep("DNN", 8, [16, 16], use_bn=True, dropout_rate=0.1, init_std=0.3, activation="prelu"),
            floats(8),
        ),
        ("DNN Dice", lambda: _deep("DNN", 8, [16, 16], activation="dice", dice_dim=2, init_std=0.3), floats(8)),
        ("PredictionLayer", lambda: nn.Sequential(nn.Linear(8, 1), _deep("PredictionLayer", "binary")), floats(8)),
        ("CrossNet", lambda: _deep("CrossNet", 8, layer_num=2), floats(8)),
        ("CrossNet of matrices", lambda: _deep("CrossNet", 8, layer_num=2, parameterization="matrix"), floats(8)),
        ("CrossNetMix", lambda: _deep("CrossNetMix", 8, low_rank=4, num_experts=2, layer_num=2), floats(8)),
        ("FM", lambda: _deep("FM"), floats(5, 8)),
        ("BiInteractionPooling", lambda: _deep("BiInteractionPooling"), floats(5, 8)),
        ("SENETLayer", lambda: _deep("SENETLayer", 5), floats(5, 8)),
        ("InteractingLayer", lambda: _deep("InteractingLayer", 8), floats(5, 8)),
        ("LogTransformLayer", lambda: _deep("LogTransformLayer", 5, 8, 4), floats(5, 8)),
    ),
    *of(
        "torch-rechub",
        ("MLP", lambda: _hub("MLP", 8, dims=[16, 16], dropout=0.1), floats(8)),
        ("MLP PReLU", lambda: _hub("MLP", 8, dims=[16], activation="prelu"), floats(8)),
        ("MLP Dice", lambda: _hub("MLP", 8, dims=[16], activation="dice"), floats(8)),
        ("LR", lambda: _hub("LR", 8, sigmoid=True), floats(8)),
        ("CrossNetwork", lambda: _hub("CrossNetwork", 8, 2), floats(8)),
        ("CrossNetV2", lambda: _hub("CrossNetV2", 8, 2), floats(8)),
        ("CrossNetMix", lambda: _hub("CrossNetMix", 8, 2, 4, 2), floats(8)),
        ("FM", lambda: _hub("FM"), floats(5, 8)),
        ("SENETLayer", lambda: _hub("SENETLayer", 6), floats(6, 8)),
        ("BiLinearInteractionLayer", lambda: _hub("BiLinearInteractionLayer", 8, 4), floats(4, 8)),
        ("CEN", lambda: _hub("CEN", 8, 6, 2), floats(6, 8)),
        ("InteractingLayer", lambda: _hub("InteractingLayer", 8), floats(5, 8)),
    ),
    *of(
        "fuxictr",
        ("MLP_Block", lambda: _fuxi("MLP_Block", 8, [16, 16], output_dim=1, output_activation="Sigmoid"), floats(8)),
        (
            "MLP_Block normalised",
            lambda: _fuxi("MLP_Block", 8, [16, 16], ["PReLU", "Tanh"], 2, batch_norm=True, dropout_rates=0.1),
            floats(8),
        ),
        ("CrossNet", lambda: _fuxi("CrossNet", 8, 2), floats(8)),
        ("CrossNetV2", lambda: _fuxi("CrossNetV2", 8, 2), floats(8)),
        ("CrossNetMix", lambda: _fuxi("CrossNetMix", 8, 2, 4, 2), floats(8)),
        ("InnerProductInteraction", lambda: _fuxi("InnerProductInteraction", 5), floats(5, 8)),
        (
            "InnerProductInteraction of vectors",
            lambda: _fuxi("InnerProductInteraction", 5, output="inner_product"),
            floats(5, 8),
        ),
        ("InteractionMachine", lambda: _fuxi("InteractionMachine", 8, order=3), floats(5, 8)),
        ("BilinearInteractionV2", lambda: _fuxi("BilinearInteractionV2", 5, 8, "field_all"), floats(5, 8)),
    ),
    *of(
        "recbole",
        ("MLPLayers", lambda: _bole("MLPLayers", [8, 16, 3], activation="tanh"), floats(8)),
        (
            "MLPLayers normalised",
            lambda: _bole("MLPLayers", [8, 16, 3], activation="leakyrelu", bn=True, last_activation=False),
            floats(8),
        ),
        ("MLPLayers Dice", lambda: _bole("MLPLayers", [8, 16, 3], activation="dice"), floats(8)),
        ("BaseFactorizationMachine", lambda: _bole("BaseFactorizationMachine"), floats(5, 8)),
        ("AttLayer", lambda: _bole("AttLayer", 8, 4), floats(5, 8)),
        ("VanillaAttention", lambda: _bole("VanillaAttention", 8, 4), floats(5, 8)),
        ("FeedForward", lambda: _bole("FeedForward", 8, 16, 0.1, "gelu", 1e-12), floats(5, 8)),
        ("FMEmbedding", lambda: _bole("FMEmbedding", [4, 4], [0, 4], 8), ints(4, 2)),
    ),
]
