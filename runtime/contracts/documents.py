"""Reads a contract from the YAML file that ``mlpx inspect --contract`` wrote, or from one of LEAPP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from runtime.errors import InputError
from runtime.model.port import read_port

from .description import Contract, Proof
from .features import Interface
from .layers import Layer, option
from .steps import DEFAULTS, Step


class NotAContractError(InputError):
    """A file that cannot be read, is no YAML, or is something else than a contract."""


def read_contract(path: str | Path) -> Contract:
    """The contract in a YAML file that ``mlpx inspect --contract`` wrote.

    A file of LEAPP itself is read as far as it has the keys. Its layers have no weights, only their SHA-256.
    Raises InputError: it describes more than one model, or is damaged; NotAContractError, which is one: it cannot be
    read, or is no contract.

    Examples:
        >>> from pathlib import Path
        >>> from runtime import contract, read_contract
        >>> written = Path("contract.yaml").write_text(contract("comfort.onnx").to_yaml())
        >>> read_contract("contract.yaml").name
        'comfort'
    """
    path = Path(path)
    hint = "What to do: write it again with mlpx inspect FILE --contract -o FILE.yaml"
    try:
        content = path.read_text(encoding="utf-8")
        record: Any = yaml.load(content, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    except OSError as error:
        raise NotAContractError(f"{path}: cannot be read: {error.strerror}. {hint}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise NotAContractError(f"{path}: not a YAML file: {words}. {hint}") from None
    if not isinstance(record, dict) or not {"models", "pipeline"} <= record.keys():
        raise NotAContractError(f"{path}: no contract: it has not the keys 'models' and 'pipeline'. {hint}")
    try:
        return _read(record, path)
    except _Several as error:
        raise InputError(f"{path}: {error}. {hint}") from None
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: not a whole contract: {reason}. {hint}") from None


class _Several(Exception):
    pass


def _read(record: Any, path: Path) -> Contract:
    models = record["models"]
    if len(models) != 1:
        raise _Several(f"expected one model, and it describes {len(models)}: {', '.join(map(str, models))}")
    ((name, model),) = models.items()
    configs: dict[str, Any] = record["pipeline"].get("configs") or {}
    period = configs.get("period", 1 / configs["frequency"] if configs.get("frequency") else None)
    parameters: dict[str, Any] = model.get("parameters") or {}
    proof = record.get("certificate")
    return Contract(
        name=str(name),
        inputs=tuple(_read_interface(each) for each in model["inputs"]),
        outputs=tuple(_read_interface(each) for each in model["outputs"]),
        layers=tuple(_read_layer(each) for each in model.get("layers") or ()),
        period=None if period is None else float(period),
        file=parameters.get("model_path"),
        sha256=parameters.get("sha256sum"),
        md5=parameters.get("md5sum"),
        proof=None if proof is None else Proof(**proof),
        source=str(path),
    )


def _read_interface(record: Any) -> Interface:
    features: list[Any] = record.get("features") or []
    axes: list[Any] = record.get("element_names") or [None]
    names: list[Any] = [feature.get("name") for feature in features] or list(axes[-1] or [])  # LEAPP names axes
    labels = record.get("labels")
    given: dict[str, Any] = {}
    if names and all(names) and labels is None:
        listed = {f"{key}s": [feature.get(key) for feature in features] for key in ("unit", "range", "description")}
        listed["categories"] = [_vocabulary(feature) for feature in features]
        given = {"features": names} | {key: values for key, values in listed.items() if any(values)}
    more = {"dtype": record["dtype"], "labels": labels, "scores": record.get("scores")}
    port = read_port({"name": record["name"], "shape": ["batch", *record["shape"][1:]], **given, **more})
    bounds = [float(feature["bound"]) for feature in features if "bound" in feature]
    given_bounds = tuple(bounds) if bounds and len(bounds) == len(features) else None
    return Interface(port, _read_steps(features), given_bounds, record.get("source"))


def _vocabulary(feature: Any) -> dict[str, Any] | None:
    words = feature.get("categories")
    return None if words is None else {"words": words, "unknown": feature.get("unknown_code")}


def _read_steps(features: list[Any]) -> tuple[Step, ...]:
    """The steps of features that each list their own constants."""
    steps: list[Step] = []
    lists: list[list[Any]] = [feature.get("applied") or [] for feature in features]
    for place in range(max(map(len, lists), default=0)):
        blocks: list[Any] = [each[place] if place < len(each) else None for each in lists]
        kinds = {(str(kind), *map(str, constants)) for block in blocks if block for kind, constants in block.items()}
        if len(kinds) != 1 or not all(blocks):
            raise ValueError("its features do not have the same blocks under 'applied'")
        ((kind, *roles),) = kinds
        if kind not in DEFAULTS or not set(roles) <= set(DEFAULTS[kind]):
            known = "; ".join(f"{kind}: {', '.join(roles)}" for kind, roles in DEFAULTS.items())
            raise ValueError(f"'applied' has the block {kind} with {', '.join(roles)}; expected {known}")
        values = {role: np.array([block[kind][role] for block in blocks], np.float64) for role in roles}
        steps.append(Step(kind, {role: each.astype(np.float32) for role, each in values.items()}))
    return tuple(steps)


def _read_layer(record: Any) -> Layer:
    options: dict[str, Any] = record.get("options") or {}
    return Layer(
        kind=str(record["block"]),
        inputs=record.get("inputs"),
        outputs=record.get("outputs"),
        options={str(name): option(value) for name, value in options.items()},
        digest=record.get("weights_sha256"),
        reads=None if record.get("reads") is None else tuple(map(str, record["reads"])),
    )
