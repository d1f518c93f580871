"""Networks for tables and for survival times."""

from __future__ import annotations

from typing import Any

from torch import eye, nn, rand

from benchmarks.zoo.entries import Entry, at, floats, ints, of

_PLAIN = {"n_blocks": 2, "d_block": 16, "dropout": 0.1}
_BLOCKS = {"n_blocks": 2, "d_block": 16, "d_hidden": 32, "d_hidden_multiplier": None, "dropout1": 0.1, "dropout2": 0.0}
_ATTENTION = {"n_cont_features": 5, "cat_cardinalities": [4, 4], "d_out": 2, "n_blocks": 2, "d_block": 16}
_ATTENTION |= {"attention_n_heads": 4, "attention_dropout": 0.2, "ffn_d_hidden": 24, "ffn_d_hidden_multiplier": None}
_ATTENTION |= {"ffn_dropout": 0.1, "residual_dropout": 0.0}
_TABNET = {"n_d": 8, "n_a": 8, "n_steps": 3, "virtual_batch_size": 8}
_RTDL = {"d_in": 8, "d_out": 3}
_CATEGORIES: dict[str, Any] = {
    "categories": (5, 5, 5),
    "num_continuous": 4,
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "dim_head": 8,
}


def _bins() -> list[object]:
    return at("rtdl_num_embeddings").compute_bins(rand(60, 4) * 4 - 2, n_bins=6)


def _periodic(lite: bool) -> nn.Module:
    return nn.Sequential(at("rtdl_num_embeddings").PeriodicEmbeddings(6, 8, lite=lite), nn.Flatten(), nn.Linear(48, 2))


def _tabm(**options: object) -> nn.Module:
    return at("tabm").TabM.make(n_num_features=6, d_out=2, k=4, n_blocks=2, d_block=16, dropout=0.1, **options)


