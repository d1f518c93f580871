"""Triton is the oracle: the same requests to it and to ``mlpx serve``; docs/protocol.md lists every difference."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2_grpc

from builder import MLPSpec, assemble
from export import package, publish
from tests.support import oracle, oracle_grpc
from tests.support.oracle import Http
from tests.support.policy import SHAPES, Policy
from tests.support.servers.triton import Addresses, triton
from tests.support.serving import Reply, Server, read, serving

REQUESTS = 230
ROW = re.compile(r"^\| (`.*`) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)

_COUNTED = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output"}


@dataclass(frozen=True)
class Both:
    """The two servers' places, as host:port, of REST and of gRPC."""

    triton: Addresses
    mlpx: Server


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "repository").mkdir()
    (folder / "served").mkdir()
    blocks = [{"linear": 8}, "relu", {"linear": 3}]
    spec = MLPSpec(name="one", input={"name": "x", "features": 4}, blocks=blocks, output={"name": "y"})
    publish(assemble(spec).eval(), folder / "served" / "one.onnx", spec=spec, page=False)
    publish(Policy(), folder / "served" / "several.onnx", input_shape=SHAPES, page=False)
    for name in ("one", "several"):
        made = package(folder / "served" / f"{name}.onnx", "triton", folder / name, backend="python", max_batch=64)
        (folder / "repository" / name).symlink_to(made.folder / "models" / name)
    options = ("--model-control-mode=explicit", "--load-model=*")
    with triton(folder / "repository", folder / "triton.log", *options) as at, serving(folder / "served") as server:
        yield Both(at, server)


def sent(place: str, request: Http) -> Reply | None:
    """The answer; None where the server closed the connection without one."""
    connection = http.client.HTTPConnection(place, timeout=60)
    try:
        connection.request(request.method, request.path, request.body, request.headers)
        return read(connection.getresponse())
    except (http.client.HTTPException, ConnectionError):
        return None
    finally:
        connection.close()


def seen(reply: Reply | None) -> tuple[str, Any]:
    """What a client gets: the status or what is odd, and what can be compared of the content."""
    if reply is None:
        return "closed", None
    if reply.status >= 400:
        try:
            plain = set(reply.json) == {"error"} and isinstance(reply.json["error"], str)
        except ValueError:
            plain = False
        return f"{reply.status}{'' if plain else ', no error as JSON'}", None
    try:
        return str(reply.status), _content(reply)
    except UnicodeDecodeError:
        return f"{reply.status}, not UTF-8", None


def _content(reply: Reply) -> Any:
    """The parts that both servers should say alike; tensors as arrays, in whichever form they come."""
    length = reply.headers.get("inference-header-content-length")
    head, rest = (reply.body, b"") if length is None else (reply.body[: int(length)], reply.body[int(length) :])
    if not head:
        return None
    record = json.loads(head)
    if "outputs" not in record or "model_name" not in record:
        return _record({"models": record} if isinstance(record, list) else record)
    found: dict[str, Any] = {key: record.get(key) for key in ("model_name", "model_version", "id")}
    at = 0
    for output in record["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if output["datatype"] != "FP32":
            values = np.array(output["data"])
        elif size is None:
            values = np.array(output["data"], np.float32)
        else:
            values, at = np.frombuffer(rest[at : at + size], "<f4"), at + size
        kind = "JSON" if size is None else "bytes"
        found[output["name"]] = (kind, output["datatype"], values.reshape(output["shape"]))
    return found


def _record(record: dict[str, Any]) -> Any:
    """What servers tell of themselves and their models, less what each has of its own."""
    if "models" in record:
        return sorted((one["name"], one["version"], one["state"]) for one in record["models"])
    if "model_stats" in record:
        return sorted(
            (one["name"], one["version"], *sorted(_COUNTED & one["inference_stats"].keys()))
            for one in record["model_stats"]
        )
    record = record.get("config", record)
    if "max_batch_size" in record:
        return [
            (one["name"], one["data_type"], *map(int, one["dims"])) for one in [*record["input"], *record["output"]]
        ]
    ports = [*record.get("inputs", []), *record.get("outputs", [])]
    return sorted((one["name"], one["datatype"], *map(int, one["shape"])) for one in ports) or record.get(
        "ready", record.get("live")
    )


def called(channel: grpc.Channel, method: str, message: Any) -> tuple[str, Any]:
    """As ``seen``, over gRPC."""
    try:
        answer = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method)(message, timeout=60)
    except grpc.RpcError as error:
        return error.code().name, None  # pyright: ignore[reportAttributeAccessIssue]
    if method != "ModelInfer":
        return "OK", _record(MessageToDict(answer, preserving_proto_field_name=True))
    found: dict[str, Any] = {"model_name": answer.model_name, "model_version": answer.model_version, "id": answer.id}
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        found[output.name] = ("bytes", output.datatype, np.frombuffer(raw, "<f4").reshape(output.shape))
    return "OK", found


