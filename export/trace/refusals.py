"""What a file cannot hold, each kind with its sentence and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Refusal:
    """One reason: what was called, at which module's path and which line of the user's code."""

    kind: str
    what: str
    path: str
    line: str
    detail: str = ""

    def __str__(self) -> str:
        op = self.what.rpartition(".")[0] or self.what
        place = " at " + ", ".join(part for part in (f"'{self.path}'" if self.path else "", self.line) if part)
        words = _SENTENCES.get(op) or _SENTENCES[self.kind]
        return words.format(op=op, detail=self.detail, at=place if place != " at " else "")


_DROPOUT = "{op}{at}: this dropout stays active in evaluation mode; call it with training=self.training, or let "
_DROPOUT += "eval() reach it"
_DATA = "the forward depends on the data{at}: {op} takes a value of the input to decide with"
_SENTENCES = {
    "operator": "no operator of a file for {op}{at}. What to do: write it with operators that docs/export.md lists",
    "data": f"{_DATA}, and a file has one way for every input. What to do: write it with torch.where",
    "random": "{op}{at} draws random numbers, so two runs would differ. What to do: take sampling out of it",
    "buffer": "the forward changes '{detail}' in place{at}; a file cannot do that. What to do: return the new value "
    "instead",
    "dtype": "{op}{at} computes in {detail}, and a file computes in float32. What to do: .float() before it, and no "
    "autocast",
    "out": "{op}{at} writes into out=, or changes a shape in place. What to do: use what it returns",
    "sparse": "{op}{at} takes a sparse tensor, and a file holds dense ones. What to do: .to_dense() before it",
    "classes": "{op}{at} counts its classes in the data. What to do: give num_classes",
    "places": "",
}
_SHAPES = "the number of its results depends on the data{at}: {op}. What to do: write it with torch.where"
_SENTENCES |= dict.fromkeys(("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"), _DROPOUT)
_RENORMED = "{op}{at} shortens rows of '{detail}' to max_norm at every call; a file cannot do that. What to do: "
_RENORMED += "shorten the table once, and take max_norm away"
_SENTENCES["embedding_renorm_"] = _RENORMED
_SENTENCES |= dict.fromkeys(("nonzero", "masked_select", "unique", "_unique2", "unique_dim"), _SHAPES)
_CONVOLUTION = "{op}{at} is a convolution or a pooling, and mlpx is for dense networks. What to do: export it by "
_CONVOLUTION += "torch.onnx, and what follows it by mlpx"
_SENTENCES |= dict.fromkeys(
    (
        *("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d", "max_pool1d", "max_pool2d", "avg_pool1d"),
        *("avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "max_pool2d_with_indices", "_convolution"),
        *("mkldnn_convolution", "adaptive_max_pool1d", "max_pool1d_with_indices", "upsample_nearest2d"),
    ),
    _CONVOLUTION,
)
_RECURRENT = (
    "{op}{at} is a recurrent cell, and mlpx is for networks without a state. What to do: export it by torch.onnx"
)
_SENTENCES |= dict.fromkeys(
    ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell"), _RECURRENT
)
_SORTED = "{op}{at} tells where sorted values stood, and equal ones may stand in any order. What to do: use its values "
_SORTED += "alone"
_SENTENCES["places"] = _SORTED
_SENTENCES |= dict.fromkeys(("sort", "topk", "argsort", "msort", "kthvalue", "median", "mode"), _SORTED)

DATA_DEPENDENT = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
)
_UNSUPPORTED = tuple(name for name, words in _SENTENCES.items() if words in (_CONVOLUTION, _RECURRENT, _SORTED))
_UNSUPPORTED = tuple(name for name in _UNSUPPORTED if name not in ("sort", "topk"))


def refusal_of(
    func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tracked: Callable[[Tensor], bool]
) -> str | None:
    """The kind of refusal that a call on values of the input is; None where it is none by itself."""
    op = name.partition(".")[0]
    if op in DATA_DEPENDENT:
        return "data"
    if op in _UNSUPPORTED:
        return "operator"
    if name == "one_hot.default" and (args[1] if len(args) > 1 else -1) < 0:
        return "classes"
    if name in ("index.Tensor", "index_put.default"):
        indices = [index for index in args[1] if index is not None]
        return _index_refusal(name, indices, args, tracked)
    if op == "embedding_bag":
        return "operator"
    if op == "dropout" or op.endswith("_dropout"):
        return None
    return None


def _index_refusal(
    name: str, indices: Sequence[Tensor], args: Sequence[Any], tracked: Callable[[Tensor], bool]
) -> str | None:
    moving = [index for index in indices if tracked(index)]
    if name == "index.Tensor":
        if not moving:
            return None
        table = not tracked(args[0]) and len(indices) == 1 and args[1][0] is not None and not _is_mask(moving[0])
        return None if table else "data" if _is_mask(moving[0]) else "operator"
    accumulates = len(args) > 3 and args[3]
    if not accumulates and (not moving or (len(indices) == 1 and _is_mask(indices[0]))):
        return None
    return "operator"


def _is_mask(index: Tensor) -> bool:
    return str(index.dtype) in ("torch.bool", "torch.uint8")


def told(refusals: Iterable[Refusal]) -> str:
    """All of them in one message, each once."""
    words = list(dict.fromkeys(map(str, refusals)))
    return words[0] if len(words) == 1 else "; ".join(f"({i}) {each}" for i, each in enumerate(words, 1))
