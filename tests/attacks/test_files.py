"""No file of ``files.py`` is proved, and every one of ``right_files.py`` is."""

from __future__ import annotations

from pathlib import Path

import pytest

from export import verify

from .files import ATTACKS


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_that_is_not_the_module_is_not_proved(name: str, tmp_path: Path) -> None:
    module, path = ATTACKS[name](tmp_path)
    report = verify(module, path, device="cpu")
    assert not report.proved, ATTACKS[name].__doc__
    assert report.why
