"""``mlpx shadow`` between real servers: the old one's very bytes, and every difference beyond the bounds."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from builder import MLPSpec, assemble
from export import publish
from tests.support.serving import Server, ask, rows, serving, until
from tests.support.shadowing import shadowing

pytestmark = pytest.mark.server
SPEC = MLPSpec(
    name="m",
    input={"name": "x", "features": 4, "range": [-3, 3]},
    blocks=[{"linear": 8}, "relu", {"linear": 3}],
    output={"name": "y"},
)


def published(folder: Path, *, moved: float = 0.0) -> Path:
    """The network, proved; with every weight moved."""
    module = assemble(SPEC, seed=0).eval()
    with torch.no_grad():
        for weights in module.parameters():
            weights += moved
    publish(module, folder / "m" / "m.onnx", spec=SPEC, device="cpu", page=False)
    return folder


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    folder = tmp_path_factory.mktemp("shadow")
    published(folder / "old")
    published(folder / "moved", moved=0.5)
    with serving(folder / "old") as old, serving(folder / "old") as same, serving(folder / "moved") as moved:
        yield {"old": old, "same": same, "moved": moved}


def as_json(values: np.ndarray) -> dict[str, object]:
    data = values.ravel().tolist()
    return {"inputs": [{"name": "x", "shape": list(values.shape), "datatype": "FP32", "data": data}]}


def as_bytes(values: np.ndarray) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "x", "shape": list(values.shape), "datatype": "FP32"}
    entry["parameters"] = {"binary_data_size": values.nbytes}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return head + values.tobytes(), {"Inference_Header_Content_Length": str(len(head))}


def test_answers_are_the_old_servers_bytes_and_the_same_model_differs_nowhere(servers: dict[str, Server]) -> None:
    with shadowing(servers["old"].url, servers["same"].url) as shadow:
        for batch in (1, 7):
            values = rows(batch, seed=batch).clip(-3, 3)
            sent = [(json.dumps(as_json(values)).encode(), {}), as_bytes(values)]
            for body, headers in sent:
                direct = ask(servers["old"].url, "POST", "/v2/models/m/infer", body, x_request_id="7", **headers)
                passed = shadow.ask(body, x_request_id="7", **headers)
                assert passed == direct
        metadata = servers["old"].ask("GET", "/v2/models/m")
        assert shadow.ask(path="/v2/models/m").body == metadata.body
        shadow.outcome("equal", 4)
        code, told, summary = shadow.stop()
    assert (code, told, summary["requests"], summary["differences"]) == (0, [], 4, 0)
    assert summary["models"]["m"]["rows"] == 16
    assert summary["models"]["m"]["bounds"].count("for every input with x -3 to 3") == 2


def test_pieces_pipelines_and_heads_pass_in_order(servers: dict[str, Server]) -> None:
    """HEAD, a request in pieces, and two at once, on one connection."""
    with shadowing(servers["old"].url, servers["same"].url) as shadow:
        host, port = shadow.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as end:
            end.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            head = http.client.HTTPResponse(end, method="HEAD")
            head.begin()
            content = json.dumps(as_json(rows(1))).encode()
            line = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content)
            for piece in (line[:20], line[20:], content[:9], content[9:] + line + content):
                end.sendall(piece)
            received = b""
            while received.count(b'"outputs"') < 2:
                received += end.recv(1 << 16)
        shadow.outcome("equal", 2)
        assert shadow.stop()[2]["requests"] == 2


def test_a_difference_beyond_the_bounds_is_told_with_its_place(servers: dict[str, Server]) -> None:
    with shadowing(servers["old"].url, servers["moved"].url) as shadow:
        values = np.array([[1, 1, 1, 1], [3, 3, 3, 3]], np.float32)
        shadow.ask(as_json(values), x_request_id="the one")
        shadow.outcome("beyond")
        outside = np.full((1, 4), 100, np.float32)  # where no bound holds
        shadow.ask(as_json(outside))
        shadow.outcome("unbounded")
        shadow.ask({"inputs": []})
        shadow.outcome("refused")
        code, told, summary = shadow.stop()
    assert code == 1
    assert [each["kind"] for each in told] == ["beyond", "unbounded"]
    assert told[0]["request"] == "the one"
    assert "row 2" in told[0]["words"]
    assert told[0]["share"] > 1
    assert "outside the ranges" in told[1]["words"]
    counts = summary["models"]["m"]["outcomes"]
    assert (counts["beyond"], counts["unbounded"], counts["refused"], summary["differences"]) == (1, 1, 1, 1)


def test_bounds_by_option_are_added(servers: dict[str, Server]) -> None:
    values = np.array([[3, 3, 3, 3]], np.float32)
    answers = [
        np.array(ask(servers[name].url, "POST", "/v2/models/m/infer", as_json(values)).json["outputs"][0]["data"])
        for name in ("old", "moved")
    ]
    apart = float(np.abs(answers[0].astype("f4") - answers[1].astype("f4")).max())
    models = [f"{servers[name].url}/v2/models/m" for name in ("old", "moved")]
    for share, kind in ((0.51, "within"), (0.49, "beyond")):
        bounds = ["--old-bound", share * apart, "--new-bound", share * apart]
        with shadowing(*models, *bounds) as shadow:
            shadow.ask(as_json(values))
            shadow.outcome(kind)
            assert shadow.stop()[0] == (kind == "beyond")


def test_a_certificate_by_option_serves_where_the_server_has_none(servers: dict[str, Server], tmp_path: Path) -> None:
    file = servers["old"].folder / "m" / "m.onnx"
    bare = tmp_path / "bare" / "m.onnx"
    bare.parent.mkdir()
    bare.write_bytes(file.read_bytes())
    values = as_json(np.array([[3, 3, 3, 3]], np.float32))
    with serving(bare.parent) as unproved:
        with shadowing(servers["moved"].url, unproved.url) as shadow:
            shadow.ask(values)
            shadow.outcome("unbounded")
            _, told, summary = shadow.stop()
        assert "no bound of the new model is known" in told[0]["words"]
        assert "of the new one none: the server shows no certificate" in summary["models"]["m"]["bounds"]
        certificate = ["--new-certificate", file.with_suffix(".parity.json")]
        with shadowing(servers["moved"].url, f"{unproved.url}/v2/models/m", *certificate) as shadow:
            shadow.ask(values)
            shadow.outcome("beyond")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_the_summary_when_what_is_in_progress_is_answered(
    servers: dict[str, Server], number: int
) -> None:
    with shadowing(servers["old"].url, servers["same"].url) as shadow:
        assert shadow.ask(as_json(rows(1))).status == 200
        code, _, summary = shadow.stop(number)
    assert (code, summary["requests"], summary["mirrored"], summary["compared"]) == (0, 1, 1, 1)


def test_the_comparing_process_is_started_again(servers: dict[str, Server]) -> None:
    with shadowing(servers["old"].url, servers["same"].url) as shadow:
        shadow.ask(as_json(rows(1)))
        shadow.outcome("equal")
        children = Path(f"/proc/{shadow.process.pid}/task/{shadow.process.pid}/children")
        for child in map(int, children.read_text().split()):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)

        def compared() -> bool:
            assert shadow.ask(as_json(rows(1))).status == 200
            return shadow.metrics()['mlpx_shadow_outcomes_total{model="m",outcome="equal"}'] >= 2

        until(compared)
