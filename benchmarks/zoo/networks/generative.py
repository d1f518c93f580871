"""Encoders and decoders, hypernetworks, and small networks of other libraries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from benchmarks.zoo.entries import Entry, at, floats, of

_CODE = SimpleNamespace(input_dim=(8,), latent_dim=3, discriminator_input_dim=3)


def _pythae(kind: str) -> nn.Module:
    return getattr(at("pythae.models.nn.default_architectures"), kind)(_CODE)


def _cebra(kind: str, **options: Any) -> nn.Module:
    return getattr(at("cebra.models.model"), kind)(8, 16, 3, **options)


def _hyper(**options: Any) -> nn.Module:
    return at("hypnettorch.mnets.mlp").MLP(8, 3, (16, 16), verbose=False, **options)


def _graph(**options: Any) -> nn.Module:
    return at("torch_geometric.nn").MLP([8, 16, 16, 3], **options)


ENTRIES: list[Entry] = [
    *of(
        "pythae",
        ("Encoder_AE_MLP", lambda: _pythae("Encoder_AE_MLP"), floats(8)),
        ("Encoder_VAE_MLP", lambda: _pythae("Encoder_VAE_MLP"), floats(8)),
        ("Decoder_AE_MLP", lambda: _pythae("Decoder_AE_MLP"), floats(3)),
        ("Metric_MLP", lambda: _pythae("Metric_MLP"), floats(8)),
        ("Discriminator_MLP", lambda: _pythae("Discriminator_MLP"), floats(3)),
    ),
    *of(
        "cebra",
        ("Offset0Model", lambda: _cebra("Offset0Model"), floats(8)),
        ("Offset0ModelMSE", lambda: _cebra("Offset0ModelMSE"), floats(8)),
        ("Offset0Modelv4", lambda: _cebra("Offset0Modelv4"), floats(8)),
        ("Offset0ModelResNetTanH", lambda: _cebra("Offset0ModelResNetTanH"), floats(8)),
    ),
    *of(
        "hypnettorch",
        ("MLP", _hyper, floats(8)),
        ("MLP normalised", lambda: _hyper(use_batch_norm=True, dropout_rate=0.2, activation_fn=nn.SELU()), floats(8)),
        ("MLP modulated", lambda: _hyper(use_context_mod=True), floats(8)),
    ),
    *of(
        "torch-geometric",
        ("MLP", _graph, floats(8)),
        ("MLP plain", lambda: _graph(norm=None, act="elu", plain_last=False), floats(8)),
        ("MLP of layer norms", lambda: _graph(norm="layer_norm", act_first=True, dropout=0.2), floats(8)),
    ),
]
