"""Files that no honest program writes: each is made by a function, whose docstring says what it tries.

A command that reads one must end with an exit code of ``mlpx.errors``, with a message, soon and in little memory.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto

DIGITS = "1" + "0" * 5000
"""An integer of more digits than Python reads."""
DEEP = "[" * 100_000


class Attack(NamedTuple):
    """A hostile file, and what must come of it."""

    make: Callable[[Path], list[object]]
    """Writes it into a folder, which has a proved model, its spec, weights and data; the command that reads it."""
    code: int
    words: str
    """A regular expression for the message."""


def _saved(folder: Path, model: ModelProto | bytes) -> Path:
    path = folder / "attack.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def _stored(folder: Path, edit: Callable[[ModelProto], object]) -> Path:
    """The folder's model, edited."""
    model = onnx.load(str(folder / "m.onnx"))
    edit(model)
    return _saved(folder, model)


def _predicted(folder: Path, name: str) -> list[object]:
    return ["predict", folder / "m.onnx", folder / name, "-o", folder / "out.npy"]


def _verified(folder: Path, path: Path) -> list[object]:
    return ["verify", path, "--spec", folder / "spec.yaml"]


def name_not_utf8(folder: Path) -> list[object]:
    """A name of bytes that are no text."""
    content = (folder / "m.onnx").read_bytes()
    return _verified(folder, _saved(folder, content.replace(b"0.weight", b"\xff\xfe\xfd\xc3(abc"[:8])))


def metadata_not_utf8(folder: Path) -> list[object]:
    """Metadata of bytes that are no text, which ONNX Runtime hands to Python."""
    content = (folder / "m.onnx").read_bytes()
    return [
        *_predicted(folder, "data.csv")[:1],
        _saved(folder, content.replace(b"mlpx.name", b"mlpx.\xff\xfe\xc3(")),
        folder / "data.csv",
    ]


def opset_of_2_to_62(folder: Path) -> list[object]:
    """An opset beyond every integer of the libraries."""
    return _verified(folder, _stored(folder, lambda model: setattr(model.opset_import[0], "version", 2**62)))


def circle(folder: Path) -> list[object]:
    """An operator that reads its own result."""
    return _verified(
        folder, _stored(folder, lambda m: m.graph.node[0].input.__setitem__(0, m.graph.node[-1].output[0]))
    )


def negative_dimension(folder: Path) -> list[object]:
    """A weight of -1 rows."""
    return _verified(folder, _stored(folder, lambda m: m.graph.initializer[0].dims.__setitem__(0, -1)))


def terabytes_of_weight(folder: Path) -> list[object]:
    """A weight whose dimensions ask for 2^60 values, and has a few bytes."""
    return _verified(folder, _stored(folder, lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**60)))


def two_of_one_name(folder: Path) -> list[object]:
    """Two weights of one name."""
    return _verified(folder, _stored(folder, lambda m: m.graph.initializer.append(m.graph.initializer[0])))


def no_input(folder: Path) -> list[object]:
    """A network that takes nothing."""
    return _verified(folder, _stored(folder, lambda m: m.graph.ClearField("input")))


