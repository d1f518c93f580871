"""Networks for time series, and for systems that change with time."""

from __future__ import annotations

from typing import Any

from torch import nn

from benchmarks.zoo.entries import Entry, at, floats, ints, of


def _forecasting(path: str, kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at(f"pytorch_forecasting.models.{path}"), kind)(*args, **options)


def _fusion(kind: str, *args: Any, **options: Any) -> nn.Module:
    return _forecasting("temporal_fusion_transformer.sub_modules", kind, *args, **options)


def _nbeats(kind: str, *args: Any) -> nn.Module:
    return getattr(at("pytorch_forecasting.layers._nbeats._blocks"), kind)(*args, num_block_layers=2)


def _pina(kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at("pina.model"), kind)(*args, **options)


ENTRIES: list[Entry] = [
    *of(
        "gluonts",
        (
            "SimpleFeedForwardModel",
            lambda: at("gluonts.torch.model.simple_feedforward.module").SimpleFeedForwardModel(4, 12, [16, 16]),
            floats(12),
        ),
        (
            "SimpleFeedForwardModel normalised",
            lambda: at("gluonts.torch.model.simple_feedforward.module").SimpleFeedForwardModel(
                4, 12, [16, 16], batch_norm=True
            ),
            floats(12),
        ),
        (
            "FeatureEmbedder",
            lambda: at("gluonts.torch.modules.feature").FeatureEmbedder([5, 5], [3, 3]),
            ints(5, 2),
        ),
    ),
    *of(
        "pytorch-forecasting",
        ("GatedLinearUnit", lambda: _fusion("GatedLinearUnit", 8, 16, dropout=0.1), floats(8)),
        ("ResampleNorm", lambda: _fusion("ResampleNorm", 8, 8), floats(8)),
        ("AddNorm", lambda: _fusion("AddNorm", 8), (floats(8), floats(8))),
        ("GatedResidualNetwork", lambda: _fusion("GatedResidualNetwork", 8, 16, 8), floats(8)),
        (
            "GatedResidualNetwork of a context",
            lambda: _fusion("GatedResidualNetwork", 8, 16, 8, context_size=4),
            (floats(8), floats(4)),
        ),
        (
            "FullyConnectedModule",
            lambda: _forecasting("mlp.submodules", "FullyConnectedModule", 8, 3, 16, 2, nn.ReLU, dropout=0.1),
            floats(8),
        ),
        ("NBEATSGenericBlock", lambda: _nbeats("NBEATSGenericBlock", 16, 6), floats(10)),
        ("NBEATSTrendBlock", lambda: _nbeats("NBEATSTrendBlock", 16, 3), floats(10)),
        ("NBEATSSeasonalBlock", lambda: _nbeats("NBEATSSeasonalBlock", 16), floats(10)),
        (
            "StaticFeaturesEncoder",
            lambda: _forecasting("nhits.sub_modules", "StaticFeaturesEncoder", 8, 16),
            floats(8),
        ),
    ),
    *of(
        "pina-mathlab",
        ("FeedForward", lambda: _pina("FeedForward", 2, 1, inner_size=16, n_layers=2), floats(2)),
        ("ResidualFeedForward", lambda: _pina("ResidualFeedForward", 2, 1, inner_size=16), floats(2)),
        ("PirateNet", lambda: _pina("PirateNet", 2, 16, 1, n_layers=2), floats(2)),
        (
            "FourierFeatureEmbedding",
            lambda: nn.Sequential(
                at("pina.model.block").FourierFeatureEmbedding(2, 16, 1.0), _pina("FeedForward", 16, 1)
            ),
            floats(2),
        ),
    ),
]
