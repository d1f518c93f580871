"""The texts of an ONNX file: Protocol Buffers reads names that are no UTF-8 as bytes, which nothing else expects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from runtime import ModelError


def check_texts(path: Path, proto: ModelProto) -> None:
    """Raise ModelError for the first name or other text of the file that is not UTF-8."""
    try:
        wrong = next((text for text in _texts(proto) if isinstance(text, bytes)), None)
    except UnicodeDecodeError as error:
        wrong = error.object
    if wrong is not None:
        hint = "What to do: write the file again, or copy it again"
        raise ModelError(f"{path}: damaged: it holds a text that is not UTF-8: {wrong[:80]!r}. {hint}")


def _texts(message: Message) -> Iterator[object]:
    if isinstance(message, TensorProto):  # its values may be large, and would be copied
        yield message.name
        for entry in message.external_data:
            yield from (entry.key, entry.value)
        return
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == FieldDescriptor.TYPE_STRING:
            yield from parts
        else:
            for part in parts if field.message_type is not None else ():
                assert isinstance(part, Message)
                yield from _texts(part)
