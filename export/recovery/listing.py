"""Names of tensors in few words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def grouped(found: Sequence[str], used: Iterable[str] = ()) -> str:
    """Names by the shortest prefix that none of ``used`` has: ``critic. (4 tensors), std``."""
    taken = {".".join(parts[:count]) for name in used for parts in [name.split(".")] for count in range(len(parts))}
    groups: Counter[str] = Counter()
    for name in found:
        parts = name.split(".")
        heads = (".".join(parts[:count]) for count in range(1, len(parts)))
        groups[next((head + "." for head in heads if head not in taken), name)] += 1
    return short([f"{name} ({count} tensors)" if count > 1 else name for name, count in groups.items()])


def short(words: Sequence[str]) -> str:
    """The first ten of ``words``, and how many more there are."""
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")
