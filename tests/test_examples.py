"""The examples in the docstrings of public names run, in the folder that the reference describes."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpx import json_schema
from tests.support import ROOT
from tests.support.hub import LEGACY, Hub, connected
from tests.support.serving import serving
from website import reference

ON_A_CLUSTER = {"runtime.score_folder", "runtime.FolderReport", "mlpx.ClusterError"}
IN_AN_ENVIRONMENT_OF_ITS_OWN = "mlpx.mlflow."
"""tests/mlpx/mlflow runs these."""
NAMES = [
    name
    for name in reference.public()
    if not reference.is_constant(name) and not name.startswith(IN_AN_ENVIRONMENT_OF_ITS_OWN)
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def continued(name: str) -> str | None:
    """The name whose example the one of a name continues."""
    found = re.search(r"Continues the example of ``(\S+)``", reference.documented(name))
    return found and found[1]


def marked(name: str) -> Any:
    marks = [pytest.mark.server] if re.search(r"\burl\b", example(name)) else []
    return pytest.param(name, marks=[pytest.mark.cluster] if name in ON_A_CLUSTER else marks)


def example(name: str) -> str:
    return reference.documented(name).partition("Examples:\n")[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the code of the reference's first page writes."""
    folder = tmp_path_factory.mktemp("reference")
    page = (ROOT / "website/reference.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(code, {})
        yield folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The model at a running ``mlpx serve``."""
    with serving(folder, "--no-grpc") as server:
        yield f"{server.url}/v2/models/comfort"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in for the Hub."""
    with connected(monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="module")
def after() -> dict[str, dict[str, Any]]:
    """The variables that every example that ran left behind."""
    return {}


@pytest.mark.filterwarnings(LEGACY)
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", [*map(marked, NAMES)])
def test_the_example_runs(name: str, after: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    def ran(name: str) -> dict[str, Any]:
        if name not in after:
            text = example(name)
            assert ">>> " in text, f"{name} has no example"
            variables = dict(ran(before)) if (before := continued(name)) else {"__name__": "example"}
            if re.search(r"\burl\b", text):
                variables["url"] = request.getfixturevalue("url")
            if "pull(" in text:
                request.getfixturevalue("hub")
            test = doctest.DocTestParser().get_doctest(text, variables, name, None, 0)
            problems: list[str] = []
            doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=problems.append, clear_globs=False)
            assert not problems, "".join(problems)
            after[name] = test.globs
        return after[name]

    ran(name)


def test_the_schema_of_a_spec_has_no_python() -> None:
    assert ">>> " not in json.dumps(json_schema())
