"""How often a package checks its own model: what is written of it, and where it is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export import TargetError, package
from export.targets import TARGETS, runners, target_of
from export.targets.readiness import MECHANISMS
from runtime import read_certificate
from runtime.live.judge import judge
from runtime.live.probe import Exchange, Method
from runtime.live.protocol import OutputTensor, Response
from tests.support.repeats import examples
from tests.support.servers.asking import policy
from tests.support.servers.planted import FAULTS, Planted
from tests.support.servers.planting import prepare, turned

OWN = {
    ("kserve", "custom"): lambda folder: json.loads((folder / "model/model-settings.json").read_text()),
    ("kserve", "mlserver"): lambda folder: _mlserver(folder / "model"),
    ("mlserver", "onnxruntime"): lambda folder: _mlserver(folder),
    ("ray-serve", "onnxruntime"): lambda folder: _ray_serve(folder),
}
"""The settings of each package whose own code runs the model."""


def _mlserver(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / "model-settings.json").read_text())
    assert settings["implementation"] == "mlpx_mlserver.OnnxRuntime"
    assert (folder / "mlpx_mlserver" / "__init__.py").is_file()
    return settings["parameters"]["extra"]


def _ray_serve(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "serve.yaml").read_text())["applications"][0]["args"]["settings"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(("given", "written"), [(None, 60), (7.5, 7.5), (0, 0)])
@pytest.mark.parametrize("target", OWN, ids=" ".join)
def test_the_interval_is_a_setting_of_the_package(
    target: tuple[str, str], given: float | None, written: float, model: Path, tmp_path: Path
) -> None:
    name, backend = target
    made = package(model, name, tmp_path / "p", backend=backend, verify_every=given)
    assert OWN[target](made.folder)["verify_every"] == written
    assert json.loads((made.folder / "mlpx-package.json").read_text())["verify_every"] == written
    told = f"every {written:g} s the model is asked for the rows of its certificate"
    assert (told in (made.folder / "README.md").read_text()) == bool(written)
    (certificate,) = {path.read_bytes() for path in made.folder.rglob("*.parity.json")}
    assert certificate == model.with_suffix(".parity.json").read_bytes()
    assert [path.with_name("model.onnx").is_file() for path in made.folder.rglob("model.parity.json")] == [True]


def test_triton_s_python_backend_has_it_in_its_config(model: Path, tmp_path: Path) -> None:
    made = package(model, "triton", tmp_path / "p", backend="python", verify_every=7.5)
    config = (made.folder / "models" / "policy" / "config.pbtxt").read_text()
    assert 'key: "verify_every"\n  value {\n    string_value: "7.5"' in config


@pytest.mark.parametrize("target", ["triton", "openvino", "kserve"])
def test_where_another_s_code_runs_the_model_there_is_no_interval(target: str, model: Path, tmp_path: Path) -> None:
    made = package(model, target, tmp_path / "p")
    assert json.loads((made.folder / "mlpx-package.json").read_text())["verify_every"] is None
    assert "Ready only when right" not in (made.folder / "README.md").read_text()
    with pytest.raises(TargetError, match=r"runs no code of mlpx .* What to do: leave --verify-every out"):
        package(model, target, tmp_path / "q", verify_every=60)


def test_every_target_that_brings_its_own_runtime_says_what_a_wrong_model_does_there() -> None:
    bundled = {(name, backend) for name in TARGETS for backend in target_of(name).bundled}
    assert set(MECHANISMS) == bundled


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 1e9])
def test_an_interval_that_is_none(seconds: float, model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="--verify-every is 0 to 2,678,400 seconds, not"):
        package(model, "mlserver", tmp_path / "p", verify_every=seconds)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The files of ``runners``, imported as a server's environment does."""
    monkeypatch.syspath_prepend(Path(runners.__file__).parent)
    yield pytest.importorskip
    for name in ("onnx_model", "proved", "self_check"):
        sys.modules.pop(name, None)


