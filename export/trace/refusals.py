"""What a file cannot hold: the kinds of refusal, and for each the error's sentence with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Refusal:
    """Why a call cannot be in a file: its kind, the operator, the module's path and the line of the user's code."""

    kind: str
    operator: str
    path: str
    line: str
    detail: str = ""

    def __str__(self) -> str:
        op = self.operator.rpartition(".")[0] or self.operator
        site = ", ".join(part for part in (self.path and f"'{self.path}'", self.line) if part)
        sentence = _SENTENCES[_KIND_OF.get(op, self.kind)]
        return sentence.format(op=op, detail=self.detail, at=site and f" at {site}")


_SENTENCES = {
    "operator": "a file has no operator for {op}{at}. What to do: write it with operators that docs/export.md lists",
    "data": "the forward depends on the data{at}: {op} reads a value of the input, and a file takes the same "
    "steps for every input. What to do: write it with torch.where",
    "random": "{op}{at} draws random numbers, so two runs would differ. What to do: take sampling out of it",
    "buffer": "the forward changes '{detail}' in place{at}; a file cannot do that. What to do: return the new value "
    "instead",
    "dtype": "{op}{at} computes in {detail}, and a file computes in float32. What to do: .float() before it, and no "
    "autocast",
    "out": "{op}{at} writes into out=, or changes a shape in place. What to do: use what it returns",
    "sparse": "{op}{at} takes a sparse tensor, and a file holds dense ones. What to do: .to_dense() before it",
    "classes": "{op}{at} counts its classes in the data. What to do: give num_classes",
    "positions": "{op}{at} returns the positions of sorted values, and equal values may come in any order. What to do: "
    "use its values alone",
    "dropout": "{op}{at}: this dropout stays active in evaluation mode; call it with training=self.training, or let "
    "eval() reach it",
    "max_norm": "{op}{at} shortens rows of '{detail}' to max_norm at every call; a file cannot do that. What to do: "
    "shorten the table once, and take max_norm away",
    "shapes": "the number of its results depends on the data{at}: {op}. What to do: write it with torch.where",
    "convolution": "{op}{at} is a convolution or a pooling, and mlpx is for dense networks. What to do: export it by "
    "torch.onnx, and what follows it by mlpx",
    "recurrent": "{op}{at} is a recurrent cell, and mlpx is for networks without a state. What to do: export it by "
    "torch.onnx",
}
"""By the kind of refusal, or of operator."""
_OPERATORS = {
    "dropout": ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    "max_norm": ("embedding_renorm_",),
    "shapes": ("nonzero", "masked_select", "unique", "_unique2", "unique_dim"),
    "convolution": (
        *("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d", "max_pool1d", "max_pool2d", "avg_pool1d"),
        *("avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "max_pool2d_with_indices", "_convolution"),
        *("mkldnn_convolution", "adaptive_max_pool1d", "max_pool1d_with_indices", "upsample_nearest2d"),
    ),
    "recurrent": ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell"),
    "positions": ("sort", "topk", "argsort", "msort", "kthvalue", "median", "mode"),
}
"""Operators whose refusal has a sentence of its own, whatever the reason is."""
_KIND_OF = {op: kind for kind, ops in _OPERATORS.items() for op in ops}
_DATA_DEPENDENT = ("_local_scalar_dense", "item", "is_nonzero", "equal", *_OPERATORS["shapes"])
_UNSUPPORTED = {*_OPERATORS["convolution"], *_OPERATORS["recurrent"], *_OPERATORS["positions"], "embedding_bag"} - {
    "sort",
    "topk",
}


def refusal_of(name: str, args: Sequence[Any], tracked: Callable[[Tensor], bool]) -> str | None:
    """The kind of refusal of a call on values that depend on the input; None for a call that is not refused here."""
    op = name.partition(".")[0]
    if op in _DATA_DEPENDENT:
        return "data"
    if op in _UNSUPPORTED:
        return "operator"
    if name == "one_hot.default" and (args[1] if len(args) > 1 else -1) < 0:
        return "classes"
    if name not in ("index.Tensor", "index_put.default"):
        return None
    indices = [index for index in args[1] if index is not None]
    dependent = [index for index in indices if tracked(index)]
    if name == "index_put.default":
        accumulates = len(args) > 3 and args[3]
        by_mask = len(indices) == 1 and _is_mask(indices[0])
        return "operator" if accumulates or (dependent and not by_mask) else None
    if dependent and _is_mask(dependent[0]):
        return "data"
    is_lookup = not tracked(args[0]) and len(indices) == 1 and args[1][0] is not None
    return "operator" if dependent and not is_lookup else None


def _is_mask(index: Tensor) -> bool:
    return str(index.dtype) in ("torch.bool", "torch.uint8")


def format_refusals(refusals: Iterable[Refusal]) -> str:
    """One message of all refusals, without repetitions, numbered where there are several."""
    sentences = list(dict.fromkeys(map(str, refusals)))
    numbered = (f"({number}) {sentence}" for number, sentence in enumerate(sentences, 1))
    return sentences[0] if len(sentences) == 1 else "; ".join(numbered)
