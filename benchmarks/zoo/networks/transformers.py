"""The feed-forward parts and heads of transformers, and mixers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from benchmarks.zoo.entries import Entry, at, floats, of

_SMALL = {"hidden_size": 16, "intermediate_size": 32}
_T5 = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2}


def _part(model: str, config: str, *parts: str, **options: Any) -> nn.Module:
    """Parts of a model of transformers, one after another, from a small configuration."""
    settings = getattr(at(f"transformers.models.{model}"), config)(**options)
    made = [getattr(at(f"transformers.models.{model}.modeling_{model}"), part)(settings) for part in parts]
    return made[0] if len(made) == 1 else nn.Sequential(*made)


def _x(**options: Any) -> nn.Module:
    return at("x_transformers.x_transformers").FeedForward(16, mult=2, **options)


def _mlps(path: str, kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at(f"x_mlps_pytorch.{path}"), kind)(*args, **options)


def _diffusers(path: str, kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at(f"diffusers.models.{path}"), kind)(*args, **options)


def _gpt2() -> nn.Module:
    config = at("transformers.models.gpt2").GPT2Config(n_embd=16, n_head=2)
    return at("transformers.models.gpt2.modeling_gpt2").GPT2MLP(32, config)


def _mixer() -> nn.Module:
    config = SimpleNamespace(dropout=0.1, expansion_factor=2)
    return at("transformers.models.patchtsmixer.modeling_patchtsmixer").PatchTSMixerMLP(8, 8, config)


ENTRIES: list[Entry] = [
    *of(
        "transformers",
        ("BertIntermediate", lambda: _part("bert", "BertConfig", "BertIntermediate", **_SMALL), floats(16)),
        (
            "BertPredictionHeadTransform",
            lambda: _part("bert", "BertConfig", "BertPredictionHeadTransform", **_SMALL),
            floats(5, 16),
        ),
        ("BertPooler", lambda: _part("bert", "BertConfig", "BertPooler", **_SMALL), floats(5, 16)),
        (
            "RobertaClassificationHead",
            lambda: _part("roberta", "RobertaConfig", "RobertaClassificationHead", **_SMALL, num_labels=3),
            floats(5, 16),
        ),
        (
            "ElectraClassificationHead",
            lambda: _part("electra", "ElectraConfig", "ElectraClassificationHead", **_SMALL),
            floats(5, 16),
        ),
        ("LlamaMLP", lambda: _part("llama", "LlamaConfig", "LlamaMLP", **_SMALL, num_attention_heads=2), floats(16)),
        (
            "LlamaMLP of a sequence",
            lambda: _part("llama", "LlamaConfig", "LlamaMLP", **_SMALL, num_attention_heads=2),
            floats(5, 16),
        ),
        ("GemmaMLP", lambda: _part("gemma", "GemmaConfig", "GemmaMLP", **_SMALL), floats(16)),
        ("NemotronMLP", lambda: _part("nemotron", "NemotronConfig", "NemotronMLP", **_SMALL), floats(16)),
        ("T5DenseActDense", lambda: _part("t5", "T5Config", "T5DenseActDense", **_T5), floats(16)),
        (
            "T5LayerFF",
            lambda: _part("t5", "T5Config", "T5LayerFF", **_T5, feed_forward_proj="gated-gelu"),
            floats(16),
        ),
        ("GPT2MLP", _gpt2, floats(16)),
        (
            "GPTNeoXMLP",
            lambda: _part("gpt_neox", "GPTNeoXConfig", "GPTNeoXMLP", **_SMALL, num_attention_heads=2),
            floats(5, 16),
        ),
        ("PhiMLP", lambda: _part("phi", "PhiConfig", "PhiMLP", **_SMALL), floats(16)),
        ("CLIPMLP", lambda: _part("clip", "CLIPTextConfig", "CLIPMLP", **_SMALL), floats(16)),
        ("Dinov2MLP", lambda: _part("dinov2", "Dinov2Config", "Dinov2MLP", hidden_size=16, mlp_ratio=2), floats(16)),
        ("PatchTSMixerMLP", _mixer, floats(5, 8)),
    ),
    *of(
        "x-transformers",
        ("FeedForward", _x, floats(16)),
        ("FeedForward of a sequence", lambda: _x(dropout=0.1), floats(5, 16)),
        ("FeedForward GLU", lambda: _x(glu=True), floats(16)),
        ("FeedForward SwiGLU", lambda: _x(glu=True, swish=True, no_bias=True), floats(16)),
        ("FeedForward squared ReLU", lambda: _x(relu_squared=True, post_act_ln=True), floats(16)),
    ),
    *of(
        "x-mlps-pytorch",
        ("MLP", lambda: _mlps("mlp", "MLP", 8, 16, 16, 3), floats(8)),
        ("MLP squeezed", lambda: _mlps("mlp", "MLP", 8, 16, 1, squeeze_out=True), floats(8)),
        (
            "MLP normalised",
            lambda: _mlps("normed_mlp", "MLP", 8, 16, 16, 3, use_rmsnorm=True, final_norm=True),
            floats(8),
        ),
        ("Feedforwards", lambda: _mlps("ff", "Feedforwards", 16, 2, dim_in=8, dim_out=3, final_norm=True), floats(8)),
        ("GroupedMLP", lambda: _mlps("grouped_mlp", "GroupedMLP", 8, 16, 3, groups=2), floats(2, 8)),
        ("nFeedforwards", lambda: _mlps("nff", "nFeedforwards", 16, 2, dim_in=8, dim_out=3), floats(8)),
        ("FiLMableMLP", lambda: _mlps("filmable_mlp", "FiLMableMLP", 8, 16, 3, cond_dim=4), (floats(8), floats(4))),
        (
            "ResidualNormedMLP",
            lambda: _mlps("residual_normed_mlp", "ResidualNormedMLP", 16, 8, dim_in=8, dim_out=3),
            floats(8),
        ),
        ("LoRA", lambda: _mlps("lora", "LoRA", 8, 4, dim_out=3, zero_init_up=False), floats(8)),
    ),
    *of(
        "diffusers",
        ("FeedForward", lambda: _diffusers("attention", "FeedForward", 16), floats(5, 16)),
        ("FeedForward GELU", lambda: _diffusers("attention", "FeedForward", 16, activation_fn="gelu"), floats(16)),
        (
            "FeedForward approximate GELU",
            lambda: _diffusers("attention", "FeedForward", 16, activation_fn="gelu-approximate"),
            floats(16),
        ),
        ("SwiGLU", lambda: _diffusers("activations", "SwiGLU", 16, 32), floats(16)),
        ("TimestepEmbedding", lambda: _diffusers("embeddings", "TimestepEmbedding", 16, 32), floats(16)),
        (
            "TimestepEmbedding with a condition",
            lambda: _diffusers("embeddings", "TimestepEmbedding", 16, 32, cond_proj_dim=4),
            (floats(16), floats(4)),
        ),
        ("Timesteps", lambda: _diffusers("embeddings", "Timesteps", 16, True, 0), floats()),
        (
            "GaussianFourierProjection",
            lambda: _diffusers("embeddings", "GaussianFourierProjection", 8, log=False),
            floats(),
        ),
        (
            "PixArtAlphaTextProjection",
            lambda: _diffusers("embeddings", "PixArtAlphaTextProjection", 8, 16),
            floats(5, 8),
        ),
        ("ImageProjection", lambda: _diffusers("embeddings", "ImageProjection", 8, 16, 4), floats(8)),
    ),
    *of(
        "monai",
        ("MLPBlock", lambda: at("monai.networks.blocks.mlp").MLPBlock(16, 32, 0.1), floats(5, 16)),
        ("MLPBlock GEGLU", lambda: at("monai.networks.blocks.mlp").MLPBlock(16, 32, act="GEGLU"), floats(5, 16)),
        (
            "FullyConnectedNet",
            lambda: at("monai.networks.nets").FullyConnectedNet(8, 3, [16, 16], dropout=0.2),
            floats(8),
        ),
        (
            "VarFullyConnectedNet encoder",
            lambda: at("monai.networks.nets").VarFullyConnectedNet(8, 3, 4, [16], [16]).encode,
            floats(8),
        ),
    ),
]