ENTRIES: list[Entry] = [
    *of(
        "rtdl-revisiting-models",
        ("MLP", lambda: at("rtdl_revisiting_models").MLP(d_in=8, d_out=3, **_PLAIN), floats(8)),
        ("ResNet", lambda: at("rtdl_revisiting_models").ResNet(d_in=8, d_out=3, **_BLOCKS), floats(8)),
        ("LinearEmbeddings", lambda: at("rtdl_revisiting_models").LinearEmbeddings(6, 8), floats(6)),
        ("CategoricalEmbeddings", lambda: at("rtdl_revisiting_models").CategoricalEmbeddings([5, 5], 8), ints(5, 2)),
        ("FTTransformer", lambda: at("rtdl_revisiting_models").FTTransformer(**_ATTENTION), (floats(5), ints(4, 2))),
    ),
    *of(
        "rtdl-num-embeddings",
        ("LinearReLUEmbeddings", lambda: at("rtdl_num_embeddings").LinearReLUEmbeddings(6, 8), floats(6)),
        ("PeriodicEmbeddings", lambda: _periodic(lite=False), floats(6)),
        ("PeriodicEmbeddings lite", lambda: _periodic(lite=True), floats(6)),
        ("PiecewiseLinearEncoding", lambda: at("rtdl_num_embeddings").PiecewiseLinearEncoding(_bins()), floats(4)),
        (
            "PiecewiseLinearEmbeddings A",
            lambda: at("rtdl_num_embeddings").PiecewiseLinearEmbeddings(_bins(), 8, activation=True, version="A"),
            floats(4),
        ),
        (
            "PiecewiseLinearEmbeddings B",
            lambda: at("rtdl_num_embeddings").PiecewiseLinearEmbeddings(_bins(), 8, activation=False, version="B"),
            floats(4),
        ),
    ),
    *of(
        "tabm",
        ("TabM", lambda: _tabm(arch_type="tabm"), floats(6)),
        ("TabM mini", lambda: _tabm(arch_type="tabm-mini"), floats(6)),
        ("TabM packed", lambda: _tabm(arch_type="tabm-packed"), floats(6)),
        ("TabM of numbers and categories", lambda: _tabm(cat_cardinalities=[3, 3]), (floats(6), ints(3, 2))),
        (
            "TabM of embedded numbers",
            lambda: _tabm(num_embeddings=at("rtdl_num_embeddings").LinearReLUEmbeddings(6, 8)),
            floats(6),
        ),
    ),
    *of(
        "rtdl",
        (
            "MLP",
            lambda: at("rtdl").MLP.make_baseline(**_RTDL, d_layers=[16, 16], dropout=0.1),
            floats(8),
        ),
        (
            "ResNet",
            lambda: at("rtdl").ResNet.make_baseline(
                **_RTDL, n_blocks=2, d_main=16, d_hidden=24, dropout_first=0.1, dropout_second=0.0
            ),
            floats(8),
        ),
        ("GEGLU", lambda: nn.Sequential(nn.Linear(8, 16), at("rtdl").GEGLU(), nn.Linear(8, 2)), floats(8)),
        ("ReGLU", lambda: nn.Sequential(nn.Linear(8, 16), at("rtdl").ReGLU(), nn.Linear(8, 2)), floats(8)),
        ("NumericalFeatureTokenizer", lambda: at("rtdl").NumericalFeatureTokenizer(6, 8, True, "uniform"), floats(6)),
    ),
    *of(
        "pytorch-tabnet",
        (
            "TabNet",
            lambda: at("pytorch_tabnet.tab_network").TabNet(8, 3, **_TABNET, group_attention_matrix=eye(8)),
            floats(8),
        ),
        ("TabNetNoEmbeddings", lambda: at("pytorch_tabnet.tab_network").TabNetNoEmbeddings(8, 3, **_TABNET), floats(8)),
        (
            "TabNetNoEmbeddings entmax",
            lambda: at("pytorch_tabnet.tab_network").TabNetNoEmbeddings(8, 3, **_TABNET, mask_type="entmax"),
            floats(8),
        ),
        ("GLU_Block", lambda: at("pytorch_tabnet.tab_network").GLU_Block(8, 8, first=True), floats(8)),
        (
            "FeatTransformer",
            lambda: at("pytorch_tabnet.tab_network").FeatTransformer(8, 8, None, n_glu_independent=2),
            floats(8),
        ),
    ),
    *of(
        "tab-transformer-pytorch",
        (
            "TabTransformer",
            lambda: at("tab_transformer_pytorch").TabTransformer(**_CATEGORIES, mlp_act=nn.ReLU()),
            (ints(5, 3), floats(4)),
        ),
        ("FTTransformer", lambda: at("tab_transformer_pytorch").FTTransformer(**_CATEGORIES), (ints(5, 3), floats(4))),
    ),
    *of(
        "torchtuples",
        ("MLPVanilla", lambda: at("torchtuples").practical.MLPVanilla(8, [16, 16], 3, dropout=0.1), floats(8)),
        (
            "MLPVanilla sigmoid",
            lambda: at("torchtuples").practical.MLPVanilla(
                8, [16], 1, batch_norm=False, activation=nn.SELU, output_activation=nn.Sigmoid()
            ),
            floats(8),
        ),
        (
            "MixedInputMLP",
            lambda: at("torchtuples").practical.MixedInputMLP(6, [4, 4], [3, 2], [16, 16], 2),
            (floats(6), ints(4, 2)),
        ),
    ),
    *of(
        "pycox",
        (
            "MLPVanillaCoxTime",
            lambda: at("pycox.models.cox_time").MLPVanillaCoxTime(8, [16, 16]),
            (floats(8), floats(1)),
        ),
        (
            "MixedInputMLPCoxTime",
            lambda: at("pycox.models.cox_time").MixedInputMLPCoxTime(6, [4, 4], [3, 2], [16]),
            (floats(6), ints(4, 2), floats(1)),
        ),
    ),
    *of(
        "lassonet",
        ("LassoNet", lambda: at("lassonet.model").LassoNet(8, 16, 3), floats(8)),
        ("LassoNet deep", lambda: at("lassonet.model").LassoNet(8, 16, 16, 3, dropout=0.2), floats(8)),
    ),
    *of(
        "skorch",
        ("MLPModule", lambda: at("skorch.toy").MLPModule(dropout=0.5, num_hidden=2), floats(20)),
        (
            "MLPModule softmax",
            lambda: at("skorch.toy").MLPModule(nonlin=nn.ELU(), output_nonlin=nn.Softmax(dim=-1)),
            floats(20),
        ),
        (
            "MLPModule squeezed",
            lambda: at("skorch.toy").MLPModule(output_units=1, output_nonlin=nn.Sigmoid(), squeeze_output=True),
            floats(20),
        ),
    ),
    *of(
        "fastai",
        (
            "TabularModel",
            lambda: at("fastai.tabular.model").TabularModel([(5, 3), (5, 3)], 4, 2, [16, 8], ps=0.1, embed_p=0.1),
            (ints(5, 2), floats(4)),
        ),
        (
            "TabularModel of a range",
            lambda: at("fastai.tabular.model").TabularModel([(5, 3)], 4, 1, [16], y_range=(0.0, 5.0)),
            (ints(5, 1), floats(4)),
        ),
    ),
    *of(
        "ctgan",
        ("Generator", lambda: at("ctgan.synthesizers.ctgan").Generator(8, (16, 16), 6), floats(8)),
        ("Residual", lambda: at("ctgan.synthesizers.ctgan").Residual(8, 16), floats(8)),
        ("Discriminator", lambda: at("ctgan.synthesizers.ctgan").Discriminator(8, (16, 16), pac=1), floats(8)),
        ("Encoder", lambda: at("ctgan.synthesizers.tvae").Encoder(8, (16, 16), 4), floats(8)),
        ("Decoder", lambda: at("ctgan.synthesizers.tvae").Decoder(4, (16, 16), 8), floats(4)),
    ),
]
