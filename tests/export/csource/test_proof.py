"""Code as it is shipped is proved with every compiler, at every level; faults in it are seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from builder import MLPSpec
from export.csource.compilers import LEVELS, STRICT, Compiler, c_compiler, load
from export.csource.proving import prove_build
from export.csource.writing import CSource, c_source
from export.proof.instrumented import Recording
from export.proof.running import Running
from export.proof.verify import prove
from export.recovery.recovering import read_network
from runtime import Session, read_certificate
from tests.support import ROOT
from tests.support.c_code import constants, edited, value_of, with_constant
from tests.support.cases import normal


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording()


BITS: dict[str, set[str]] = {}


@pytest.mark.parametrize("flags", LEVELS, ids=" ".join)
def test_the_shipped_code_is_proved(
    flags: tuple[str, ...], model: Path, source: CSource, compiler: Compiler, recording: Recording
) -> None:
    """Without a warning; and all builds give the same bits."""
    assert {"-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror"} <= set(STRICT)
    module = read_network(model, name=model.stem, keep_shape=True).module()
    certificate = read_certificate(model.with_name(f"{model.stem}.parity.json"))
    build = prove_build(model, source, module, certificate, compiler, flags, recording)
    assert build.rows > 1000
    BITS.setdefault(source.name, set()).add(build.bits)
    assert len(BITS[source.name]) == 1


_NEXT = "i++) {\n        const float xi"
FAULTS: dict[str, Callable[[CSource], CSource]] = {
    "a weight off by one bit": lambda source: moved(source, 2.0**-23),
    "a weight off by 1e-3": lambda source: moved(source, 1e-3),
    "a bias left out": lambda source: edited(source, "(b + j * M_LANES);", "(b + j * M_LANES) * 0.0f;"),
    "a leaky relu": lambda source: edited(source, "a < 0.0f ? 0.0f : a", "a < 0.0f ? 1e-6f * a : a"),
    "a relu that loses NaN": lambda source: edited(source, "a < 0.0f ? 0.0f : a", "a > 0.0f ? a : 0.0f"),
    "one input too few": lambda source: edited(source, f"i < n; {_NEXT}", f"i < n - 1; {_NEXT}"),
    "reduced precision": lambda source: edited(source, "xi = x[i];", "xi = (x[i] + x[i] * 8193.0f) - x[i] * 8193.0f;"),
}


def moved(source: CSource, relative: float) -> CSource:
    """The code with one weight that is off."""
    name, values = max(constants(source).items(), key=lambda item: len(item[1]))
    value = float(value_of(values[123]))
    return with_constant(source, name, 123, value * (1 + relative))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MLPSpec]:
    """A file whose network is small, with a relu and a block of outputs."""
    from export import export
    from tests.support.cases import network

    spec, module = network([{"linear": 40}, "relu", {"linear": 36}], 9)
    return export(module, tmp_path_factory.mktemp("small") / "m.onnx", spec=spec).path, spec


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_code_is_seen(name: str, small: tuple[Path, MLPSpec], gcc: Compiler) -> None:
    """In the code of every graph that the proof makes: of layers alone, and with their values."""
    path, spec = small
    module = read_network(path, keep_shape=True).module()

    def faulty(source: Path | bytes) -> Running:
        code = c_source(source, "m")
        with suppress(AssertionError):  # a layer alone that has no such text
            code = FAULTS[name](code)
        return load(code, gcc, ("-O1",))

    assert prove(module, path, spec=spec, device="cpu", opener=c_compiler(gcc, ("-O1",))).proved
    assert prove(module, path, spec=spec, device="cpu", opener=faulty, stop_early=True).verdict == "failed"


def test_the_bits_are_the_same_without_vectors_and_where_products_and_sums_could_be_fused(
    source: CSource, compiler: Compiler
) -> None:
    """GCC fuses them by itself in its own dialect of C, where the processor can."""
    rows = {source.inputs[0].port.name: normal(20, source.inputs[0].size)}
    bits = set[bytes]()
    native = ("-O3", "-march=native")
    for flags in (("-O2",), ("-O2", f"-D{source.name.upper()}_NO_VECTORS"), native, (*native, "-std=gnu17")):
        running = load(source, compiler, flags)
        bits.add(b"".join(values.tobytes() for values in running.run(rows).values()))
        running.close()
    assert len(bits) == 1


def test_rows_alone_and_together(model: Path, source: CSource, gcc: Compiler) -> None:
    """``infer_rows`` is ``infer`` row by row, and near to what ONNX Runtime gives."""
    running = load(source, gcc, ("-O2",))
    (port,) = source.inputs
    rows = normal(5, port.size)
    (together,) = running.run({port.port.name: rows}).values()
    for row, expected in zip(rows, together, strict=True):
        (alone,) = running.run({port.port.name: row[None]}).values()
        assert alone[0].tobytes() == expected.tobytes()
    assert next(iter(running.run({port.port.name: rows[:0]}).values())).shape == (0, source.outputs[0].size)
    running.close()
    with Session(model, "cpu") as session:
        np.testing.assert_allclose(together, session.predict(rows), rtol=1e-4, atol=1e-4)


def test_the_bytes_are_the_same_in_another_process(model: Path, source: CSource) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.export.csource.conftest import shipped; "
        "source = shipped(Path(sys.argv[1])); sys.stdout.buffer.write((source.header + source.code).encode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "2", "PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        check=True,
    )
    assert done.stdout == (source.header + source.code).encode()
