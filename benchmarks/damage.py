"""Damage of many kinds to the bytes of a file, at random: bytes, Protocol Buffers, values of JSON and YAML."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import ModelProto, TensorProto

Damage = Callable[[bytes, Random], bytes]
"""The bytes of a whole file to those of a damaged one. Whatever it raises: the damage does not apply to this file."""
_WORDS = b"\xff\xfe\xc3(", b"\0", b"", b"../../etc/passwd", b"%s%n", "ü\u202e".encode(), b"A" * 5000, b"label"
_SIZES = 0, -1, 1, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**40,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x" * 3000,
    [],
    {},
    [[]],
)
_NUMBER = "1" + "0" * 5000
"""An integer of more digits than Python reads."""


def _truncated(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _bits_flipped(content: bytes, random: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _head_flipped(content: bytes, random: Random) -> bytes:
    """Where headers are, and a few bits decide how the rest is read."""
    head = min(len(content), 256)
    return _bits_flipped(content[:head], random) + content[head:]


def _tail_flipped(content: bytes, random: Random) -> bytes:
    """Where the footers of archives and tables are."""
    tail = max(0, len(content) - 512)
    return content[:tail] + _bits_flipped(content[tail:], random)


def _chunks_swapped(content: bytes, random: Random) -> bytes:
    a, b, c, d = sorted(random.randrange(len(content)) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _chunk_lost(content: bytes, random: Random) -> bytes:
    start = random.randrange(len(content))
    return content[:start] + content[start + random.choice((1, 4, 100)) :]


def _chunk_doubled(content: bytes, random: Random) -> bytes:
    start, length = random.randrange(len(content)), random.choice((1, 8, 1000))
    return content[: start + length] + content[start:]


def _chunk_filled(content: bytes, random: Random) -> bytes:
    start, length = random.randrange(len(content)), random.choice((1, 4, 8, 64))
    return content[:start] + random.choice((b"\0", b"\xff", b"\x7f", b"9")) * length + content[start + length :]


def _text_replaced(content: bytes, random: Random) -> bytes:
    """A word of the file by another of the same length or not: names, keys, paths, operators."""
    words = sorted(set(_words_of(content)))
    word, other = random.choice(words), random.choice(_WORDS)
    if random.random() < 0.5:  # of the same length, so that the fields around it stay readable
        other = (other * len(word))[: len(word)] if other else b"\xff" * len(word)
    return content.replace(word, other, random.choice((1, -1)))


def _words_of(content: bytes) -> list[bytes]:
    import re

    return re.findall(rb"[A-Za-z_][A-Za-z0-9_.]{2,40}", content[: 1 << 18])


BYTES: Mapping[str, Damage] = {
    "truncated": _truncated,
    "bits flipped": _bits_flipped,
    "head flipped": _head_flipped,
    "tail flipped": _tail_flipped,
    "chunks swapped": _chunks_swapped,
    "chunk lost": _chunk_lost,
    "chunk doubled": _chunk_doubled,
    "chunk filled": _chunk_filled,
    "text replaced": _text_replaced,
}


def _edited(edit: Callable[[ModelProto, Random], object]) -> Damage:
    """Damage to the message of an ONNX file."""

    def damage(content: bytes, random: Random) -> bytes:
        model = onnx.load_from_string(content)
        edit(model, random)
        return model.SerializeToString()

    return damage


def _node_edited(model: ModelProto, random: Random) -> None:
    graph = model.graph
    node = random.choice(graph.node)
    names = [name for other in graph.node for name in (*other.input, *other.output)] + [
        t.name for t in graph.initializer
    ]
    kind = random.randrange(9)
    if kind == 0:
        node.op_type = random.choice(
            ("Relu", "Gemm", "Loop", "If", "NoSuchOp", "", "Reshape", "LayerNormalization", "Concat")
        )
    elif kind == 1:
        node.input[random.randrange(len(node.input))] = random.choice(("", "nowhere", *names))
    elif kind == 2:
        node.input.append(random.choice(("", *names)))
    elif kind == 3:
        del node.input[random.randrange(len(node.input)) :]
    elif kind == 4:
        node.output[0] = random.choice(("", *names))
    elif kind == 5:
        node.output.append(random.choice(names))
    elif kind == 6:
        graph.node.append(node)
    elif kind == 7:
        graph.node.remove(node)
    else:
        node.domain = random.choice(("ai.onnx.ml", "com.microsoft", "x", "ai.onnx"))


def _attribute_edited(model: ModelProto, random: Random) -> None:
    node = random.choice([node for node in model.graph.node if node.attribute] or model.graph.node)
    if not node.attribute or random.random() < 0.3:
        made = onnx.helper.make_attribute(
            random.choice(("axis", "alpha", "transB", "value", "to", "perm")),
            random.choice((-9, 7, 2.5, b"x", [0, 0, 5])),
        )
        node.attribute.append(made)
        return
    attribute = random.choice(node.attribute)
    attribute.i = random.choice(_SIZES)
    attribute.f = random.choice((float("nan"), float("inf"), 0.0, -1e38))
    attribute.type = random.choice((0, 1, 2, 3, 4, 6, 7, attribute.type))  # pyright: ignore[reportAttributeAccessIssue]
    if random.random() < 0.3:
        attribute.name = random.choice(("", "axis", "alpha"))
    if random.random() < 0.2:
        node.attribute.append(attribute)


def _tensor_edited(model: ModelProto, random: Random) -> None:
    tensor = random.choice(model.graph.initializer)
    kind = random.randrange(7)
    if kind == 0 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(_SIZES)
    elif kind == 1:
        tensor.dims.extend([random.choice((0, 1, 2, 2**62))] * random.choice((1, 40)))
    elif kind == 2:
        tensor.data_type = random.choice((0, 2, 6, 7, 8, 9, 10, 11, 14, 16, 22, 99))
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
    elif kind == 4:
        tensor.raw_data = b"\xff" * len(tensor.raw_data)  # NaN
    elif kind == 5:
        tensor.name = random.choice(("", "input", "output", *(other.name for other in model.graph.initializer)))
    else:
        tensor.data_location = TensorProto.EXTERNAL
        for key in ("location", "offset", "length"):
            value = random.choice(("", ".", "/etc/hostname", "../x", "nan", "-5", "9" * 5000, "spec.yaml", "1"))
            tensor.external_data.add(key=key, value=value)


def _port_edited(model: ModelProto, random: Random) -> None:
    value = random.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    kind = random.randrange(6)
    if kind == 0 and dims:
        random.choice(dims).dim_value = random.choice(_SIZES)
    elif kind == 1 and dims:
        random.choice(dims).dim_param = random.choice(("", "batch", "x" * 5000))
    elif kind == 2:
        del dims[random.randrange(len(dims) + 1) :]
    elif kind == 3:
        value.type.tensor_type.elem_type = random.choice((0, 7, 8, 9, 10, 11, 77))
    elif kind == 4:
        value.name = random.choice(("", "nowhere", *(node.output[0] for node in model.graph.node)))
    else:
        random.choice((model.graph.input, model.graph.output)).append(value)


def _header_edited(model: ModelProto, random: Random) -> None:
    kind = random.randrange(4)
    if kind == 0:
        model.ir_version = random.choice((0, 1, 3, 99, 2**62, -1))
    elif kind == 1:
        model.opset_import[0].version = random.choice((0, 1, 7, 9, 13, 99, 2**62, -1))
    elif kind == 2:
        del model.opset_import[:]
    else:
        del model.graph.node[:]


def _metadata_edited(model: ModelProto, random: Random) -> None:
    entry = random.choice(model.metadata_props)
    hostile = (_NUMBER, "[" * 100_000, "NaN", "{}", "[{}]", "null", "", "-1", "1e999", '[{"name":1}]')
    entry.value = random.choice((*hostile, damaged_json(entry.value.encode(), random).decode()))


def damaged_json(content: bytes, random: Random) -> bytes:
    """A document of JSON in which one value or key is another."""
    record = json.loads(content)
    _replace(record, random)
    text = json.dumps(record)
    if random.random() < 0.1:
        text = text.replace("1", _NUMBER, 1)
    if random.random() < 0.05:
        text = text.replace("[", "[" * 100_000, 1)
    return text.encode()


def _damaged_yaml(content: bytes, random: Random) -> bytes:
    record = yaml.safe_load(content)
    _replace(record, random)
    return yaml.safe_dump(record, sort_keys=False).encode()


def _replace(record: Any, random: Random) -> None:
    """Another value, or none, for one of the values inside."""
    places: list[tuple[Any, Any]] = []
    waiting = [record]
    while waiting:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        places += [(inner, key) for key in keys]  # pyright: ignore[reportUnknownVariableType]
        waiting += [inner[key] for key in keys if isinstance(inner[key], dict | list)]
    inner, key = random.choice(places)
    kind = random.randrange(4)
    if kind == 0:
        del inner[key]
    elif kind == 1 and isinstance(inner, dict):
        inner[random.choice(("", "x", "name", "features", "linear"))] = inner.pop(key)
    elif kind == 2:
        inner[key] = random.choice(places)[0]
        json.dumps(record)  # raises where it now holds itself
    else:
        inner[key] = random.choice(_VALUES)


def _damaged_safetensors(content: bytes, random: Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = damaged_json(content[8 : 8 + length], random)
    declared = random.choice((len(header), len(header), len(header), 2**62, 0, 100_000_000))
    return declared.to_bytes(8, "little") + header + content[8 + length :]


def _damaged_npy(content: bytes, random: Random) -> bytes:
    """Another shape, dtype or order in the header; the values stay."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    header = np.lib.format.header_data_from_array_1_0(array)
    shape = random.choice(((2**40, 7), (-1, 7), (2**62, 2**62), (), (0, 7), (10**9,), (len(array), 10**9), (True, "7")))
    header["descr"] = random.choice((header["descr"], "|O", "<f8", "<U9", "<m8[s]", "<c16", "|V4", "<f2", "x"))
    header["shape"] = random.choice((array.shape, shape))  # pyright: ignore[reportArgumentType]
    header["fortran_order"] = random.choice((False, True, 7))  # pyright: ignore[reportArgumentType]
    out = io.BytesIO()
    np.lib.format.write_array_header_2_0(out, header)
    return out.getvalue() + array.tobytes()


