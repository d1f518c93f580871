"""Files that several tests of C code share, and the compilers of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from export import inspect, publish
from export.csource.compilers import Compiler, compilers
from export.csource.proving import nan_outputs
from export.csource.writing import Contract, CSource, c_source
from runtime import read_certificate
from tests.support.c_code import POLICY, digits
from tests.support.cases import network

FOUND, MISSING = compilers()


@pytest.fixture(scope="session")
def gcc() -> Compiler:
    """The first compiler that is there."""
    if not FOUND:
        pytest.skip("; ".join(MISSING))
    return FOUND[0]


@pytest.fixture(scope="session", params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    """Every compiler that code is proved with."""
    found = next((each for each in FOUND if each.name.startswith(request.param)), None)
    if found is None:
        pytest.skip(next(line for line in MISSING if line.startswith(request.param)))
    return found


@pytest.fixture(scope="session", params=["digits", "policy"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proved file: the digits of this repository, and a policy of a walking robot's shape."""
    path = tmp_path_factory.mktemp("model") / f"{request.param}.onnx"
    if request.param == "digits":
        spec, module = digits()
    else:
        spec, module = network(**POLICY)
    publish(module, path, spec=spec, device="cpu", page=False, bound=False)
    return path


@pytest.fixture(scope="session")
def source(model: Path) -> CSource:
    """The code of the file, as it is shipped."""
    return shipped(model)


def shipped(path: Path) -> CSource:
    certificate = read_certificate(path.with_name(f"{path.stem}.parity.json"))
    assert certificate.answers is not None
    nan = nan_outputs(path, certificate)
    contract = Contract(inspect(path).summary, certificate.sha256, certificate.answers, nan)
    return c_source(path, path.stem, contract)
