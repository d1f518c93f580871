"""The header of files that are damaged, or no ONNX at all."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import ModelError, read_header

GRAPH, OPSET = b"\x3a\x00", b"\x42\x02\x10\x11"


def written(folder: Path, content: bytes) -> Path:
    (folder / "m.onnx").write_bytes(content)
    return folder / "m.onnx"


def test_the_fields_before_and_after_the_graph(tmp_path: Path) -> None:
    model = onnx.ModelProto(ir_version=8, producer_name="someone", graph=onnx.GraphProto(name="x" * 1000))
    model.opset_import.add(domain="other", version=3)
    model.opset_import.add(domain="", version=17)
    model.metadata_props.add(key="a", value="é")
    header = read_header(written(tmp_path, model.SerializeToString()))
    assert (header.ir_version, header.opset, header.producer) == (8, 17, "someone")
    assert header.metadata == {"a": "é"}
    assert header.size == model.ByteSize()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it has no graph or no operator set"),
        (GRAPH, "it has no graph or no operator set"),
        (b"\x08" + b"\x80" * 10, "at byte 11 it is not Protocol Buffers"),
        (b"\x08" + b"\x80" * 9, "cut off"),
        (b"\x0b\x00", "at byte 1 it is not Protocol Buffers"),
        (b"\x00\x00" + OPSET, "no graph"),
        (b"\x02\x00", "at byte 2 it is not Protocol Buffers"),
        (OPSET + b"\x3a\x05", "cut off, 5 bytes are missing"),
        (OPSET + GRAPH + b"\x15\x00\x00", "cut off, 2 bytes are missing"),
        (b"\x42\x02\x10\xff" + GRAPH, "cut off"),
    ],
)
def test_what_is_no_onnx_is_an_error_that_says_where(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"m\.onnx: not a whole ONNX file \({len(content)} bytes\): .*{words}"):
        read_header(written(tmp_path, content))


def test_a_field_that_no_header_has_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, b"\x0a\x81\x80\x80\x20")
    with path.open("r+b") as file:
        file.truncate(2**27)
    with pytest.raises(ModelError, match=r"field 1 has 67,108,865 bytes"):
        read_header(path)


def test_an_operator_set_whose_version_is_text_counts_as_none(tmp_path: Path) -> None:
    header = read_header(written(tmp_path, bytes.fromhex("080a42031201ff3a00")))
    assert (header.ir_version, header.opset) == (10, 0)


@given(st.binary(max_size=40), st.sampled_from([b"", GRAPH, OPSET, GRAPH + OPSET]))
def test_whatever_a_file_holds_it_is_a_header_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, more: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), more + content)
    try:
        header = read_header(path)
    except ModelError:
        return
    assert header.opset >= 0
    assert header.size == len(more + content)