def wide_row(folder: Path) -> list[object]:
    """A row of 2^40 features for a network of a few."""

    def edit(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40

    return _verified(folder, _stored(folder, edit))


def negative_batch(folder: Path) -> list[object]:
    """Batches of exactly -7 rows."""

    def edit(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -7

    return _verified(folder, _stored(folder, edit))


def _metadata(folder: Path, value: str) -> list[object]:
    def edit(model: ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key in ("mlpx.inputs", "mlpx.multiply_adds"):
                entry.value = value

    return ["predict", _stored(folder, edit), folder / "data.npy", "-o", folder / "out.npy"]


def metadata_of_5000_digits(folder: Path) -> list[object]:
    """A count of more digits than Python reads."""
    return _metadata(folder, DIGITS)


def metadata_nested(folder: Path) -> list[object]:
    """Metadata nested deeper than Python's stack."""
    return _metadata(folder, DEEP)


def _certificate(
    folder: Path, edit: Callable[[dict[str, Any]], object], text: Callable[[str], str] = str
) -> list[object]:
    record = json.loads((folder / "m.parity.json").read_text())
    edit(record)
    (folder / "m.parity.json").write_text(text(json.dumps(record)))
    return ["package", folder / "m.onnx", "--for", "triton", "-o", folder / "package"]


def certificate_of_5000_digits(folder: Path) -> list[object]:
    """A certificate with a number of more digits than Python reads."""
    return _certificate(
        folder, lambda r: r["file"].update(size=1), lambda text: text.replace('"size": 1', f'"size": {DIGITS}', 1)
    )


def certificate_nested(folder: Path) -> list[object]:
    """A certificate nested deeper than Python's stack."""
    return _certificate(folder, lambda r: r.update(why="here"), lambda text: text.replace('"here"', DEEP))


def certificate_of_another_dtype(folder: Path) -> list[object]:
    """Answers of texts in place of numbers."""
    return _certificate(folder, lambda r: next(iter(r["answers"]["exact"].values())).update(dtype="|O"))


def certificate_of_nan(folder: Path) -> list[object]:
    """Answers whose number of rows is not a number."""
    return _certificate(folder, lambda r: r["answers"].update(rows=float("nan")))


def certificate_of_infinite_rows(folder: Path) -> list[object]:
    """Answers of infinitely many rows."""
    return _certificate(folder, lambda r: r["answers"].update(rows=float("inf")))


def certificate_of_huge_answers(folder: Path) -> list[object]:
    """Answers of 2^60 rows in a few bytes."""
    return _certificate(folder, lambda r: next(iter(r["answers"]["exact"].values())).update(shape=[2**60, 2**60]))


def certificate_without_a_file(folder: Path) -> list[object]:
    """A certificate that does not say of what."""
    return _certificate(folder, lambda r: r.pop("file"))


def _spec(folder: Path, text: str) -> list[object]:
    (folder / "spec.yaml").write_text(text)
    return ["build", folder / "spec.yaml", "--seed", 0, "-o", folder / "made"]


def spec_of_terabytes(folder: Path) -> list[object]:
    """Ten characters that ask for 400 TB of weights."""
    return _spec(folder, "name: a\ninput: {features: 3}\nblocks: [linear: 10000000, linear: 10000000, linear: 2]\n")


def spec_of_terabytes_inside(folder: Path) -> list[object]:
    """The same inside a residual."""
    inner = "{residual: [linear: 10000000, linear: 10000000, linear: 3]}"
    return _spec(folder, f"name: a\ninput: {{features: 3}}\nblocks: [{inner}, linear: 2]\n")


def spec_nested(folder: Path) -> list[object]:
    """A spec nested deeper than Python's stack."""
    return _spec(folder, f"blocks: {DEEP}")


def spec_of_5000_digits(folder: Path) -> list[object]:
    """A width of more digits than Python reads."""
    return _spec(folder, f"name: a\ninput: {{features: 3}}\nblocks: [linear: {DIGITS}]\n")


def module_without_features(folder: Path) -> list[object]:
    """A layer of no features, in front of one that reads none."""
    code = """
        import warnings
        from torch import nn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = nn.Sequential(nn.Linear(3, 0), nn.ReLU(), nn.Linear(0, 2))
    """
    (folder / "empty.py").write_text(dedent(code))
    return ["export", f"{folder / 'empty.py'}:net", "-o", folder / "made.onnx"]


def weights_with_a_long_header(folder: Path) -> list[object]:
    """A header of 2^62 bytes, in a file of some hundred."""
    path = folder / "weights.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    return ["build", folder / "spec.yaml", "-o", folder / "made"]


def weights_that_overlap(folder: Path) -> list[object]:
    """Tensors that share their bytes, and lie beyond the end of the file."""
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]} for name in "ab"}
    ).encode()
    (folder / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return ["recover", folder / "weights.safetensors", "-o", folder / "made"]


def _npz(folder: Path, name: str, content: bytes) -> list[object]:
    with zipfile.ZipFile(folder / "attack.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return _predicted(folder, "attack.npz")


def _header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def npz_without_an_array(folder: Path) -> list[object]:
    """A text in place of an array, which NumPy gives as bytes."""
    return _npz(folder, "input", b"no array")


def npz_that_declares_more(folder: Path) -> list[object]:
    """An array of 2^40 rows in a few bytes."""
    return _npz(folder, "input.npy", _header((2**40, 7)) + bytes(280))


def npz_of_negative_rows(folder: Path) -> list[object]:
    """An array of -1 rows."""
    return _npz(folder, "input.npy", _header((-1, -7)) + bytes(28))


def npz_of_objects(folder: Path) -> list[object]:
    """An array of Python objects, whose pickle would run code."""
    return _npz(folder, "input.npy", _header((1, 7), "|O") + b"cos\nsystem\n(S'id'\ntR.")


def npz_bomb(folder: Path) -> list[object]:
    """A file of 1 MB whose rows take more than 1 GB at once."""
    path = folder / "bomb.npz"
    rows = 9 * 2**27 // 28
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("input.npy", "w", force_zip64=True) as member,
    ):
        member.write(_header((rows, 7)))
        for _ in range(rows * 28 // 2**24):
            member.write(bytes(2**24))
        member.write(bytes(rows * 28 % 2**24))
    return ["inspect", folder / "m.onnx", "--data", path]


def csv_of_one_line(folder: Path) -> list[object]:
    """A quotation mark that is never closed, and a line without an end."""
    with open(folder / "attack.csv", "wb") as file:
        file.write((folder / "data.csv").read_bytes() + b'"')
        file.truncate(600_000_000)  # a hole, which takes no space
    return _predicted(folder, "attack.csv")


def csv_not_utf8(folder: Path) -> list[object]:
    """Bytes that are no text, in a line that is too long."""
    (folder / "attack.csv").write_bytes((folder / "data.csv").read_bytes() + b"1,2,3,4,5,6,7,8,\xff\xfe\n")
    return _predicted(folder, "attack.csv")


def npy_of_a_long_header(folder: Path) -> list[object]:
    """A header of 4 GB, in a file of some bytes."""
    (folder / "attack.npy").write_bytes(b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{" * 100)
    return _predicted(folder, "attack.npy")


ATTACKS: dict[str, Attack] = {
    make.__name__.replace("_", " "): Attack(make, code, words)
    for make, code, words in (
        (name_not_utf8, 2, "a text that is not UTF-8"),
        (metadata_not_utf8, 2, "a name or text in it is not UTF-8"),
        (opset_of_2_to_62, 2, "it declares the operator sets"),
        (circle, 1, "acyclic"),
        (negative_dimension, 2, "negative dimension|not a whole"),
        (terabytes_of_weight, 2, "the constant|not a whole"),
        (two_of_one_name, 1, "one name"),
        (no_input, 2, "input"),
        (wide_row, 2, "too large for any rows"),
        (negative_batch, 2, "negative size"),
        (metadata_of_5000_digits, 0, "rows on cpu"),
        (metadata_nested, 0, "rows on cpu"),
        (certificate_of_5000_digits, 2, "parity report"),
        (certificate_nested, 2, "parity report"),
        (certificate_of_another_dtype, 2, "parity report"),
        (certificate_of_nan, 2, "parity report"),
        (certificate_of_infinite_rows, 2, "parity report"),
        (certificate_of_huge_answers, 2, "parity report"),
        (certificate_without_a_file, 2, "parity report"),
        (spec_of_terabytes, 2, "bytes of memory"),
        (spec_of_terabytes_inside, 2, "bytes of memory"),
        (spec_nested, 2, "nested too deeply"),
        (spec_of_5000_digits, 2, "digits"),
        (module_without_features, 2, "has no features"),
        (weights_with_a_long_header, 2, "not a complete safetensors"),
        (weights_that_overlap, 2, "not a complete safetensors"),
        (npz_without_an_array, 2, "cannot be read as .npz"),
        (npz_that_declares_more, 2, "declares the shape"),
        (npz_of_negative_rows, 2, "declares the shape"),
        (npz_of_objects, 2, "holds Python objects"),
        (npz_bomb, 2, "all of them at once"),
        (csv_of_one_line, 2, "does not end within"),
        (csv_not_utf8, 2, "cannot be read as CSV"),
        (npy_of_a_long_header, 2, "cannot be read as .npy"),
    )
}
"""By what each tries."""