@pytest.fixture
def beside(model: Path, tmp_path: Path) -> Path:
    """The model as it lies in a package, with its certificate."""
    for path in model.parent.glob("policy.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "policy.onnx"


def checked(parts: Callable[[str], Any], file: Path, compute: Callable[[Any, Any], Any], turns: int = 1) -> list[str]:
    """What each of some checks of a file's model finds, as a server's code makes them."""
    model = parts("onnx_model").OnnxModel(file)
    proved = parts("proved").Proved(file, model.batch, model.max_batch)
    told: list[bool] = []

    async def run(feed: Any) -> Any:
        return compute(feed, await model.run(feed))

    async def check() -> list[str]:
        one = parts("self_check").SelfCheck(proved, run, 60.0, told.append)
        found = []
        for _ in range(turns):
            await one.check()
            found.append(one.fault)
        return found

    found = asyncio.run(check())
    assert told == [not fault for fault in found]
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_of_a_package_finds_what_verify_url_finds(
    fault: str, parts: Callable[[str], Any], beside: Path, model: Path, tmp_path: Path
) -> None:
    answers = read_certificate(model.with_suffix(".parity.json")).answers
    assert answers is not None
    plan = prepare(tmp_path / "plan", beside, answers)
    planted = Planted(plan)
    assert checked(parts, beside, lambda feed, right: planted.compute(feed, lambda _: right)) == [""]
    with turned(plan, fault):
        (found,) = checked(parts, beside, lambda feed, right: planted.compute(feed, lambda _: right))
    assert "(row " in found or f"nearer to what {fault} gives" in found


@given(
    precision=st.sampled_from(["TF32", "bfloat16", "float16"]),
    share=st.sampled_from([0.0, 0.3, 0.45, 0.55, 0.8, 1.0]),
    noise=st.sampled_from([0.0, 0.01, 0.5, 1.5]),
    width=st.sampled_from([1.0, 1000.0]),
    few=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=examples(60, of=300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_judgement_is_that_of_verify_url(
    parts: Callable[[str], Any],
    beside: Path,
    precision: str,
    share: float,
    noise: float,
    width: float,
    few: bool,
    seed: int,
) -> None:
    """Answers between the exact ones and those of a precision, off by a part of their bounds, all or in some rows.

    Where the bounds are wide, it is the distances alone that tell them apart.
    """
    place = beside.with_name("policy.parity.json")
    record = json.loads(place.read_text())
    for tensor in record["answers"]["bound"].values():
        bound = np.frombuffer(base64.b64decode(tensor["base64"]), "<f8") * width
        tensor["base64"] = base64.b64encode(bound.tobytes()).decode()
    wide = beside.with_name("wide.onnx")
    wide.write_bytes(beside.read_bytes())
    wide.with_suffix(".parity.json").write_text(json.dumps(record))
    certificate = read_certificate(wide.with_suffix(".parity.json"))
    answers, random = certificate.answers, np.random.default_rng(seed)
    assert answers is not None
    rows = np.arange(answers.rows)
    wrong = (rows % 5 == 0) if few else rows >= 0
    outputs = {}
    for name, exact in answers.exact.items():
        off = share * (answers.reduced[precision][name] - exact) + noise * answers.bound[name] * random.uniform(-1, 1)
        outputs[name] = (exact + off * wrong[:, None]).astype(np.float32)
    tensors = {name: OutputTensor("FP32", values.shape, values.astype("f8")) for name, values in outputs.items()}
    exchange = Exchange(Method("all at once", "arrays"), tuple(rows.tolist()), "", Response(tensors))
    findings = judge(answers, [exchange], certificate.largest).findings
    fault = parts("proved").Proved(wide).fault([(rows, outputs)])
    assert bool(fault) == bool(findings), (fault, findings)


def test_answers_that_are_exchanged_between_requests_are_found(
    parts: Callable[[str], Any], beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parts("onnx_model").OnnxModel
    run = model._run_batch  # where the rows of a batch are given back to its requests
    monkeypatch.setattr(model, "_run_batch", lambda self, feeds: run(self, feeds)[::-1])
    (found,) = checked(parts, beside, lambda _, right: right)
    assert "values beyond the bound" in found


@pytest.mark.parametrize("rows", [True, False], ids=["with rows", "without rows"])
def test_a_certificate_that_proves_nothing_is_said(parts: Callable[[str], Any], beside: Path, rows: bool) -> None:
    """The runtime of MLServer takes any file, with whatever certificate is beside it."""
    place = beside.with_suffix(".parity.json")
    record = json.loads(place.read_text()) | {"verdict": "not proved", "why": "a layer is beyond its bound"}
    place.write_text(json.dumps(record if rows else record | {"answers": None}))
    with pytest.raises(ValueError, match=r"policy.onnx is not proved: a layer is beyond its bound\. What to do: prove"):
        parts("proved").Proved(beside)


def test_another_file_under_the_same_name_is_said(parts: Callable[[str], Any], beside: Path) -> None:
    data = beside.with_name("policy.onnx.data")
    data.write_bytes(data.read_bytes()[:-1] + b"\x00")
    (found,) = checked(parts, beside, lambda _, right: right)
    assert found.startswith("policy.onnx.data: not the bytes that were proved")


def test_answers_of_another_shape_and_a_model_that_fails_are_faults(parts: Callable[[str], Any], beside: Path) -> None:
    (found,) = checked(parts, beside, lambda _, right: {name: values[:, :1] for name, values in right.items()})
    assert "has another shape than" in found

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    (found,) = checked(parts, beside, fail)
    assert found == "no answer to the rows of the certificate: RuntimeError: out of memory"


def test_nan_is_beyond_every_bound(parts: Callable[[str], Any], beside: Path) -> None:
    (found,) = checked(parts, beside, lambda _, right: {n: np.full_like(v, np.nan) for n, v in right.items()})
    assert "values beyond the bound, the furthest nan instead of" in found


def test_the_log_says_each_change_once(
    parts: Callable[[str], Any], beside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checks: list[int] = []

    def at_times(feed: Any, right: Any) -> Any:
        if len(next(iter(feed.values()))) > 1:
            checks.append(1)
        wrong = len(checks) in (2, 3)
        return {name: values + wrong for name, values in right.items()}

    with caplog.at_level(logging.WARNING, "mlpx"):
        found = checked(parts, beside, at_times, turns=4)
    assert [bool(fault) for fault in found] == [False, True, True, False]
    words = [record.getMessage().partition(": ")[0] for record in caplog.records]
    assert words == ["the model does not compute what was proved", "the model computes what was proved again"]


def test_without_a_certificate_or_an_interval_nothing_is_checked(parts: Callable[[str], Any]) -> None:
    async def run(_: Any) -> Any:
        raise AssertionError("asked")

    async def check() -> None:
        for proved, every in ((None, 60.0), (object(), 0.0)):
            one = parts("self_check").SelfCheck(proved, run, every)
            await one.check()
            one.keep_checking()
            assert one.fault == ""
            one.end()

    asyncio.run(check())