def alike(one: Any, other: Any) -> bool:
    """Whether two contents say the same; numbers within what float32 kernels differ by."""
    try:
        np.testing.assert_equal(_skeleton(one), _skeleton(other))
        for key, (_, datatype, values) in _tensors(one).items():
            if datatype == "FP32":
                np.testing.assert_allclose(values, _tensors(other)[key][2], rtol=1e-4, atol=1e-5)
    except AssertionError:
        return False
    return True


def _tensors(content: Any) -> dict[str, Any]:
    return {key: held for key, held in content.items() if isinstance(held, tuple)} if isinstance(content, dict) else {}


def _skeleton(content: Any) -> Any:
    """Everything but the numbers."""
    shapes = {key: (kind, datatype, values.shape) for key, (kind, datatype, values) in _tensors(content).items()}
    return content | shapes if isinstance(content, dict) else content


def drawn(count: int, seed: int = 0) -> list[tuple[str, Any]]:
    """That many requests: every kind once, and further ones of kinds that are chosen by the generator."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, Any] = {**oracle.KINDS, **oracle_grpc.KINDS}
    names = [*kinds, *map(str, rng.choice(list(kinds), max(0, count - len(kinds))))]
    return [(name, kinds[name](rng)) for name in names]


def differences(both: Both) -> dict[str, tuple[str, str]]:
    """By kind: what Triton answers and what ``mlpx serve`` does, where that is not the same."""
    place = both.mlpx.url.partition("//")[2]
    found: dict[str, tuple[str, str]] = {}
    with grpc.insecure_channel(both.triton.grpc) as channel, grpc.insecure_channel(both.mlpx.grpc) as own:
        for name, request in drawn(REQUESTS):
            if isinstance(request, Http):
                (theirs, one), (ours, other) = seen(sent(both.triton.http, request)), seen(sent(place, request))
            else:
                (theirs, one), (ours, other) = called(channel, *request), called(own, *request)
            if theirs == ours:
                ours = "the same" if alike(one, other) else f"{ours}, other content"
            assert found.setdefault(name, (theirs, ours)) == (theirs, ours), f"{name}: now {theirs} and {ours}"
    return {name: both for name, both in found.items() if both[1] != "the same"}


def listed(page: str) -> dict[str, tuple[str, str]]:
    """The same, as the page has it."""
    rows = ROW.findall(page.partition("## Differences from Triton")[2])
    return {name: (theirs, ours) for names, theirs, ours in rows for name in re.findall("`([^`]+)`", names)}


def test_every_difference_from_triton_is_listed(both: Both, root: Path) -> None:
    found = differences(both)
    page = listed((root / "docs" / "protocol.md").read_text(encoding="utf-8"))
    unlisted = [f"{name} | {' | '.join(told)}" for name, told in found.items() if page.get(name) != told]
    assert not unlisted, "not in docs/protocol.md:\n" + "\n".join(unlisted)
    assert {name: told for name, told in page.items() if found.get(name) != told} == {}, "no difference any more"
    assert both.mlpx.events("failure") == []
