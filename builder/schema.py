"""The JSON Schema of a spec, for editors that complete and check as one types."""

from typing import Any

from .block import Block
from .blocks import BLOCKS
from .spec import MLPSpec

_BLOCK = {"$ref": "#/$defs/Block"}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of format 1, with every block under its names."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    # pydantic would describe the blocks as they are held, not as they are written.
    schema |= MLPSpec.model_json_schema()
    named = {kind: _options(block) for kind, block in BLOCKS.items()}
    schema["$defs"] = {key: schema["$defs"][key] for key in ("InputSpec", "OutputSpec", "FeatureSpec")}
    schema["$defs"] |= {block.__name__: named[kind] for kind, block in BLOCKS.items()}
    schema["$defs"]["Block"] = {"anyOf": [form for block in BLOCKS.values() for form in _forms(block)]}
    schema["properties"]["blocks"]["items"] = _BLOCK
    schema["properties"]["output"].pop("default", None)
    return schema


def _options(block: type[Block]) -> dict[str, Any]:
    schema = block.model_json_schema()
    if "$defs" in schema:
        schema = schema["$defs"].get(block.__name__, schema)
        schema.pop("$defs", None)
    for option in schema["properties"].values():
        if option.get("type") == "array" and "oneOf" in option.get("items", {}):
            option["items"] = _BLOCK
    return schema


def _forms(block: type[Block]) -> list[dict[str, Any]]:
    """The ways to write a block: its bare name, its name with a value, its name with options."""
    options = _options(block)
    value: list[dict[str, Any]] = [{"$ref": f"#/$defs/{block.__name__}"}]
    if block.kind == "clip":
        value.append({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
    if block.short is not None:
        value.append({k: v for k, v in options["properties"][block.short].items() if k != "default"})
    names = sorted({block.kind, block.torch_name})
    forms: list[dict[str, Any]] = [
        {
            "type": "object",
            "description": block.__doc__,
            "properties": {name: {"anyOf": value} for name in names},
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        }
    ]
    if not options.get("required"):
        forms.append({"enum": names, "description": block.__doc__})
    return forms
