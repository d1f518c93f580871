"""Files that change while requests run: nothing is dropped, and every answer is one file's or the other's."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from tritonclient import grpc as triton

from tests.support.serving import Server, ask, expected, model, rows, serving, until

X = rows(3)
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 4], "data": X.tolist()}]})


def replace(path: Path, source: Path) -> None:
    """As ``mlpx build`` does: whole, under its name at once."""
    beside = path.with_name(f".{path.name}.new")
    shutil.copyfile(source, beside)
    beside.replace(path)


def files(folder: Path, count: int = 2) -> list[Path]:
    """Networks with the same signature and other weights, outside the folder that is served."""
    return [model(folder / f"seed-{seed}.onnx", seed=seed) for seed in range(count)]


def over_rest(url: str, stop: Event) -> list[np.ndarray]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    found: list[np.ndarray] = []
    last = False
    while not last:
        last = stop.is_set()  # the last request begins when everything else is done
        connection.request("POST", "/v2/models/m/infer", BODY)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        found.append(np.array(json.loads(content)["outputs"][0]["data"], np.float32).reshape(3, 3))
    connection.close()
    return found


def over_grpc(place: str, stop: Event) -> list[np.ndarray]:
    tensor = triton.InferInput("x", [3, 4], "FP32")
    tensor.set_data_from_numpy(X)
    found: list[Any] = []
    with triton.InferenceServerClient(place) as client:
        last = False
        while not last:
            last = stop.is_set()
            answer = client.infer("m", [tensor])
            assert answer is not None
            found.append(answer.as_numpy("y"))
    return found


@contextmanager
def asking(server: Server) -> Iterator[list[Future[list[np.ndarray]]]]:
    """Clients of both protocols, until the block ends."""
    stop = Event()
    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(over_rest, server.url, stop) for _ in range(3)]
        running += [pool.submit(over_grpc, server.grpc, stop) for _ in range(3)]
        try:
            yield running
        finally:
            stop.set()


def state(server: Server) -> dict[str, Any]:
    return ask(server.url, "GET", "/v2/models/m").json["parameters"]


def loads(server: Server) -> int:
    return len(server.events("model_loaded"))


def test_a_file_is_replaced_while_requests_run(tmp_path: Path) -> None:
    sources = files(tmp_path / "sources")
    served = tmp_path / "served" / "m.onnx"
    served.parent.mkdir()
    replace(served, sources[0])
    answers = [expected(source, x=X)["y"] for source in sources]
    assert not np.allclose(answers[0], answers[1])
    with serving(served.parent) as server:
        with asking(server) as clients:
            for turn in range(1, 7):
                before = loads(server)
                replace(served, sources[turn % 2])
                os.kill(server.pid, signal.SIGUSR1)
                until(lambda before=before: loads(server) > before)
        found = [client.result() for client in clients]
        for own in found:
            kinds = [tuple(bool(np.allclose(one, wanted, atol=1e-5)) for wanted in answers) for one in own]
            assert set(kinds) == {(True, False), (False, True)}, "every client saw both files, and nothing else"
        assert server.events("model_refused") == []
        assert server.events("failure") == []
        total = sum(len(own) for own in found)
        (counted,) = ask(server.url, "GET", "/v2/models/m/stats").json["model_stats"]
        assert counted["inference_stats"]["success"]["count"] == total  # counters go on over reloads
        assert counted["inference_stats"]["fail"]["count"] == 0


@pytest.mark.parametrize("damage", [b"", b"no ONNX file", None], ids=["empty", "text", "cut"])
def test_a_broken_file_leaves_the_old_one_serving(tmp_path: Path, damage: bytes | None) -> None:
    first, second = files(tmp_path / "sources")
    served = tmp_path / "served" / "m.onnx"
    served.parent.mkdir()
    replace(served, first)
    with serving(served.parent) as server, asking(server) as clients:
        whole = state(server)["sha256"]
        broken = tmp_path / "broken"
        broken.write_bytes(first.read_bytes()[:-40] if damage is None else damage)
        replace(served, broken)
        os.kill(server.pid, signal.SIGUSR1)
        until(lambda: server.events("model_refused"))
        (told,) = ask(server.url, "POST", "/v2/repository/index").json
        assert told["state"] == "READY"
        assert "m.onnx" in told["reason"]
        refused = ask(server.url, "POST", "/v2/repository/models/m/load")
        assert refused.status == 400
        assert "m.onnx" in refused.error
        assert state(server)["sha256"] == whole
        assert ask(server.url, "GET", "/v2/health/ready").status == 200
        replace(served, second)
        assert ask(server.url, "POST", "/v2/repository/models/m/load").status == 200
        (told,) = ask(server.url, "POST", "/v2/repository/index").json
        assert (told["state"], told["reason"]) == ("READY", "")
        assert state(server)["sha256"] != whole
    for client in clients:
        np.testing.assert_allclose(client.result()[-1], expected(second, x=X)["y"], rtol=1e-5, atol=1e-6)


def test_versions_and_models_come_and_go_in_a_folder_that_is_watched(tmp_path: Path) -> None:
    sources = files(tmp_path / "sources", 3)
    served = tmp_path / "served"
    for number in (1, 2):
        (served / "m" / str(number)).mkdir(parents=True)
        replace(served / "m" / str(number) / "model.onnx", sources[number])

    def version() -> str:
        return ask(server.url, "POST", "/v2/models/m/infer", BODY).json["model_version"]

    with serving(served, "--poll", 0.1) as server, asking(server) as clients:
        assert version() == "2"
        (served / "m" / "11").mkdir()
        replace(served / "m" / "11" / "model.onnx", sources[0])
        until(lambda: version() == "11")
        assert ask(server.url, "GET", "/v2/models/m").json["versions"] == ["1", "2", "11"]
        shutil.rmtree(served / "m" / "11")
        until(lambda: version() == "2")
        assert ask(server.url, "GET", "/v2/models/m/versions/11/ready").status == 404
        model(served / "other.onnx")
        until(lambda: ask(server.url, "GET", "/v2/models/other/ready").status == 200)
        (served / "other.onnx").unlink()
        until(lambda: ask(server.url, "GET", "/v2/models/other").status == 404)
        assert server.events("failure") == []
    assert all(len(client.result()) > 0 for client in clients)


def test_a_model_that_was_taken_out_stays_out(tmp_path: Path) -> None:
    model(tmp_path / "m.onnx")
    with serving(tmp_path, "--poll", 0.1) as server:
        assert ask(server.url, "POST", "/v2/repository/models/m/unload").status == 200
        model(tmp_path / "later.onnx")
        until(lambda: ask(server.url, "GET", "/v2/models/later/ready").status == 200)
        assert ask(server.url, "GET", "/v2/models/m/ready").status == 503
        assert ask(server.url, "POST", "/v2/repository/models/m/load").status == 200
        assert ask(server.url, "POST", "/v2/models/m/infer", BODY).status == 200


def test_a_folder_that_cannot_be_read_for_a_while(tmp_path: Path) -> None:
    served = tmp_path / "served"
    model(served / "m.onnx")
    with serving(served) as server:
        served.rename(tmp_path / "away")
        os.kill(server.pid, signal.SIGUSR1)
        until(lambda: server.events("folder_unreadable"))
        assert ask(server.url, "POST", "/v2/models/m/infer", BODY).status == 200
        assert ask(server.url, "POST", "/v2/repository/models/m/load").status == 400
        (tmp_path / "away").rename(served)
        assert ask(server.url, "POST", "/v2/repository/models/m/load").status == 200
