"""What servers read, and which opset and IR version a file is written in for them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export import ExportError, export
from export.servers import SERVERS, oldest, server
from export.versions import Versions, choose_versions, needed_ir_version, newest
from tests.support.outcomes import outcome

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"opset": 6}, "opset 6 is older than 7"),
    ({"opset": 1000}, f"opset 1000 is newer than {newest().opset}, the newest that the installed"),
    ({"opset": "13"}, "the opset is a whole number, not '13'"),
    ({"opset": True}, "the opset is a whole number, not True"),
    ({"opset": 13.0}, "the opset is a whole number, not 13.0"),
    ({"ir_version": 3}, "IR version 3 is older than 4"),
    ({"ir_version": 1000}, f"IR version 1000 is newer than {newest().ir_version}"),
    ({"opset": 17, "ir_version": 7}, "opset 17 needs IR version 8, and IR version 7 was asked for"),
    ({"target": "triton:23.10", "opset": 20}, "opset 20 was asked for, and triton:23.10 is known to take opset 19"),
    ({"target": "triton:23.04", "ir_version": 9}, "and triton:23.04 is known to take IR version 8 at most (https://"),
    ({"target": "triton:23.06"}, "--for triton:23.04, the nearest older release"),
    ({"target": "triton:20.01"}, "one of these (--for triton:21.12)"),
    ({"target": "triton:24.02"}, "it has no ONNX Runtime in it (https://"),
    ({"target": "triton"}, "what triton reads is not known"),
    ({"target": "triton:" + "9" * 5000}, "is not known"),
    ({"target": "tritn:23.10"}, "did you mean 'triton'?"),
    ({"target": ""}, "no server is known as ''"),
    ({"target": 23.10}, "a server is a name and a release, not 23.1"),
    ({"target": "onnxruntime:2.0"}, "--for onnxruntime:1.31"),
    ({"target": "onnxruntime:1.x"}, "what onnxruntime:1.x reads is not known"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[str(options)[:40] for options, _ in REFUSED])
def test_versions_that_cannot_be_had_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=re.escape(words)) as raised:
        export(nn.Linear(2, 2), tmp_path / "m.onnx", **options)
    assert "What to do: " in str(raised.value)
    assert not list(tmp_path.iterdir())


VERSIONS = st.none() | st.integers(-1, 40)


@settings(deadline=None, max_examples=300)
@given(opset=VERSIONS, ir_version=VERSIONS, target=st.none() | st.sampled_from(sorted(SERVERS)))
def test_what_is_chosen_is_what_was_asked_for_and_what_the_server_reads(
    opset: int | None, ir_version: int | None, target: str | None
) -> None:
    found = outcome(ExportError, choose_versions, opset, ir_version, target)
    if isinstance(found, ExportError):
        assert opset is not None or ir_version is not None
        assert "What to do: " in str(found)
        return
    assert found.opset == opset if opset is not None else found.opset <= 17
    assert found.ir_version == ir_version if ir_version is not None else found.ir_version >= 4
    assert found.ir_version >= needed_ir_version(found.opset)
    assert found.target == target
    if target is not None:
        row = server(target)
        assert found.opset <= row.opset
        assert found.ir_version <= row.ir_version


@pytest.mark.parametrize("target", SERVERS)
def test_every_row_of_the_table_has_its_source_and_can_be_written_for(target: str) -> None:
    row = server(target)
    assert re.match(r"https://\S+", row.source)
    assert needed_ir_version(row.opset) <= row.ir_version
    assert choose_versions(target=target) == Versions(min(17, row.opset), min(8, row.ir_version), target)


def test_later_releases_of_a_server_read_no_less() -> None:
    for name in ("onnxruntime", "openvino", "triton"):
        rows = [(key.partition(":")[2].split("."), row) for key, row in SERVERS.items() if key.startswith(name)]
        ordered = [row for _, row in sorted(rows, key=lambda pair: [int(part) for part in pair[0]])]
        for before, after in pairwise(ordered):
            assert before.opset <= after.opset
            assert before.ir_version <= after.ir_version


def test_the_installed_onnx_runtime_reads_what_the_table_says() -> None:
    release = ".".join(onnxruntime.__version__.split(".")[:2])
    assert f"onnxruntime:{release}" in SERVERS, "a new release: open models with it, and add its row"
    row = server(f"onnxruntime:{onnxruntime.__version__}")
    assert row.opset <= newest().opset
    assert row.ir_version <= newest().ir_version


def test_a_patch_release_of_onnx_runtime_is_its_minor_release() -> None:
    assert server("onnxruntime:1.16.3") is server("onnxruntime:1.16")


@given(opset=st.integers(7, 30), ir_version=st.integers(4, 15))
def test_the_oldest_release_that_reads_a_file(opset: int, ir_version: int) -> None:
    for name in ("onnxruntime", "openvino", "triton"):
        rows = [row for key, row in SERVERS.items() if key.startswith(f"{name}:")]
        reading = [row for row in rows if opset <= row.opset and ir_version <= row.ir_version]
        found = oldest(name, opset, ir_version)
        assert (found is None) is (not reading)
        assert found is None or server(f"{name}:{found}") in reading
    assert oldest("onnxruntime", 17, 8) == "1.12"
    assert oldest("triton", 17, 8) == "23.04"
