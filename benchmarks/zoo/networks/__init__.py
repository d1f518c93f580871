"""The table, by the field that the packages are from."""

from __future__ import annotations

import importlib
from itertools import chain

from benchmarks.zoo.entries import Entry

FIELDS = ("tabular", "policies", "fields", "recommenders", "flows", "transformers", "forecasting", "generative")
ENTRIES: list[Entry] = list(
    chain.from_iterable(importlib.import_module(f"{__name__}.{field}").ENTRIES for field in FIELDS)
)
ABSENT = {
    "timm": "imports torchvision, whose CPU build is not on PyPI",
    "random-fourier-features-pytorch": "imports torchvision",
    "neuromancer": "imports wandb, and with it all that a tracker of experiments needs",
}
"""Packages that were tried and cannot be imported beside the CPU build of torch."""
