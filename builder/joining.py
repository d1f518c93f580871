"""The network of a spec with several inputs or with categories: what becomes of each input, and how they are joined."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class OneHot(nn.Module):
    """Codes (N,) to (N, words): 1 in the column of the code, 0 elsewhere. It has no weights."""

    table: Tensor

    def __init__(self, words: int):
        super().__init__()
        self.words = words
        self.register_buffer("table", torch.eye(words), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Rows of the identity matrix, so that a code beyond the words is an error."""
        return functional.embedding(codes, self.table)

    def extra_repr(self) -> str:  # noqa: D102 - nn.Module's
        return f"{self.words}"


class Categories(nn.ModuleList):
    """int64 codes (N, features) to (N, width): the embeddings, or one-hot columns, of every feature side by side.

    Module ``i`` is the ``nn.Embedding``, or ``OneHot``, of feature ``i``. ``sizes`` are, for every feature, its number
    of words and the width of its embedding, None for one-hot.
    """

    def __init__(self, sizes: Iterable[tuple[int, int | None]]):
        super().__init__(OneHot(words) if width is None else nn.Embedding(words, width) for words, width in sizes)

    def forward(self, codes: Tensor) -> Tensor:
        """The columns of all features, in their order."""
        return torch.cat([module(codes[:, index]) for index, module in enumerate(self)], dim=1)


class JoinedInputs(nn.ModuleList):
    """A tensor (N, features) for each input to (N, width): each goes through a module, and their rows are joined."""

    def __init__(self, parts: Mapping[str, nn.Module]):
        super().__init__(parts.values())
        self.input_names: tuple[str, ...] = tuple(parts)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The rows of all inputs side by side."""
        if len(inputs) != len(self):
            names = ", ".join(self.input_names)
            raise TypeError(f"the network takes {len(self)} inputs ({names}), and got {len(inputs)}")
        rows = [part(values) for part, values in zip(self, inputs, strict=True)]
        return torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]


class SeveralInputs(nn.Sequential):
    """The network of a spec with several inputs, categories, or blocks of an input's own.

    Its forward takes a tensor (N, features) for each input, in the order of the spec. Weights have the names
    ``inputs.I.B.NAME`` for block B of input I (of an input of categories: for its feature B), and ``B.NAME`` for
    block B of the spec, all counted from 0.
    """

    def __init__(self, parts: Mapping[str, nn.Module], blocks: Iterable[nn.Module]):
        named = {str(index): block for index, block in enumerate(blocks)}
        super().__init__(OrderedDict({"inputs": JoinedInputs(parts)} | named))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in the order of the forward's arguments."""
        return cast(JoinedInputs, self[0]).input_names

    def forward(self, *inputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the blocks make of the joined inputs."""
        joined, *blocks = self
        row = joined(*inputs)
        for block in blocks:
            row = block(row)
        return row
