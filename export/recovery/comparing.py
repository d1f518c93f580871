"""Two policies side by side: ONNX files, contracts, specs, checkpoints or run folders. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder import MLPSpec, RecoveryError, load_spec
from builder.values import is_list
from runtime import InputError, Port
from runtime.contracts import Comparison, Contract, contract, read_contract
from runtime.contracts import comparing as contracts
from runtime.contracts.documents import is_contract
from runtime.contracts.features import Interface
from runtime.contracts.network import Layer, layer
from runtime.contracts.steps import DEFAULTS, Step, joined

_DOCUMENTS = (".yaml", ".yml", ".json", ".toml")
_NOTHING = ("dropout", "identity")
"""Blocks that an exported file does not hold."""


def compare(first: str | Path, second: str | Path, **options: Any) -> Comparison:
    """What differs between two policies: features, what is applied to them, layers, weights, period.

    Each is an ONNX file, a contract (``mlpx inspect --contract``), a spec with the ``weights.safetensors`` beside it if
    there is one, or whatever ``export.read_network`` reads, with its ``options``. ONNX files and contracts are read
    without torch.

    Raises RecoveryError, ModelError, InputError, SpecError: one of the two cannot be read.

    Examples:
        >>> from torch import nn
        >>> from mlpx import compare, export
        >>> first = export(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), "first.onnx").path
        >>> second = export(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), "second.onnx").path
        >>> compare(first, second).equal
        False
    """
    used = {key: value for key, value in options.items() if value is not None and value is not False and value != ()}
    contracts_of = [policy(path, **used) for path in (first, second)]
    if used and all(_holds_itself(Path(path)) for path in (first, second)):
        listed = ", ".join(f"--{key.replace('_', '-')}" for key in used)
        raise RecoveryError(f"neither {first} nor {second} is a checkpoint. What to do: leave out {listed}")
    return contracts.compare(*contracts_of)


def policy(path: str | Path, **options: Any) -> Contract:
    """The contract of an ONNX file, a contract, a spec or a checkpoint; ``options`` are those of ``read_network``."""
    path = Path(path)
    if _is_onnx(path):
        return contract(path)
    if _holds_itself(path):
        return _document(path)
    from .recovering import read_network

    found = read_network(path, **options)
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in found.weights.items()}
    return contract_of(found.spec, weights, str(path), found.notes)


def _is_onnx(path: Path) -> bool:
    if path.suffix.lower() == ".onnx":
        return True
    if path.is_dir() or path.suffix.lower() in _DOCUMENTS:
        return False
    from .recovering import is_onnx

    return is_onnx(path)


def _holds_itself(path: Path) -> bool:
    """Whether it is a file that says what its network is without options."""
    return path.suffix.lower() in _DOCUMENTS or _is_onnx(path)


def _document(path: Path) -> Contract:
    """A contract, or a spec with the weights beside it."""
    try:
        return read_contract(path)
    except InputError:
        if path.is_file() and _claims_to_be_a_contract(path):
            raise
    spec = load_spec(path)
    beside = path.parent / "weights.safetensors"
    weights: Mapping[str, np.ndarray] = {}
    if beside.is_file():
        from builder import assemble, load_weights

        module = assemble(spec)
        load_weights(module, beside)
        weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return contract_of(spec, weights, str(path))


def _claims_to_be_a_contract(path: Path) -> bool:
    import yaml

    try:
        return is_contract(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        return False


def contract_of(
    spec: MLPSpec, weights: Mapping[str, np.ndarray], source: str = "", notes: Sequence[str] = ()
) -> Contract:
    """The contract of a spec and its state dict, which may be empty: constants in the spec are known even so."""
    from export.declarations import declared, said_by

    if len(spec.inputs) > 1:
        hint = "What to do: build it, and compare the ONNX files"
        raise RecoveryError(f"{source or spec.name}: a spec of several inputs cannot be compared as it is. {hint}")
    said = said_by(spec)
    blocks = [(str(index), block) for index, block in enumerate(spec.blocks) if block.kind not in _NOTHING]
    count = len(blocks)
    leading = next((i for i, (_, block) in enumerate(blocks) if block.kind not in DEFAULTS), count)
    trailing = next((i for i in range(count, leading, -1) if blocks[i - 1][1].kind not in DEFAULTS), leading)
    row, result = spec.input.row_shape, spec.output_shape
    first, last = (
        _steps(part, weights, shape[-1]) if len(shape) == 1 else ()
        for part, shape in ((blocks[:leading], row), (blocks[trailing:], result))
    )
    return Contract(
        name=spec.name,
        inputs=(Interface(declared(Port(spec.input.name, ("batch", *row)), said), first),),
        outputs=(Interface(declared(Port(spec.output.name, ("batch", *result)), said), last),),
        layers=tuple(_layers(blocks[leading:trailing], weights, row[-1])),
        period=spec.period,
        source=source,
        notes=tuple(notes),
    )


def _steps(blocks: Sequence[tuple[str, Any]], weights: Mapping[str, np.ndarray], width: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    for path, block in blocks:
        options = block.model_dump()
        given: dict[str, Any] = {
            role: weights.get(f"{path}.{role}", options.get(role)) for role in DEFAULTS[block.kind]
        }
        values = {
            role: np.broadcast_to(_numbers(value, DEFAULTS[block.kind][role]), (width,)).copy()
            for role, value in given.items()
            if value is not None
        }
        steps.append(Step(block.kind, values))
    return tuple(joined(steps))


def _numbers(value: Any, unlimited: float) -> np.ndarray:
    """float32 (1,) or (features,); None in a list of limits is no limit."""
    listed = [unlimited if each is None else each for each in value] if is_list(value) else value
    return np.asarray(listed, np.float32).reshape(-1)


def _layers(blocks: Sequence[tuple[str, Any]], weights: Mapping[str, np.ndarray], width: int) -> list[Layer]:
    found: list[Layer] = []
    for path, block in blocks:
        if block.kind == "residual":
            inner = [(f"{path}.{i}", each) for i, each in enumerate(block.blocks) if each.kind not in _NOTHING]
            found += [*_layers(inner, weights, width), layer("add", {})]
            continue
        own = {
            name.removeprefix(f"{path}."): values
            for name, values in weights.items()
            if name.startswith(f"{path}.") and not name.endswith("num_batches_tracked")
        }
        options = block.model_dump()
        if block.kind == "linear":
            if "weight" in own:
                found.append(layer("linear", {**own, "weight": own["weight"].T}))
            else:
                found.append(Layer("linear", width, options["features"]))
            width = options["features"]
            continue
        found.append(layer(block.kind, own, options.get("alpha", options.get("negative_slope"))))
    return found
