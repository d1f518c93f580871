"""Requests of the V2 protocol, good and malformed, by the name of their kind: for Triton and for ``mlpx serve`` alike.

Both serve ``one`` (x [batch, 4] -> y [batch, 3]) and ``several`` (obs [batch, 3], goal [batch, 2] -> action [batch, 2],
value [batch, 1]). A kind makes a request from a seeded generator, so each can be drawn any number of times.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True)
class Http:
    """A request over REST."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


Kind = Callable[[Rng], Http]


def numbers(rng: Rng, width: int = 4, count: int | None = None) -> np.ndarray:
    """Standard normal rows, 1 to 8 of them."""
    return rng.standard_normal((int(rng.integers(1, 9)) if count is None else count, width)).astype(np.float32)


def tensor(name: str, values: np.ndarray, **more: Any) -> dict[str, Any]:
    """An input as JSON has it."""
    return {"name": name, "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist(), **more}


def infer(body: Any, path: str = "/v2/models/one/infer", **headers: str) -> Http:
    """An inference with this body: bytes as they are, and anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Http("POST", path, content, {"Content-Type": "application/json"} | named)


def one(change: Callable[[dict[str, Any], Rng], Any]) -> Kind:
    """An inference of ``one`` whose request, or only input, was changed; or what the change gives in its place."""

    def kind(rng: Rng) -> Http:
        x = numbers(rng)
        body: dict[str, Any] = {"inputs": [tensor("x", x)]}
        changed = change(body, rng)
        return infer(body if changed is None else changed)

    return kind


def entry(**more: Any) -> Kind:
    """An inference of ``one`` with other values in its input; None takes a key away."""

    def change(body: dict[str, Any], rng: Rng) -> None:
        held = body["inputs"][0]
        for name, value in more.items():
            if value is None:
                del held[name]
            else:
                held[name] = value(held, rng) if callable(value) else value

    return one(change)


def whole(**more: Any) -> Kind:
    """An inference of ``one`` with further keys in its request."""
    return one(lambda body, _: body.update(more))


def binary(
    size: Callable[[int], Any] = lambda size: size,
    head: Callable[[int, int], Any] = lambda head, _: head,
    tail: Callable[[bytes], bytes] = lambda content: content,
    **more: Any,
) -> Kind:
    """An inference of ``one`` by the binary extension; the sizes that it states, and its bytes, may be changed."""

    def kind(rng: Rng) -> Http:
        x = numbers(rng)
        held = {
            "name": "x",
            "datatype": "FP32",
            "shape": list(x.shape),
            "parameters": {"binary_data_size": size(x.nbytes)},
        }
        described = json.dumps({"inputs": [held], **more}).encode()
        content = described + tail(x.tobytes())
        stated = head(len(described), len(content))
        named = {} if stated is None else {"Inference-Header-Content-Length": str(stated)}
        return Http("POST", "/v2/models/one/infer", content, {"Content-Type": "application/octet-stream"} | named)

    return kind


def several(names: tuple[str, ...] = ("obs", "goal"), **more: Any) -> Kind:
    """An inference of ``several``, with its inputs in this order."""

    def kind(rng: Rng) -> Http:
        count = int(rng.integers(1, 9))
        widths = {"obs": 3, "goal": 2}
        inputs = [tensor(name, numbers(rng, widths[name], count)) for name in names]
        return infer({"inputs": inputs, **more}, "/v2/models/several/infer")

    return kind


def plain(method: str, path: str, body: bytes | None = None) -> Kind:
    """A request that is always the same."""
    return lambda _: Http(method, path, body)


def packed(encoding: str, pack: Callable[[bytes], bytes]) -> Kind:
    """A compressed inference."""

    def kind(rng: Rng) -> Http:
        return infer(pack(json.dumps({"inputs": [tensor("x", numbers(rng))]}).encode()), Content_Encoding=encoding)

    return kind


def nested(held: dict[str, Any], _rng: Rng) -> list[Any]:
    return np.array(held["data"]).reshape(held["shape"]).tolist()


def twisted(held: dict[str, Any], _rng: Rng) -> list[Any]:
    """Nested, with rows of other lengths and the right number of values."""
    return [held["data"][:1], held["data"][1:]]


def with_token(token: str) -> Kind:
    """A row with a token of Python's JSON in it."""

    def kind(_rng: Rng) -> Http:
        text = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, {token}, 3, 4]}}]}}'
        return infer(text.encode())

    return kind


