"""A file whose products of bytes would saturate is not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import runtime.session.processor
from export import export, write_variant
from runtime import ModelError, Session
from runtime.session.processor import PAIRS, cpuinfo, instructions, saturating, vnni
from tests.support.cases import network, normal

OLD, NEW = "fpu avx avx2 fma", "fpu avx2 avx512f avx512_vnni"


def machine(folder: Path, flags: str, key: str = "flags") -> Path:
    path = folder / "cpuinfo"
    runtime.session.processor._read_cpuinfo.cache_clear()
    path.write_text(f"processor\t: 0\nmodel name\t: A B\n{key}\t\t: {flags}\n\nprocessor\t: 1\nmodel name\t: C\n")
    return path


def record(way: str) -> dict[str, str]:
    return {"mlpx.variant": json.dumps({"kind": "int8-dynamic", "way": way})}


@pytest.mark.parametrize(
    ("flags", "way", "architecture", "wrong"),
    [
        (OLD, PAIRS, "x86_64", True),
        (OLD, PAIRS, "AMD64", True),
        (NEW, PAIRS, "x86_64", False),
        (OLD, "u8 rows, u8 weights", "x86_64", False),
        ("asimd", PAIRS, "aarch64", False),
        ("", PAIRS, "x86_64", False),
    ],
)
def test_what_saturates(tmp_path: Path, flags: str, way: str, architecture: str, wrong: bool) -> None:
    path = machine(tmp_path, flags)
    why = saturating(record(way), path, architecture)
    assert (why is not None) is wrong
    assert why is None or "neither avx512_vnni nor avx_vnni" in why


@pytest.mark.parametrize("metadata", [{}, {"mlpx.variant": "{"}, {"mlpx.variant": "[]"}, {"mlpx.variant": "{}"}])
def test_other_files_are_left_alone(tmp_path: Path, metadata: dict[str, str]) -> None:
    assert saturating(metadata, machine(tmp_path, OLD), "x86_64") is None


def test_the_first_core_is_read(tmp_path: Path) -> None:
    assert cpuinfo(machine(tmp_path, NEW))["model name"] == "A B"
    assert vnni(machine(tmp_path, NEW)) == "it has avx512_vnni"
    assert instructions(machine(tmp_path, "fp asimd", "Features")) == {"fp", "asimd"}
    assert vnni(tmp_path / "none") == "its instructions are not known"


def test_a_session_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is told to be an old one: the file is real, only what the processor says is not."""
    spec, module = network([{"linear": 32}])
    source = export(module, tmp_path / "m.onnx", spec=spec).path
    signed = write_variant(source, "int8-dynamic", tmp_path / "signed", way=PAIRS)
    unsigned = write_variant(source, "int8-dynamic", tmp_path / "unsigned", way="u8 rows, u8 weights")
    monkeypatch.setattr(runtime.session.processor, "CPUINFO", machine(tmp_path, OLD))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(
        ModelError, match=r"m\.int8-dynamic\.onnx: its products .* saturate .* What to do: make the file"
    ):
        Session(signed.path, "cpu")
    Session(unsigned.path, "cpu").predict(normal(2, 7))
