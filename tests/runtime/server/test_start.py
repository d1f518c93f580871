"""Starting: what cannot be served ends the command, and one odd file ends nothing."""

import asyncio
import gc
import json
import weakref
from pathlib import Path

import pytest

from export import publish
from runtime import Session
from runtime.server.logs import Log
from runtime.server.options import Options
from runtime.server.repository import Repository
from tests.support.cases import network
from tests.support.commands import Run
from tests.support.serving import ask, model, rows, serving, until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One proved model, ``net``."""
    spec, module = network([{"linear": 3}])
    publish(module, tmp_path / "models" / "net.onnx", spec=spec, page=False)
    return tmp_path / "models"


@pytest.mark.parametrize("whole", [True, False], ids=["one file", "a folder"])
def test_a_start_with_nothing_to_serve_is_an_error(run: Run, tmp_path: Path, whole: bool) -> None:
    file = tmp_path / "notes.onnx"
    file.write_text("no model")
    done = run("serve", file if whole else tmp_path, "--port", 0, "--no-grpc")
    assert done.code == 2
    assert "none of its models can be served: notes" in done.err
    assert "Traceback" not in done.err


def test_a_small_limit_of_bodies_holds_for_small_requests(folder: Path) -> None:
    with serving(folder, "--max-body", 300) as server:
        row = {"inputs": [{"name": "input", "shape": [1, 7], "datatype": "FP32", "data": [0.0] * 7}]}
        assert ask(server.url, "POST", "/v2/models/net/infer", row).status == 200
        assert ask(server.url, "POST", "/v2/models/net/infer", row | {"id": "i" * 300}).status == 413


def test_a_port_of_grpc_that_another_server_has_is_refused(run: Run, folder: Path) -> None:
    with serving(folder) as server:
        port = server.grpc.rpartition(":")[2]
        done = run("serve", folder, "--port", 0, "--grpc-port", port)
    assert done.code == 3
    assert f"cannot bind 127.0.0.1:{port}" in done.err
    assert "What to do" in done.err


def test_a_long_folder_of_temporary_files(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / ("d" * 120)
    place.mkdir()
    with serving(folder, "--workers", 2, environment={"TMPDIR": str(place)}) as server:
        assert ask(server.url, "GET", "/v2/health/ready").status == 200
        assert ask(server.url, "POST", "/v2/repository/models/net/unload").status == 200


def odd_certificates(folder: Path) -> None:
    """Certificates that no file can go with: a name beyond every limit, and a number beyond float64."""
    record = json.loads((folder / "net.parity.json").read_text())
    long = record | {"file": record["file"] | {"data": {"x" * 300: "0"}}}
    huge = record | {"end_to_end": record["end_to_end"] | {"from_float64": 10**400}}
    for name, held in (("a", long), ("b", huge)):
        (folder / f"{name}.parity.json").write_text(json.dumps(held))


def test_odd_certificates_are_passed_over_at_the_start_and_later(folder: Path) -> None:
    odd_certificates(folder)
    with serving(folder, "--poll", 0.2) as server:
        assert ask(server.url, "GET", "/v2/models/net").json["parameters"]["proved"] is True
        (folder / "folder").mkdir()
        (folder / "folder" / "other.onnx").write_text("")
        model(folder / "late.onnx")
        until(lambda: ask(server.url, "GET", "/v2/models/late/ready").status == 200)


def test_no_certificate_is_read_from_outside_of_the_folder(folder: Path) -> None:
    (folder / "net.parity.json").rename(folder.parent / "net.parity.json")
    with serving(folder) as server:
        assert ask(server.url, "GET", "/v2/models/net").json["parameters"]["proved"] is False
    (folder / "net").mkdir()
    (folder / "net.onnx").rename(folder / "net" / "net.onnx")
    (folder.parent / "net.parity.json").rename(folder / "net.parity.json")
    with serving(folder) as server:
        assert ask(server.url, "GET", "/v2/models/net").json["parameters"]["proved"] is True


def test_a_model_that_is_taken_out_is_freed(folder: Path) -> None:
    asyncio.run(_taken_out(folder))


async def _taken_out(folder: Path) -> None:
    repository = Repository(Options(folder, device="cpu"), Log())
    await repository.refresh()
    loaded = repository.find("net")
    await loaded.infer({"input": rows(2, 7)}, 2, None)
    session = weakref.ref(loaded.session)
    del loaded
    gc.disable()
    try:
        await repository.unload("net")
        await asyncio.wait_for(_gone(session), 30)
    finally:
        gc.enable()
        repository.close()


async def _gone(session: weakref.ref[Session]) -> None:
    """The thread that answered lets go of the session a moment after its answer."""
    while session() is not None:
        await asyncio.sleep(0)
