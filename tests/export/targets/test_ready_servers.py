"""The servers of packages take a model out of service while it does not answer as was proved."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from tritonclient.grpc import InferenceServerClient

from export import Package
from runtime import check_live
from runtime.monitor.monitor import Monitor
from tests.support.servers.asking import Live, ask_grpc, assert_proved, post, request
from tests.support.servers.planted import FAULTS
from tests.support.servers.planting import plant, prepare, turn, turned
from tests.support.servers.starting import ALONE
from tests.support.serving import until

EVERY = 0.2
JSON = "application/json"


class Case(NamedTuple):
    """A server with the folder that turns faults on."""

    live: Live
    plan: Path


def change_of(plan: Path) -> Callable[[Package], None]:
    def change(made: Package) -> None:
        answers = made.deployment.certificate.answers
        assert answers is not None
        prepare(plan, made.deployment.file, answers)
        (code,) = {*made.folder.rglob("onnx_model.py"), *made.folder.rglob("models/*/1/model.py")}
        plant(code, plan)
        if (config := made.folder / "serve.yaml").exists():
            record = yaml.safe_load(config.read_text())
            record["applications"][0]["deployments"][0]["health_check_period_s"] = 1
            config.write_text(yaml.safe_dump(record))
        if (runtime := made.folder / "mlpx_mlserver").exists():
            _add_bare_model(made.folder, runtime)

    return change


def _add_bare_model(folder: Path, runtime: Path) -> None:
    """Beside the package's model a folder with a file without a certificate, and the runtime, as documented."""
    bare = folder / "bare"
    shutil.copytree(runtime, bare / "mlpx_mlserver")
    for name in ("model.onnx", "policy.onnx.data"):
        shutil.copy(folder / name, bare)
    settings = {"name": "bare", "implementation": "mlpx_mlserver.OnnxRuntime", "parameters": {"uri": "./model.onnx"}}
    (bare / "model-settings.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Case]]:
    """Starts a server at its first use, and ends all of them with the module."""
    with ExitStack() as stack:

        def run(name: str) -> Case:
            folder = tmp_path_factory.mktemp(name)
            plan = folder / "plan"
            models = stack.enter_context(ALONE[name](folder, change_of(plan), verify_every=EVERY))
            return Case(models["policy"], plan)

        yield cache(run)


@pytest.fixture
def case(request: pytest.FixtureRequest, start: Callable[[str], Case]) -> Case:
    return start(request.param)


def only(*servers: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", servers, indirect=True)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{url}", timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def is_ready(live: Live) -> bool:
    """What REST says of the model, and gRPC, where the server has it, too."""
    ready = status(f"{live.http}/v2/models/policy/ready") == 200
    if live.grpc:
        with InferenceServerClient(live.grpc) as client:
            until(lambda: client.is_model_ready("policy") == (status(f"{live.http}/v2/models/policy/ready") == 200))
    return ready


def right(live: Live) -> list[float]:
    """The values of the metric that says whether the model is right."""
    with urllib.request.urlopen(f"http://{live.metrics}", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if re.match(r"(ray_)?mlpx_model_right\{", line)]


def answers(live: Live) -> bool:
    """Whether a request gets an answer, and no error; a right one, then."""
    code, record = post(live, request(live, slice(0, 2)))
    if code != 200:
        assert "not" in record["error"].lower(), record
        return False
    assert "outputs" in record, record
    return True


@only("kserve", "mlserver", "ray-serve")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_turns_readiness_off_and_its_end_turns_it_on(case: Case, fault: str) -> None:
    live, plan = case
    until(lambda: is_ready(live), "it is ready")
    with turned(plan, fault):
        until(lambda: not is_ready(live), "readiness ends")
        until(lambda: 0 in right(live), "the metric says so")
    until(lambda: is_ready(live), "readiness returns")
    until(lambda: 1 in right(live), "the metric says so")
    assert answers(live)


@only("mlserver")
def test_the_readiness_of_mlserver_is_that_of_its_models(case: Case) -> None:
    with turned(case.plan, "TF32"):
        until(lambda: status(f"{case.live.http}/v2/health/ready") != 200, "readiness ends")
    until(lambda: status(f"{case.live.http}/v2/health/ready") == 200, "readiness returns")


@only("mlserver")
def test_the_runtime_serves_any_file_by_itself(case: Case) -> None:
    live, plan = case
    with turned(plan, "another version"):  # of which nothing is known without a certificate
        until(lambda: not is_ready(live), "readiness of the other model ends")
        assert status(f"{live.http}/v2/models/bare/ready") == 200
    until(lambda: is_ready(live), "readiness returns")
    body = json.dumps(request(live, slice(0, 2))).encode()
    asked = urllib.request.Request(f"http://{live.http}/v2/models/bare/infer", body, {"Content-Type": JSON})
    with urllib.request.urlopen(asked, timeout=30) as response:
        outputs = json.load(response)["outputs"]
    assert_proved(live, slice(0, 2), {o["name"]: np.reshape(o["data"], o["shape"]) for o in outputs})


@only("kserve")
def test_the_kserve_sdk_refuses_requests_then_and_opens_no_model_again(case: Case) -> None:
    live, plan = case
    inputs = {name: values[:2] for name, values in live.answers.inputs.items()}
    with turned(plan, "float16"):
        until(lambda: not is_ready(live), "readiness ends")
        code, answer = post(live, request(live))
        assert code == 503
        assert "not ready" in answer["error"]
        ask_grpc(live, inputs)  # the SDK calls load again for it
        assert not is_ready(live)
    until(lambda: is_ready(live), "readiness returns")
    assert_proved(live, slice(0, 2), ask_grpc(live, inputs))


@only("triton")
@pytest.mark.parametrize("fault", FAULTS)
def test_triton_gives_errors_and_the_sidecar_is_not_ready(case: Case, fault: str) -> None:
    live, plan = case
    monitor = Monitor(lambda: check_live(live.url, live.certificate, tensors="json"), 60)
    until(lambda: answers(live), "it answers")
    with turned(plan, fault):
        until(lambda: not answers(live), "requests get errors")
        assert right(live) == [0]
        code, answer = post(live, request(live))
        assert code == 500
        assert "the model does not compute here what was proved: '" in answer["error"]
        assert monitor.turn().result == "failed"
        assert not monitor.state[0]
    until(lambda: answers(live), "answers return")
    assert right(live) == [1]
    assert monitor.turn().result == "proved"
    assert monitor.state[0]


def replicas(plan: Path) -> list[int]:
    """The processes of Ray's that run the model of this package."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                command, place = (path / "cmdline").read_bytes(), (path / "cwd").resolve()
            except OSError:
                continue
            if command.startswith(b"ray::ServeReplica") and str(plan.parent) in _environment(path, place):
                found.append(int(path.name))
    return found


def _environment(path: Path, place: Path) -> str:
    try:
        return (path / "environ").read_bytes().decode(errors="replace") + str(place)
    except OSError:
        return ""


@only("ray-serve")
def test_ray_replaces_a_replica_that_stays_wrong(case: Case) -> None:
    live, plan = case
    until(lambda: is_ready(live), "it is ready")
    (wrong,) = until(lambda: replicas(plan), "a replica")
    with turned(plan, f"another version@{wrong}"):
        until(lambda: not is_ready(live), "readiness ends")
        until(lambda: is_ready(live) and wrong not in replicas(plan), "another replica is ready")
        assert answers(live)


def test_triton_does_not_load_a_model_that_is_wrong(tmp_path: Path) -> None:
    def change(made: Package) -> None:
        change_of(tmp_path / "plan")(made)
        turn(tmp_path / "plan", "float16")

    ended = pytest.raises(AssertionError, match="failed to load all models")
    with ended, ALONE["triton"](tmp_path, change, verify_every=EVERY):
        pytest.fail("it started")
    log = (tmp_path / "triton.log").read_text(encoding="utf-8", errors="replace")
    assert "TritonModelException: it does not compute here what was proved: '" in log


def test_the_kserve_sdk_waits_for_a_model_to_be_right(tmp_path: Path) -> None:
    plan = tmp_path / "plan"

    def change(made: Package) -> None:
        change_of(plan)(made)
        turn(plan, "a stale file")

    with ALONE["kserve"](tmp_path, change, verify_every=EVERY) as models:
        assert not is_ready(models["policy"])
        turn(plan, "")
        until(lambda: is_ready(models["policy"]), "it is ready")


@pytest.mark.parametrize("name", ["kserve", "triton"])
def test_a_model_that_is_not_checked_is_not_called_wrong(name: str, tmp_path: Path) -> None:
    with ALONE[name](tmp_path, verify_every=0) as models:
        live = models["policy"]
        assert is_ready(live)
        assert answers(live)
        assert right(live) == []
