"""A Ray Serve application for the ONNX file of this package: the Open Inference Protocol over REST."""

# pyright: reportMissingModuleSource=false
from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn, cast

import ray
from onnx_model import OnnxModel, RequestTensor, WrongRequestError, plain
from proved import Proved
from ray import serve
from ray.util.metrics import Gauge
from self_check import SelfCheck
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

HERE = Path(__file__).resolve().parent
JSON_LENGTH = "Inference-Header-Content-Length"


@cast("Any", serve).deployment  # Ray's own types do not say that a class becomes a deployment with a bind
class OnnxDeployment:
    """A replica; serve.yaml has its settings and the number of replicas."""

    def __init__(self, name: str, settings: dict[str, Any]):
        self.name = name
        self.model = OnnxModel(HERE / "model.onnx", **{k: v for k, v in settings.items() if k != "verify_every"})
        proved = Proved(HERE / "model.onnx", self.model.batch, self.model.max_batch)
        right = Gauge("mlpx_model_right", "1 where the answers to the certificate's rows are those proved.", ("model",))
        self.checked = SelfCheck(
            proved, self.model.run, settings["verify_every"], lambda r: right.set(int(r), {"model": self.name})
        )
        self.started = False

    async def check_health(self) -> None:
        """Ray asks before the replica takes requests, and every few seconds: after three errors it starts another."""
        if not self.started:
            self.started = True
            await self.checked.check()
            self.checked.keep_checking()
        if self.checked.fault:
            raise RuntimeError(f"the model does not compute what was proved: {self.checked.fault}")

    async def __call__(self, request: Request) -> Response:
        """The answer to any request; an invalid one has status 400, an unknown path 404."""
        try:
            match request.method, self._parts(request.url.path):
                case "POST", ["v2", "models", self.name, "infer"]:
                    return await self._infer(await request.body(), request.headers.get(JSON_LENGTH))
                case "GET", ["v2"]:
                    server = {"name": "ray-serve", "version": ray.__version__, "extensions": ["binary_tensor_data"]}
                    return JSONResponse(server)
                case "GET", ["v2", "health", "ready"] | ["v2", "models", self.name, "ready"] if self.checked.fault:
                    return _error(503, f"the model does not compute what was proved: {self.checked.fault}")
                case "GET", ["v2", "health", "live" | "ready"] | ["v2", "models", self.name, "ready"]:
                    return Response()
                case "GET", ["v2", "models", self.name]:
                    tensors = {"inputs": self.model.inputs, "outputs": self.model.outputs}
                    ports = {key: [port.metadata for port in side.values()] for key, side in tensors.items()}
                    return JSONResponse({"name": self.name, "versions": ["1"], "platform": "onnx_onnxv1", **ports})
                case "GET", _:
                    path = request.url.path.strip("/")
                    return _error(404, f"there is no /{path}; the model is /v2/models/{self.name}")
                case _:
                    return _error(404, f"there is no {request.method} {request.url.path}")
        except WrongRequestError as error:
            return _error(400, str(error))

    def _parts(self, path: str) -> list[str]:
        """The parts of a path, without the version: the model has one."""
        parts = path.strip("/").split("/")
        return parts[:3] + parts[5:] if parts[1:5] == ["models", self.name, "versions", "1"] else parts

    async def _infer(self, body: bytes, json_length: str | None) -> Response:
        request, binary = _parse(body, json_length)
        feed = self.model.feed(_request_tensor(tensor, binary) for tensor in _tensors(request, "inputs"))
        if left := binary.read():
            raise WrongRequestError(f"{len(left)} bytes are left after the inputs' binary data")
        outputs = _tensors(request, "outputs") if request.get("outputs") is not None else []
        names = self.model.requested([_field(output, "name", str) for output in outputs])
        default = _parameters(request).get("binary_data_output", False)
        binary_outputs = {output["name"]: _parameters(output).get("binary_data", default) for output in outputs}
        results = await self.model.run(feed)
        tensors, parts = list[dict[str, Any]](), list[bytes]()
        for name in names:
            values, port = results[name], self.model.outputs[name]
            record: dict[str, Any] = {"name": name, "datatype": port.datatype, "shape": list(values.shape)}
            if binary_outputs.get(name, default):
                parts.append(values.astype("<f4").tobytes())
                record["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                record["data"] = plain(values)
            tensors.append(record)
        answer: dict[str, Any] = {"model_name": self.name, "model_version": "1", "outputs": tensors}
        if isinstance(request.get("id"), str):
            answer["id"] = request["id"]
        head = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
        if not parts:
            return Response(head, media_type="application/json")
        return Response(
            head + b"".join(parts), media_type="application/octet-stream", headers={JSON_LENGTH: str(len(head))}
        )


def _next_bytes(binary: BytesIO, size: Any) -> bytes:
    """The next input's part of the bytes after the JSON."""
    left = len(binary.getbuffer()) - binary.tell()
    if type(size) is not int or not 0 <= size <= left:
        raise WrongRequestError(f"binary_data_size is {size!r}, and {left} bytes are left")
    return binary.read(size)


def _parse(body: bytes, json_length: str | None) -> tuple[dict[str, Any], BytesIO]:
    """The JSON of a request and the bytes after it. Raises WrongRequestError."""
    length = len(body)
    if json_length is not None:
        if not json_length.isascii() or not json_length.isdecimal() or int(json_length[:20]) > len(body):
            raise WrongRequestError(f"{JSON_LENGTH} is {json_length[:40]!r}, and the body has {len(body)} bytes")
        length = int(json_length)
    try:
        request = json.loads(body[:length], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, WrongRequestError) else WrongRequestError("the body is not JSON") from None
    if not isinstance(request, dict):
        raise WrongRequestError("the body is not a JSON object")
    return cast("dict[str, Any]", request), BytesIO(body[length:])


def _refuse_constant(name: str) -> NoReturn:
    raise WrongRequestError(f"JSON has no {name}; send it as binary data")


def _request_tensor(tensor: Any, binary: BytesIO) -> RequestTensor:
    name, datatype = _field(tensor, "name", str), _field(tensor, "datatype", str)
    shape, parameters = _field(tensor, "shape", list), _parameters(tensor)
    if ("data" in tensor) == ("binary_data_size" in parameters):
        raise WrongRequestError(f"the input '{name}' has either data or a binary_data_size")
    data = tensor["data"] if "data" in tensor else _next_bytes(binary, parameters["binary_data_size"])
    return RequestTensor(name, datatype, shape, data)


def _field(record: Any, key: str, kind: type) -> Any:
    value = cast("dict[str, Any]", record).get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise WrongRequestError(f"a tensor has a '{key}', a JSON {'array' if kind is list else 'string'}")
    return value


def _tensors(request: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(request.get(key), list):
        raise WrongRequestError(f"a request has '{key}', an array of tensors")
    return request[key]


def _parameters(record: dict[str, Any]) -> dict[str, Any]:
    parameters: Any = record.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise WrongRequestError("'parameters' is a JSON object")
    return cast("dict[str, Any]", parameters)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)


def build(args: dict[str, Any]) -> serve.Application:
    """The application, as serve.yaml asks for it."""
    return OnnxDeployment.bind(args["name"], args["settings"])
