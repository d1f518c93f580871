"""The V2 protocol over gRPC, asked with tritonclient and, where it would not send such a thing, with its protobufs."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.support.serving import Server, ask, expected, models, rows, serving

pb: Any = import_module("tritonclient.grpc.service_pb2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = models(tmp_path_factory.mktemp("served"))
    with serving(folder, "--max-rows", 64, "--max-body", 100_000) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as connected:
        yield connected


def given(name: str, values: np.ndarray) -> triton.InferInput:
    tensor = triton.InferInput(name, list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    return tensor


def near(found: np.ndarray | None, wanted: np.ndarray) -> None:
    assert found is not None
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def request(values: np.ndarray, **more: Any) -> Any:
    message = pb.ModelInferRequest(model_name="one", **more)
    message.inputs.add(name="x", datatype="FP32", shape=values.shape)
    message.raw_input_contents.append(values.tobytes())
    return message


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("many", "2")
    assert not client.is_model_ready("many", "3")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata().name == "mlpx"
    metadata = client.get_model_metadata("several")
    ports = [(port.name, port.datatype, list(port.shape)) for port in [*metadata.inputs, *metadata.outputs]]
    assert sorted(ports) == [
        ("action", "FP32", [-1, 2]),
        ("goal", "FP32", [-1, 2]),
        ("obs", "FP32", [-1, 3]),
        ("value", "FP32", [-1, 1]),
    ]
    assert list(client.get_model_metadata("many").versions) == ["2", "10"]
    config = client.get_model_config("several").config
    assert (config.max_batch_size, config.platform) == (64, "onnxruntime_onnx")
    assert {(part.name, tuple(part.dims)) for part in config.output} == {("action", (2,)), ("value", (1,))}


def test_grpcs_own_health_protocol(channel: grpc.Channel) -> None:
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"") == check(b"\x0a\x1einference.GRPCInferenceService") == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as failed:
        check(b"\x0a\x05other")
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("count", [0, 1, 7, 64])
def test_inference(client: Any, server: Server, count: int) -> None:
    obs, goal = rows(count, 3), rows(count, 2, seed=1)
    answer = client.infer("several", [given("goal", goal), given("obs", obs)], request_id="q 7")
    for name, wanted in expected(server.folder / "several.onnx", obs=obs, goal=goal).items():
        near(answer.as_numpy(name), wanted)
    told = answer.get_response()
    assert (told.id, told.model_name, told.model_version) == ("q 7", "several", "1")
    one = client.infer(
        "several", [given("obs", obs), given("goal", goal)], outputs=[triton.InferRequestedOutput("value")]
    )
    assert [output.name for output in one.get_response().outputs] == ["value"]


def test_versions_and_what_rest_answers(client: Any, server: Server) -> None:
    x = rows(3)
    for asked, version in (("", "10"), ("2", "2"), ("10", "10")):
        answer = client.infer("many", [given("x", x)], model_version=asked)
        assert answer.get_response().model_version == version
        near(answer.as_numpy("y"), expected(server.folder / "many" / version / "model.onnx", x=x)["y"])
        path = f"/v2/models/many/versions/{version}/infer"
        tensor = {"name": "x", "datatype": "FP32", "shape": [3, 4], "data": x.tolist()}
        rest = ask(server.url, "POST", path, {"inputs": [tensor]}).json["outputs"][0]
        assert np.array_equal(np.array(rest["data"], np.float32).reshape(3, 3), answer.as_numpy("y"))


def test_typed_contents_and_compression(channel: grpc.Channel, server: Server) -> None:
    x = rows(2)
    message = pb.ModelInferRequest(model_name="one")
    message.inputs.add(name="x", datatype="FP32", shape=[2, 4]).contents.fp32_contents.extend(x.ravel().tolist())
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        answer = stub.ModelInfer(message, compression=compression)
        found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(2, 3)
        near(found, expected(server.folder / "one.onnx", x=x)["y"])


def _input(**more: Any) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for name, value in more.items():
            if name == "shape":
                del message.inputs[0].shape[:]
                message.inputs[0].shape.extend(value)
            else:
                setattr(message.inputs[0], name, value)

    return change


def _too_many(message: Any) -> None:
    message.inputs[0].shape[0] = 65
    message.raw_input_contents[0] = bytes(65 * 16)


REFUSED: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda m: setattr(m, "model_name", "none"), "NOT_FOUND", "this server has many, one, several"),
    (lambda m: setattr(m, "model_version", "9"), "NOT_FOUND", "no version '9'"),
    (lambda m: m.ClearField("inputs"), "INVALID_ARGUMENT", "0 inputs and 1 raw_input_contents"),
    (lambda m: m.raw_input_contents.append(b""), "INVALID_ARGUMENT", "1 inputs and 2 raw_input_contents"),
    (lambda m: (m.ClearField("inputs"), m.ClearField("raw_input_contents")), "INVALID_ARGUMENT", "lacks the input 'x'"),
    (lambda m: m.ClearField("raw_input_contents"), "INVALID_ARGUMENT", "0 values, and its shape takes 4"),
    (lambda m: m.raw_input_contents.__setitem__(0, b"123"), "INVALID_ARGUMENT", "3 bytes of raw_input_contents"),
    (
        lambda m: (m.inputs.append(m.inputs[0]), m.raw_input_contents.append(bytes(16))),
        "INVALID_ARGUMENT",
        "given twice",
    ),
    (lambda m: m.inputs[0].contents.fp32_contents.append(1), "INVALID_ARGUMENT", "both contents and raw"),
    (_input(name="z"), "INVALID_ARGUMENT", "no input is called 'z'"),
    (_input(datatype="FP64"), "INVALID_ARGUMENT", "takes FP32"),
    (_input(shape=[-1, 4]), "INVALID_ARGUMENT", "takes [-1, 4]"),
    (_input(shape=[2**62, 4]), "INVALID_ARGUMENT", "takes 64 in a request"),
    (_input(shape=[1, 4, 1]), "INVALID_ARGUMENT", "takes [-1, 4]"),
    (_too_many, "INVALID_ARGUMENT", "takes 64 in a request"),
    (lambda m: m.outputs.add(name="z"), "INVALID_ARGUMENT", "no output is called 'z'"),
    (lambda m: (m.outputs.add(name="y"), m.outputs.add(name="y")), "INVALID_ARGUMENT", "asked for twice"),
    (lambda m: m.parameters["timeout"].__setattr__("int64_param", -1), "INVALID_ARGUMENT", "microseconds"),
    (lambda m: m.parameters["timeout"].__setattr__("string_param", "1"), "INVALID_ARGUMENT", "microseconds"),
    (lambda m: m.parameters["timeout"].__setattr__("int64_param", 1), "DEADLINE_EXCEEDED", "deadline passed"),
    (
        lambda m: m.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "a"),
        "INVALID_ARGUMENT",
        "a name and two numbers of bytes are expected",
    ),
]


@pytest.mark.parametrize(("change", "code", "words"), REFUSED, ids=[f"{row[1]} {row[2]}" for row in REFUSED])
def test_errors_say_what_was_expected(channel: grpc.Channel, change: Any, code: str, words: str) -> None:
    message = request(rows(1))
    change(message)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    with pytest.raises(grpc.RpcError) as failed:
        stub.ModelInfer(message, timeout=60)
    assert (failed.value.code().name, words in str(failed.value.details())) == (code, True), failed.value.details()
    assert stub.ModelInfer(request(rows(1)), timeout=60).outputs[0].shape == [1, 3]


def test_bytes_that_are_no_message_and_messages_that_are_too_large(channel: grpc.Channel, server: Server) -> None:
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError, match="the message is not a ModelInferRequest") as failed:
        infer(b"\xff" * 40, metadata=(("x-request-id", "mine-9"),))
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ("x-request-id", "mine-9") in [(pair.key, pair.value) for pair in failed.value.trailing_metadata()]
    assert "mine-9" in {event["request"] for event in server.events("request")}
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with pytest.raises(grpc.RpcError) as failed:
            infer(bytes(10_000_000), compression=compression)
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"")
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_answers_in_order_and_goes_on_after_an_error(client: Any, server: Server) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error if result is None else result))
    for count in (1, 65, 3):
        client.async_stream_infer("one", [given("x", rows(count))], request_id=str(count))
    first, wrong, last = (answers.get(timeout=60) for _ in range(3))
    client.stop_stream()
    assert isinstance(wrong, InferenceServerException)
    assert "takes 64 in a request" in str(wrong)
    for answer, count in ((first, 1), (last, 3)):
        assert answer.get_response().id == str(count)
        near(answer.as_numpy("y"), expected(server.folder / "one.onnx", x=rows(count))["y"])


def test_statistics_count_both_protocols(client: Any, server: Server) -> None:
    def counted() -> tuple[int, int, int]:
        (told,) = client.get_inference_statistics("many", "2").model_stats
        part = told.inference_stats
        return part.success.count, part.fail.count, told.inference_count

    before = counted()
    client.infer("many", [given("x", rows(5))], model_version="2")
    with pytest.raises(InferenceServerException):
        client.infer("many", [given("x", rows(5, 3))], model_version="2")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [0] * 8}]}
    assert ask(server.url, "POST", "/v2/models/many/versions/2/infer", body).status == 200
    assert [after - first for first, after in zip(before, counted(), strict=True)] == [2, 1, 7]
    assert len(client.get_inference_statistics().model_stats) == 4
    with pytest.raises(InferenceServerException, match="no model is called 'none'"):
        client.get_inference_statistics("none")


def test_the_repository(client: Any) -> None:
    def index() -> dict[str, str]:
        return {f"{one.name} {one.version}": one.state for one in client.get_model_repository_index().models}

    assert index() == dict.fromkeys(["many 2", "many 10", "one 1", "several 1"], "READY")
    client.unload_model("several")
    try:
        assert index()["several 1"] == "UNAVAILABLE"
        assert not client.is_model_ready("several")
        with pytest.raises(InferenceServerException, match="not loaded") as failed:
            client.infer("several", [given("obs", rows(1, 3)), given("goal", rows(1, 2))])
        assert failed.value.status() == "StatusCode.UNAVAILABLE"
        assert client.is_server_ready()  # it was asked for
    finally:
        client.load_model("several")
    assert client.is_model_ready("several")
    with pytest.raises(InferenceServerException, match="no parameter config"):
        client.load_model("several", config="{}")
    with pytest.raises(InferenceServerException, match="no model is called 'none'"):
        client.load_model("none")
