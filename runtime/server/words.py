"""Words in requests: tensors of the datatype BYTES, for inputs whose features are categories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from struct import unpack_from

import numpy as np

from runtime.data.categories import encode_rows
from runtime.errors import InputError
from runtime.json_types import Json

from .refusals import Malformed
from .signature import Tensor


def codes_of_texts(data: Json, tensor: Tensor, count: int, depth: int) -> np.ndarray:
    """The codes (count,) of a list of texts in JSON, flat or nested at most ``depth`` deep. Raises Malformed."""
    if type(data) is not list:
        raise Malformed(f"input '{tensor.name}' has no list of texts as \"data\"")
    for _ in range(depth - 1):
        if set(map(type, data)) != {list}:
            break
        data = list(chain.from_iterable(data))
    if wrong := sorted({type(word).__name__ for word in data if not isinstance(word, str)}):
        raise Malformed(f"input '{tensor.name}' is BYTES, and has values that are not texts: {', '.join(wrong)}")
    return _codes(data, tensor, count)


def codes_of_bytes(content: Sequence[bytes] | bytes | memoryview, tensor: Tensor, count: int) -> np.ndarray:
    """The codes (count,) of texts in UTF-8: each on its own or, in one piece, each after its length (uint32)."""
    parts = [*content] if not isinstance(content, bytes | memoryview) else _split(bytes(content), tensor.name)
    try:
        return _codes([part.decode() for part in parts], tensor, count)
    except UnicodeDecodeError:
        raise Malformed(f"input '{tensor.name}' has bytes that are not UTF-8") from None


def _split(content: bytes, name: str) -> list[bytes]:
    parts: list[bytes] = []
    start = 0
    while start < len(content):
        end = start + 4
        size = unpack_from("<I", content, start)[0] if end <= len(content) else len(content)
        if end + size > len(content):
            raise Malformed(f"input '{name}' has {len(content):,} bytes, which end within a text: each has its length")
        parts.append(content[end : end + size])
        start = end + size
    return parts


def _codes(words: Sequence[str], tensor: Tensor, count: int) -> np.ndarray:
    port = tensor.port
    assert port is not None  # an input of categories has one
    if len(words) != count:
        raise Malformed(f"input '{tensor.name}' has {len(words):,} values, and its shape takes {count:,}")
    width = len(port.categories or ())
    try:
        return encode_rows(np.array([*words, None], object)[:-1].reshape(-1, width), port).reshape(count)
    except InputError as error:
        raise Malformed(str(error)) from None