KINDS: dict[str, Kind] = {
    "server live": plain("GET", "/v2/health/live"),
    "server ready": plain("GET", "/v2/health/ready"),
    "server metadata": plain("GET", "/v2"),
    "model metadata": plain("GET", "/v2/models/several"),
    "model metadata of a version": plain("GET", "/v2/models/one/versions/1"),
    "model ready": plain("GET", "/v2/models/one/ready"),
    "version ready": plain("GET", "/v2/models/one/versions/1/ready"),
    "model configuration": plain("GET", "/v2/models/one/config"),
    "model statistics": plain("GET", "/v2/models/one/stats"),
    "statistics of all": plain("GET", "/v2/models/stats"),
    "repository index": plain("POST", "/v2/repository/index", b"{}"),
    "repository index without a body": plain("POST", "/v2/repository/index"),
    "load": plain("POST", "/v2/repository/models/one/load", b"{}"),
    "load of an unknown model": plain("POST", "/v2/repository/models/none/load", b"{}"),
    "unload of an unknown model": plain("POST", "/v2/repository/models/none/unload", b"{}"),
    "metadata of an unknown model": plain("GET", "/v2/models/none"),
    "metadata of an unknown version": plain("GET", "/v2/models/one/versions/7"),
    "ready of an unknown model": plain("GET", "/v2/models/none/ready"),
    "ready of an unknown version": plain("GET", "/v2/models/one/versions/7/ready"),
    "configuration of an unknown model": plain("GET", "/v2/models/none/config"),
    "statistics of an unknown model": plain("GET", "/v2/models/none/stats"),
    "unknown path": plain("GET", "/v2/nothing"),
    "infer by GET": plain("GET", "/v2/models/one/infer"),
    "metadata by POST": plain("POST", "/v2/models/one", b"{}"),
    "index by GET": plain("GET", "/v2/repository/index"),
    "version that is no number": plain("GET", "/v2/models/one/versions/latest"),
    "flat": one(lambda _, _rng: None),
    "nested": entry(data=nested),
    "integers": entry(data=lambda held, rng: rng.integers(-9, 9, len(held["data"])).tolist()),
    "id": whole(id="käse 7"),
    "empty id": whole(id=""),
    "asked output": whole(outputs=[{"name": "y"}]),
    "empty list of outputs": whole(outputs=[]),
    "output as bytes": whole(outputs=[{"name": "y", "parameters": {"binary_data": True}}]),
    "all outputs as bytes": whole(parameters={"binary_data_output": True}),
    "output as bytes refused for one": whole(
        parameters={"binary_data_output": True}, outputs=[{"name": "y", "parameters": {"binary_data": False}}]
    ),
    "long timeout": whole(parameters={"timeout": 20_000_000}),
    "unknown parameter": whole(parameters={"mine": "x"}),
    "unknown key": whole(mine=7),
    "priority": whole(parameters={"priority": 0}),
    "version in the path": lambda rng: infer(
        {"inputs": [tensor("x", numbers(rng))]}, "/v2/models/one/versions/1/infer"
    ),
    "binary": binary(),
    "binary in and out": binary(parameters={"binary_data_output": True}),
    "several": several(),
    "several, the other way round": several(("goal", "obs")),
    "several, one output": several(outputs=[{"name": "value"}]),
    "several, one output as bytes": several(
        outputs=[{"name": "value", "parameters": {"binary_data": True}}, {"name": "action"}]
    ),
    "gzip": packed("gzip", gzip.compress),
    "deflate": packed("deflate", zlib.compress),
    "no rows": lambda rng: infer({"inputs": [tensor("x", numbers(rng, count=0))]}),
    "NaN in JSON": with_token("NaN"),
    "Infinity in JSON": with_token("-Infinity"),
    "number beyond FP32": with_token("1e39"),
    "number beyond double": with_token("1e999"),
    "integer beyond 64 bits": with_token(str(10**30)),
    "unknown model": lambda rng: infer({"inputs": [tensor("x", numbers(rng))]}, "/v2/models/none/infer"),
    "unknown version": lambda rng: infer({"inputs": [tensor("x", numbers(rng))]}, "/v2/models/one/versions/7/infer"),
    "empty body": one(lambda _, _rng: b""),
    "no JSON": one(lambda _, _rng: b"hello"),
    "cut JSON": one(lambda body, rng: json.dumps(body).encode()[: -int(rng.integers(1, 30))]),
    "JSON and more": one(lambda body, _: json.dumps(body).encode() + b" {}"),
    "byte order mark": one(lambda body, _: b"\xef\xbb\xbf" + json.dumps(body).encode()),
    "not UTF-8": one(lambda body, _: json.dumps(body | {"id": "z"}).encode().replace(b'"z"', b'"\xff\xfe"')),
    "a list": one(lambda body, _: [body]),
    "no inputs": one(lambda _, _rng: {}),
    "inputs is an object": one(lambda body, _: {"inputs": body["inputs"][0]}),
    "inputs is empty": one(lambda _, _rng: {"inputs": []}),
    "input is a number": one(lambda _, _rng: {"inputs": [7]}),
    "input given twice": one(lambda body, _: {"inputs": body["inputs"] * 2}),
    "input too many": several(("obs", "goal"), inputs=[tensor("z", np.zeros((1, 1), np.float32))]),
    "input missing": several(("obs",)),
    "input named otherwise": entry(name="z"),
    "name missing": entry(name=None),
    "name is a number": entry(name=7),
    "datatype missing": entry(datatype=None),
    "datatype FP64": entry(datatype="FP64"),
    "datatype unknown": entry(datatype="FLOAT"),
    "shape missing": entry(shape=None),
    "shape is a number": entry(shape=4),
    "shape of text": entry(shape=["1", "4"]),
    "shape of fractions": entry(shape=[1.5, 4]),
    "shape negative": entry(shape=[-1, 4]),
    "shape absurd": entry(shape=[2**62, 4]),
    "shape beyond 64 bits": entry(shape=[10**30, 4]),
    "shape too narrow": entry(shape=lambda held, _: [len(held["data"]) // 2, 2]),
    "shape flat": entry(shape=lambda held, _: [len(held["data"])]),
    "shape too deep": entry(shape=lambda held, _: [*held["shape"], 1]),
    "data missing": entry(data=None),
    "data too short": entry(data=lambda held, _: held["data"][:-1]),
    "data too long": entry(data=lambda held, _: [*held["data"], 1.0]),
    "data empty": entry(data=[]),
    "data is text": entry(data="1, 2, 3, 4"),
    "data of text": entry(data=lambda held, _: [str(value) for value in held["data"]]),
    "data of booleans": entry(data=lambda held, _rng: [True for _ in held["data"]]),
    "data with null": entry(data=lambda held, _: [None, *held["data"][1:]]),
    "data nested unevenly": entry(data=twisted),
    "data nested too deep": entry(data=lambda held, _: [[[[value]]] for value in held["data"]]),
    "id is a number": whole(id=7),
    "id is an object": whole(id={}),
    "outputs is an object": whole(outputs={"name": "y"}),
    "output unknown": whole(outputs=[{"name": "z"}]),
    "output without a name": whole(outputs=[{}]),
    "output asked for twice": whole(outputs=[{"name": "y"}, {"name": "y"}]),
    "classification": whole(outputs=[{"name": "y", "parameters": {"classification": 2}}]),
    "parameters is a list": whole(parameters=[1]),
    "timeout negative": whole(parameters={"timeout": -1}),
    "timeout is text": whole(parameters={"timeout": "soon"}),
    "timeout is a fraction": whole(parameters={"timeout": 1.5}),
    "shared memory unknown": entry(data=None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 16}),
    "gzip that is none": packed("gzip", lambda body: body),
    "gzip cut": packed("gzip", lambda body: gzip.compress(body)[:-9]),
    "encoding unknown": packed("br", lambda body: body),
    "binary size too small": binary(size=lambda size: size - 4),
    "binary size too large": binary(size=lambda size: size + 4),
    "binary size negative": binary(size=lambda size: -size),
    "binary size is text": binary(size=lambda size: str(size)),
    "binary bytes missing": binary(tail=lambda content: content[:-4]),
    "binary bytes left over": binary(tail=lambda content: content + b"1234"),
    "binary head beyond the body": binary(head=lambda _, body: body + 1),
    "binary head too small": binary(head=lambda head, _: head - 5),
    "binary head negative": binary(head=lambda _, _body: -1),
    "binary head is text": binary(head=lambda _, _body: "many"),
    "binary head missing": binary(head=lambda _, _body: None),
}