def _damaged_npz(content: bytes, random: Random) -> bytes:
    """One of its arrays is damaged, or an archive has it twice, or is far smaller than what it holds."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as damaged:
        for name in archive.namelist():
            inner = archive.read(name)
            kind = random.randrange(4)
            if kind == 0:
                inner = _damaged_npy(inner, random)
            elif kind == 1:
                inner = random.choice(list(BYTES.values()))(inner, random)
            elif kind == 2:
                head = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    head, {"descr": "<f4", "fortran_order": False, "shape": (2**21, 7)}
                )
                inner = head.getvalue() + bytes(2**21 * 28)
            damaged.writestr(random.choice((name, name, "../x.npy", "x")), inner)
            if random.random() < 0.2:
                damaged.writestr("input.npy", inner)
    return out.getvalue()


ONNX: Mapping[str, Damage] = {
    "node edited": _edited(_node_edited),
    "attribute edited": _edited(_attribute_edited),
    "tensor edited": _edited(_tensor_edited),
    "port edited": _edited(_port_edited),
    "header edited": _edited(_header_edited),
    "metadata edited": _edited(_metadata_edited),
}
FORMATS: Mapping[str, Mapping[str, Damage]] = {
    ".onnx": ONNX,
    ".json": {"value replaced": damaged_json, "values replaced": lambda c, r: damaged_json(damaged_json(c, r), r)},
    ".yaml": {"value replaced": _damaged_yaml, "values replaced": lambda c, r: _damaged_yaml(_damaged_yaml(c, r), r)},
    ".safetensors": {"header edited": _damaged_safetensors},
    ".npy": {"header edited": _damaged_npy},
    ".npz": {"array edited": _damaged_npz},
}
"""Damage that knows a format, by the suffix of the file; half of the files get it, the others ``BYTES``."""


def damage(suffix: str, content: bytes, random: Random) -> tuple[str, bytes]:
    """The kind of damage, and the damaged bytes."""
    for _ in range(100):
        kinds = FORMATS.get(suffix, {}) if random.random() < 0.5 else {}
        name, apply = random.choice(list((kinds or BYTES).items()))
        try:
            damaged = apply(content, random)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
            continue
        if damaged != content:
            return name, damaged
    raise ValueError(f"a file {suffix} of {len(content)} bytes cannot be damaged")
