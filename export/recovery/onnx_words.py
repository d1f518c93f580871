"""Operators that no dense network has, in words."""

from __future__ import annotations

_FLOAT = "What to do: recover from the float file that it was quantised from"
_KINDS = {
    "a convolution": "Conv ConvTranspose DeformConv",
    "a recurrent cell": "LSTM GRU RNN",
    "pooling": "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool MaxRoiPool RoiAlign MaxUnpool",
    "attention": "Attention MultiHeadAttention GroupQueryAttention RotaryEmbedding",
    f"quantisation. {_FLOAT}": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear MatMulInteger ConvInteger "
    "QLinearMatMul QLinearConv QLinearAdd",
    "control flow": "If Loop Scan",
    "a join of several values": "Concat ConcatFromSequence",
    "a split into several values": "Split SplitToSequence",
    "a choice of entries": "Gather GatherND GatherElements Slice Compress TopK ArgMax ArgMin OneHot NonZero",
    "normalisation over something else than the features": "InstanceNormalization GroupNormalization LRN "
    "LpNormalization MeanVarianceNormalization RMSNormalization",
    "an activation that no block has": "Selu Celu HardSwish Mish Softsign ThresholdedRelu LogSoftmax Hardmax Shrink "
    "Sin Cos Swish",
    "a reading of the input's shape": "Shape Size",
    "a change of the image's size": "Resize Upsample DepthToSpace SpaceToDepth Pad",
    "random numbers": "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial",
    "a tree or a classical model": "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor SVMClassifier "
    "LinearClassifier LinearRegressor Normalizer Scaler ZipMap",
    "a conversion to another type of number": "Cast CastLike",
}
IN_WORDS = {operator: words for words, operators in _KINDS.items() for operator in operators.split()}
"""What an operator is, where it is not one of a dense network."""


def foreign(kind: str) -> str:
    """Why an operator is refused, in words."""
    return IN_WORDS.get(kind, "an operator that no block has")
