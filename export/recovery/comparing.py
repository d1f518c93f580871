"""Two policies side by side: ONNX files, contracts, specs, checkpoints or run folders. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from builder import MLPSpec, RecoveryError, load_spec
from builder.values import is_list
from runtime import Port
from runtime.contracts import Comparison, Contract, contract, read_contract
from runtime.contracts import comparing as contracts
from runtime.contracts.documents import NotAContractError
from runtime.contracts.features import Interface
from runtime.contracts.layers import CONSTANTS, OPTIONS, STRUCTURE, WEIGHED, Layer, layer, option
from runtime.contracts.steps import DEFAULTS, Step, joined
from runtime.contracts.wiring import input_source, layer_source, read_by

from .options_given import flags, used_options

Blocks = Sequence[tuple[str, Any]]
"""By their paths in the state dict."""
Weights = Mapping[str, np.ndarray]
_DOCUMENTS = (".yaml", ".yml", ".json", ".toml")
_APPLIED = (*DEFAULTS, "relu6")
"""Blocks that are applied to each feature by itself; a relu6 is a clip."""
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
    used = used_options(options)
    contracts_of = [policy(path, **used) for path in (first, second)]
    if used and all(_holds_itself(Path(path)) for path in (first, second)):
        raise RecoveryError(f"neither {first} nor {second} is a checkpoint. What to do: leave out {flags(used)}")
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
    except NotAContractError:
        spec = load_spec(path)
    beside = path.parent / "weights.safetensors"
    weights: Mapping[str, np.ndarray] = {}
    if beside.is_file():
        from builder import assemble, load_weights

        module = assemble(spec)
        load_weights(module, beside)
        weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return contract_of(spec, weights, str(path))


def contract_of(
    spec: MLPSpec, weights: Mapping[str, np.ndarray], source: str = "", notes: Sequence[str] = ()
) -> Contract:
    """The contract of a spec and its state dict, which may be empty: constants in the spec are known even so."""
    from export.declarations import declared, said_by

    if not spec.is_plain:
        expected = "expected a spec of one input without blocks of its own and without categories"
        has = f"it has {len(spec.inputs)} inputs" if len(spec.inputs) > 1 else "its input has them"
        hint = "What to do: build it, and compare the ONNX files"
        raise RecoveryError(f"{source or spec.name}: {expected}, and {has}. {hint}")
    said = said_by(spec)
    blocks: list[tuple[str, Any]] = []
    shape = spec.input.row_shape
    for index, block in enumerate(spec.blocks):
        if block.kind not in _NOTHING and not (block.kind == "flatten" and len(shape) == 1):
            blocks.append((str(index), block))
        shape = block.output_shape(shape)
    count = len(blocks)
    leading = next((i for i, (_, block) in enumerate(blocks) if block.kind not in _APPLIED), count)
    trailing = next((i for i in range(count, leading, -1) if blocks[i - 1][1].kind not in _APPLIED), leading)
    row, result = spec.input.row_shape, spec.output_shape
    first, last = (
        _steps(part, weights, shape[-1]) if len(shape) == 1 else ()
        for part, shape in ((blocks[:leading], row), (blocks[trailing:], result))
    )
    layers = _layers(blocks[leading:trailing], weights, row[-1])
    result_of = _last(layers, input_source(0))
    return Contract(
        name=spec.name,
        inputs=(Interface(declared(Port(spec.input.name, ("batch", *row)), said), first),),
        outputs=(Interface(declared(Port(spec.output.name, ("batch", *result)), said), last, source=result_of),),
        layers=tuple(layers),
        period=spec.period,
        source=source,
        notes=tuple(notes),
    )


def _steps(blocks: Blocks, weights: Weights, width: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    for path, block in blocks:
        kind, options = ("clip", {"min": 0, "max": 6}) if block.kind == "relu6" else (block.kind, block.model_dump())
        given: dict[str, Any] = {role: weights.get(f"{path}.{role}", options.get(role)) for role in DEFAULTS[kind]}
        values = {
            role: np.broadcast_to(_numbers(value, DEFAULTS[kind][role]), (width,)).copy()
            for role, value in given.items()
            if value is not None
        }
        steps.append(Step(kind, values))
    return tuple(joined(steps))


def _numbers(value: Any, unlimited: float) -> np.ndarray:
    """float32 (1,) or (features,); None in a list of limits is no limit."""
    listed = [unlimited if each is None else each for each in value] if is_list(value) else value
    return np.asarray(listed, np.float32).reshape(-1)


def _layers(blocks: Blocks, weights: Weights, width: int, before: Sequence[Layer] = ()) -> list[Layer]:
    """The layers, ``before`` among them, of which the last gives what the blocks read."""
    found = list(before)
    index = 0
    while index < len(blocks):
        path, block = blocks[index]
        index += 1
        source = _last(found, input_source(0))
        if block.kind == "residual":
            inner = [
                (f"{path}.{i}", each) for i, each in enumerate(block.blocks) if each.kind not in (*_NOTHING, "flatten")
            ]
            found = _layers(inner, weights, width, found)
            found.append(replace(layer("add", {}), reads=read_by("add", [_last(found, source), source])))
            continue
        if block.kind == "linear":
            norms = list(takewhile(lambda each: each[1].kind == "batch_norm", blocks[index:]))
            folded = _folded(path, block, norms, weights, width) if norms else None
            index += 0 if folded is None else len(norms)
            made = folded or _linear(path, block, weights, width)
            width = block.features
        else:
            made = _other(block, _own(path, weights), known=bool(weights))
        found.append(replace(made, reads=(source,)))
    return found


def _last(layers: Sequence[Layer], otherwise: str) -> str:
    return layer_source(len(layers) - 1) if layers else otherwise


def _linear(path: str, block: Any, weights: Weights, width: int) -> Layer:
    own = _own(path, weights)
    if "weight" not in own:
        return Layer("linear", width, block.features, {"bias": block.bias, "batch_norm": "none"})
    return layer("linear", {**own, "weight": own["weight"].T})


def _folded(path: str, block: Any, norms: Blocks, weights: Weights, width: int) -> Layer | None:
    """A linear layer with the batch_norms that an export folds into it; None where float32 overflows."""
    own = _own(path, weights)
    if "weight" not in own:
        return Layer("linear", width, block.features, {"batch_norm": option([norm.eps for _, norm in norms])})
    from export.folding import with_norms

    folded = with_norms(own, [(_own(place, weights), norm.eps) for place, norm in norms])
    return None if folded is None else layer("linear", {**folded, "weight": folded["weight"].T})


def _other(block: Any, own: Weights, *, known: bool) -> Layer:
    options = block.model_dump()
    if block.kind in CONSTANTS:
        given: dict[str, Any] = {role: own.get(role, options.get(role)) for role in CONSTANTS[block.kind]}
        limits = DEFAULTS.get(block.kind, {})
        values = {role: _numbers(value, limits.get(role, 0.0)) for role, value in given.items() if value is not None}
        return layer(block.kind, {}, {role: option(each) for role, each in values.items()})
    read = {name: option(options.get(name, usual)) for name, usual in OPTIONS.get(block.kind, {}).items()}
    if block.kind == "softplus":
        read["threshold"] = option(min(options["threshold"], 20.0))  # beyond it is x in float32
    if block.kind in WEIGHED and not known:
        structure = {name: options[name] for name in STRUCTURE if name in options}
        return Layer(block.kind, options={**read, **structure})
    return layer(block.kind, own, read)


def _own(path: str, weights: Weights) -> dict[str, np.ndarray]:
    """The weights of one block, by role."""
    return {
        name.removeprefix(f"{path}."): values
        for name, values in weights.items()
        if name.startswith(f"{path}.") and not name.endswith("num_batches_tracked")
    }
