"""A proved file in MLflow: what is logged and registered there, and what its own commands answer."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import inspect, publish
from mlpx.mlflow.signature import example_of
from runtime import Session, read_certificate
from runtime.version import VERSION
from tests.support.commands import Run
from tests.support.onnx_drafts import fixed_batch
from tests.support.policy import SHAPES, Policy
from tests.support.servers.mlflow import Mlflow, MlflowError, served, shell
from tests.support.words import CARRIERS, ORIGINS

from .conftest import Proved


@pytest.fixture(scope="module")
def logged(mlflow: Mlflow, policy: Proved, table: Proved) -> dict[str, dict[str, Any]]:
    """What was made of both files: by name the model's id, its run and its version."""
    return mlflow(
        """
        mlflow.set_experiment("flights")
        result = {}
        for name, path in files.items():
            with mlflow.start_run() as run:
                mlflow.log_param("seed", 0)
                info = mlpx.mlflow.log_model(path, registered_model_name=name, tags={"team": "robots"})
            version = info.registered_model_version
            mlflow.MlflowClient().set_registered_model_alias(name, "champion", version)
            result[name] = {"model": info.model_id, "run": run.info.run_id, "version": version}
        """,
        files={"policy": policy.path, "delays": table.path},
    )


@pytest.fixture(scope="module")
def folder(mlflow: Mlflow, logged: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the policy, as the registry has it."""
    at = tmp_path_factory.mktemp("downloaded")
    mlflow(
        "mlflow.artifacts.download_artifacts(model, dst_path=at)", model=f"models:/{logged['policy']['model']}", at=at
    )
    return at


def test_the_model_holds_the_proved_file_and_what_vouches_for_it(folder: Path, policy: Proved) -> None:
    for name in ("policy.onnx", "policy.onnx.data", "policy.parity.json", "policy.parity.html"):
        assert (folder / name).read_bytes() == policy.path.with_name(name).read_bytes()
    requirements = (folder / "requirements.txt").read_text().split()
    assert requirements[1:] == [f"mlpx[cpu]=={VERSION}"]
    assert requirements[0].startswith("mlflow==")


@pytest.mark.usefixtures("logged")
def test_the_signature_is_the_file_s(mlflow: Mlflow) -> None:
    tensors, columns, words = mlflow(
        """
        models = [mlflow.models.get_model_info(f"models:/{name}@champion") for name in ("policy", "delays")]
        result = [{"in": m.signature.inputs.to_dict(), "out": m.signature.outputs.to_dict()} for m in models]
        result.append([model.flavors["mlpx"].get("categories") for model in models])
        """
    )

    def tensor(name: str, width: int) -> dict[str, Any]:
        return {"name": name, "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, width]}}

    assert tensors["in"] == [tensor("obs", 3), tensor("goal", 2)]
    assert tensors["out"] == [tensor("action", 2), tensor("value", 1)]
    assert [(column["name"], column["type"]) for column in columns["in"]] == [
        ("distance", "double"),
        ("wind", "double"),
        ("carrier", "string"),
        ("origin", "string"),
    ]
    assert columns["out"] == [tensor("delay", 1)]
    assert words == [None, {"carrier": list(CARRIERS), "origin": list(ORIGINS)}]


def test_the_verdict_and_the_bounds_are_metrics_and_tags(mlflow: Mlflow, logged: dict[str, Any], table: Proved) -> None:
    found = mlflow(
        """
        client = mlflow.MlflowClient()
        model, run = client.get_logged_model(ids["model"]), client.get_run(ids["run"])
        version = client.get_model_version("delays", ids["version"])
        metrics = {metric.key: metric.value for metric in model.metrics}
        result = [metrics, run.data.metrics, dict(model.tags), dict(version.tags), [model.name, dict(model.params)]]
        """,
        ids=logged["delays"],
    )
    metrics, of_run, tags, of_version, model = found
    known, bound = table.certificate, table.certificate.bound
    assert bound is not None
    assert metrics == of_run
    assert metrics == {
        "mlpx.proved": 1.0,
        "mlpx.largest_difference": known.largest,
        "mlpx.bound_of_rows": table.answers.bound["delay"].max(),
        "mlpx.bound": bound.largest,
        "mlpx.bound.delay": bound.largest,
        "mlpx.margin": bound.margin,
    }
    expected = {"mlpx.verdict": "proved", "mlpx.sha256": known.sha256, "mlpx.proved_on": "cpu", "team": "robots"}
    for each in (tags, of_version):
        assert expected.items() <= each.items()
        assert each["mlpx.bound"].startswith("at most ")
    assert model == ["delays_1", {"seed": "0"}]


def test_each_model_of_a_run_has_its_own_metrics(mlflow: Mlflow, policy: Proved, table: Proved) -> None:
    """Also one that is not proved, which another flavour logs."""
    run, *models = mlflow(
        """
        with mlflow.start_run() as run:
            mlflow.log_metric("accuracy", 0.75)
            made = [mlpx.mlflow.log_model(path) for path in paths]
            made.append(mlflow.pyfunc.log_model(name="other", loader_module="json", pip_requirements=[]))
        client = mlflow.MlflowClient()
        result = [{metric.key: metric.value for metric in client.get_logged_model(m.model_id).metrics} for m in made]
        result.insert(0, client.get_run(run.info.run_id).data.metrics)
        """,
        paths=[policy.path, table.path],
    )
    assert [model.pop("accuracy") for model in (run, *models)] == [0.75] * 4
    assert models[0] == {
        "mlpx.proved": 1.0,
        "mlpx.largest_difference": policy.certificate.largest,
        "mlpx.bound_of_rows": max(bound.max() for bound in policy.answers.bound.values()),
    }
    assert models[1]["mlpx.largest_difference"] == table.certificate.largest
    assert models[2] == {}
    assert run == models[1]


def test_a_version_leads_to_its_run_and_back(mlflow: Mlflow, logged: dict[str, Any]) -> None:
    source, run, models, model = mlflow(
        """
        client = mlflow.MlflowClient()
        version = client.get_model_version_by_alias("policy", "champion")
        models = [each.model_id for each in client.get_run(version.run_id).outputs.model_outputs]
        model = client.get_logged_model(models[0])
        result = [version.source, version.run_id, models, [model.source_run_id, model.tags["mlflow.modelVersions"]]]
        """
    )
    ids = logged["policy"]
    assert (source, run, models) == (f"models:/{ids['model']}", ids["run"], [ids["model"]])
    assert model[0] == ids["run"]
    assert {(each["name"], str(each["version"])) for each in json.loads(model[1])} == {("policy", "1")}


@pytest.mark.parametrize("at", ["models:/policy@champion", "models:/policy/1", "runs:/{run}/policy", "models:/{model}"])
def test_the_session_of_a_logged_model_is_that_of_the_file(
    mlflow: Mlflow, logged: dict[str, Any], policy: Proved, at: str
) -> None:
    device, outputs = mlflow(
        """
        import numpy as np
        with mlpx.mlflow.load_model(at) as session:
            result = [session.device, session.run({name: np.float32(rows) for name, rows in inputs.items()})]
        """,
        at=at.format(**logged["policy"]),
        inputs={name: rows.tolist() for name, rows in policy.answers.inputs.items()},
    )
    assert device == "cpu"
    policy.assert_proved(outputs)


@pytest.mark.usefixtures("logged")
def test_neither_torch_nor_onnx_is_needed(mlflow: Mlflow) -> None:
    look = "import importlib.util; result = [importlib.util.find_spec(name) for name in ('torch', 'onnx')]"
    assert mlflow(look) == [None, None]


def _words(table: Proved) -> dict[str, Any]:
    """The rows of the certificate as a data frame in MLflow's JSON, with the words of its codes."""
    numbers, codes = table.answers.inputs["numbers"], table.answers.inputs["words"]
    data = [
        [*(None if np.isnan(value) else float(value) for value in row), CARRIERS[carrier], ORIGINS[origin]]
        for row, (carrier, origin) in zip(numbers, codes, strict=True)
    ]
    return {"dataframe_split": {"columns": ["distance", "wind", "carrier", "origin"], "data": data}}


def _ask(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.usefixtures("logged")
def test_models_serve_answers_within_the_bound(
    uri: str, policy: Proved, table: Proved, tmp_path: Path, run: Run
) -> None:
    with served(uri, "models:/policy@champion", tmp_path) as url:
        inputs = {name: rows.tolist() for name, rows in policy.answers.inputs.items()}
        status, answer = _ask(url, {"inputs": inputs})
        assert status == 200
        policy.assert_proved(answer["predictions"])
        status, answer = _ask(url, {"inputs": {"obs": [[1, 2]], "goal": [[1, 2]]}})
        assert status == 400
        assert "does not match expected shape (-1, 3)" in answer["message"]
        _assert_verified(url, policy, run, tmp_path)
    with served(uri, "models:/delays@champion", tmp_path) as url:
        status, answer = _ask(url, _words(table))
        assert status == 200
        table.assert_proved({"delay": answer["predictions"]})
        wrong = _words(table)
        wrong["dataframe_split"]["data"][1][3] = "JFX"
        status, answer = _ask(url, wrong)
        assert status == 400
        assert re.search("row 2.*JFX.*origin|origin.*row 2.*JFX", answer["message"])


def _assert_verified(url: str, policy: Proved, run: Run, folder: Path) -> None:
    """``mlpx verify --url`` proves the server of the policy, and no other policy there."""
    done = run("verify", policy.path, "--url", url)
    assert done.code == 0, done.out + done.err
    assert re.search(rf"proved +{url}: \d+ rows in \d+ requests, tensors as JSON", done.out)
    assert re.search(r"server +MLflow \d+\.\d+\.\d+, REST\n", done.out)
    torch.manual_seed(1)
    publish(Policy(), folder / "other.onnx", input_shape=SHAPES, page=False)
    other = run("verify", folder / "other.onnx", "--url", url)
    assert other.code == 1
    assert "beyond" in other.out or "off" in other.out


@pytest.mark.usefixtures("logged")
def test_models_predict_answers_within_the_bound(uri: str, table: Proved, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(_words(table)))
    files = "-t json -i rows.json -o scores.json"
    shell(uri, f"mlflow models predict -m models:/delays@champion --env-manager local {files}", cwd=tmp_path)
    table.assert_proved({"delay": json.loads((tmp_path / "scores.json").read_text())["predictions"]})


def test_pyfunc_takes_columns_of_numbers_where_that_is_asked_for(mlflow: Mlflow, table: Proved, tmp_path: Path) -> None:
    outputs = mlflow(
        """
        import numpy as np
        needs = {"pip_requirements": [wheel], "extra_pip_requirements": ["uvloop"]}
        mlpx.mlflow.save_model(path, folder, columns=False, **needs)
        model = mlflow.pyfunc.load_model(folder)
        result = model.predict({"numbers": np.float32(numbers), "words": np.int64(words)})
        """,
        path=table.path,
        folder=tmp_path / "model",
        wheel=(wheel := "mlpx[cpu] @ https://example.org/mlpx-0.1.0-py3-none-any.whl"),
        **{name: rows.tolist() for name, rows in table.answers.inputs.items()},
    )
    table.assert_proved(outputs)
    assert (tmp_path / "model" / "requirements.txt").read_text().splitlines()[1:] == [wheel, "uvloop"]


@pytest.mark.parametrize("rows", [12, 100])
def test_the_example_of_a_fixed_batch_is_one_that_the_file_takes(rows: int, tmp_path: Path) -> None:
    """Also where the certificate has fewer rows."""
    path = fixed_batch(tmp_path, rows)
    answers = read_certificate(path.with_suffix(".parity.json")).answers
    with Session(path, "cpu") as session:
        example = example_of(inspect(path).summary, answers, columns=False)
        assert {name: y.shape for name, y in session.run(example).items()} == {session.outputs[0].name: (rows, 2)}


def test_the_device_that_was_asked_for_runs_or_none(mlflow: Mlflow, policy: Proved, tmp_path: Path) -> None:
    saved = {"folder": tmp_path / "model", "path": policy.path}
    mlflow("mlpx.mlflow.save_model(path, folder, device='cuda')", **saved)
    assert f"mlpx[cuda]=={VERSION}" in (tmp_path / "model" / "requirements.txt").read_text()
    for load in ("mlflow.pyfunc.load_model(folder)", "mlpx.mlflow.load_model(folder)"):
        with pytest.raises(MlflowError, match="cuda was requested and is not available") as raised:
            mlflow(load, **saved)
        assert raised.value.kind == "ProviderError"
    there = "mlflow.pyfunc.load_model(folder, model_config={'device': 'cpu'}).unwrap_python_model"
    assert mlflow(f"{there}; result = mlpx.mlflow.load_model(folder, 'cpu').device", **saved) == "cpu"
