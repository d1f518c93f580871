"""The rows of the table that programs of their own measure."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from runtime.benching import Ratio

Part = Callable[[Path, argparse.Namespace], dict[str, Ratio | str]]
"""Given a folder and the options: a figure, or the reason why there is none, by ``Target.case``."""


def files(folder: Path, options: argparse.Namespace) -> dict[str, Ratio | str]:
    """files of 1 M x 64 rows"""
    return {"csv": "TODO", "parquet": "TODO"}


def memory(folder: Path, options: argparse.Namespace) -> dict[str, Ratio | str]:
    """memory while a large file is scored"""
    return {"memory": "TODO"}


def variants(folder: Path, options: argparse.Namespace) -> dict[str, Ratio | str]:
    """variants of reduced precision"""
    return {"int8": "TODO"}


PARTS: dict[str, Part] = {"csv": files, "parquet": files, "memory": memory, "int8": variants}
