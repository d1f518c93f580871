"""Which of a file's layers are the network: the state dict, the chain in it, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from builder.errors import RecoveryError

from .chains import Chain, candidates, in_order, joins, mismatch, names, widths
from .layers import Layer, layers_of
from .listing import grouped, short
from .opening import Contents

_MOST_LISTED = 24
_SKIP = re.compile(r"(^|[._])(res|resnet|residual|skip|shortcut)(_?(block|net|layer)s?)?\d*([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """The layers of the network in the order of execution, and notes on how they were found."""

    layers: tuple[Layer, ...]
    notes: tuple[str, ...]


def select(contents: Contents, key: str | None, prefix: Sequence[str]) -> Selection:
    """The chain that ``key`` and ``prefix`` name, or the only one. Raises RecoveryError, listing what there is."""
    notes: list[str] = []
    scope = _scope(contents, key, prefix)
    if scope and key is None:
        notes.append(f"the state dict lies under --key {scope}")
    inside = {name: tensor for name, tensor in contents.tensors.items() if _under(name, scope)}
    unwrapped = {_unwrap(name[len(scope) + 1 if scope else 0 :]): name for name in inside}
    if len(unwrapped) < len(inside):
        raise RecoveryError("two tensors bear one name once 'module.' and '_orig_mod.' are left out of their names")
    if list(unwrapped) != [name[len(scope) + 1 if scope else 0 :] for name in inside]:
        notes.append("'module.' (DataParallel) or '_orig_mod.' (torch.compile) is left out of the names")
    layers, left = layers_of({name: inside[original] for name, original in unwrapped.items()})
    if prefix:
        chosen, within = _joined(layers, list(unwrapped), prefix, contents.ordered)
    else:
        chosen, within = _only(layers, contents.ordered), list(unwrapped)
    used = {name for layer in chosen for name in layer.names}
    _refuse_skipped(chosen, [name for name in unwrapped if name not in used], unwrapped, inside)
    first = chosen[0].place[1]
    if first:
        before = f"{first} module{'s' if first > 1 else ''} without weights"
        notes.append(f"{before} before {chosen[0].path}, such as Flatten: taken as nothing; rows are flat here")
    chosen_left = [name for name in left if name in within]
    if chosen_left:
        notes.append(f"left out, of no layer: {short(chosen_left)}")
    rest = [name for name in unwrapped if name not in used and name not in chosen_left]
    outside = [name for name in contents.tensors if name not in inside]
    if rest or outside:
        notes.append(f"not part of the network: {grouped(rest + outside, used)}")
    skipping = [layer.path for layer in chosen if _SKIP.search(layer.path)]
    if skipping:
        notes.append(f"the names {short(skipping)} speak of a residual connection; none is in a checkpoint, nor here")
    if contents.optimizers:
        notes.append(f"not part of the network: the optimiser's state in {short(contents.optimizers)}")
    forgotten = _forgotten(contents, chosen, used, scope)
    return Selection(tuple(chosen), (*notes, *forgotten))


def _under(name: str, scope: str) -> bool:
    return not scope or name.startswith(scope + ".")


def _unwrap(name: str) -> str:
    name = name.replace("_orig_mod.", "")
    return name.removeprefix("module.")


def _scope(contents: Contents, key: str | None, prefix: Sequence[str]) -> str:
    if key is not None:
        key = key.rstrip(".")
        if not any(_under(name, key) for name in contents.tensors):
            raise RecoveryError(f"--key {key}: no tensors under it; {_state_dicts(contents)}")
        return key
    with_matrices = [node for node in contents.nodes if _matrices(contents, node)]
    if prefix:
        scopes = dict.fromkeys([*_ancestors(contents.nodes), ""])
        held = {
            scope: [_unwrap(n[len(scope) + 1 if scope else 0 :]) for n in contents.tensors if _under(n, scope)]
            for scope in scopes
        }
        fitting = [s for s in held if all(any(n.startswith(_unwrap(p)) for n in held[s]) for p in prefix)]
        if len(fitting) != 1 and len(with_matrices) == 1 and (not fitting or with_matrices[0] in fitting):
            return with_matrices[0]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            message = f"no state dict has names that begin with each of {', '.join(map(repr, prefix))}"
            raise RecoveryError(f"{message}; {_state_dicts(contents)}")
        raise RecoveryError(f"{len(fitting)} state dicts have such names; {_state_dicts(contents)}")
    if len(with_matrices) == 1:
        return with_matrices[0]
    if not with_matrices:
        layers, left = layers_of(contents.tensors)
        _refuse_foreign(layers, "")
        held = [*(name for layer in layers for name in layer.names), *left]
        raise RecoveryError(f"no weights of a Linear in it; it holds {grouped(held)}")
    raise RecoveryError(f"several state dicts lie in it; {_state_dicts(contents)}")


def _matrices(contents: Contents, node: str) -> bool:
    own = {name: tensor for name, tensor in contents.tensors.items() if _under(name, node)}
    deeper = [other for other in contents.nodes if other != node and _under(other + ".", node)]
    return any(
        tensor.dim() > 1
        and min(tensor.shape) > 0
        and not any(_under(name, other) for other in deeper)
        and name.rpartition(".")[2].removesuffix("0").startswith(("weight", "original", "in_proj"))
        for name, tensor in own.items()
    )


def _ancestors(nodes: Sequence[str]) -> list[str]:
    found = []
    for node in nodes:
        parts = node.split(".")
        found += [".".join(parts[:count]) for count in range(len(parts), 0, -1) if parts[0]]
    return found


def _state_dicts(contents: Contents) -> str:
    lines = []
    for node in contents.nodes[:_MOST_LISTED]:
        own = {name[len(node) + 1 if node else 0 :]: t for name, t in contents.tensors.items() if _under(name, node)}
        layers, _ = layers_of(own)
        chains = [widths(chain.layers) for chain in candidates(layers, contents.ordered) if _deep(chain)]
        what = "; ".join(chains[:4]) or grouped(list(own))
        lines.append(f"\n  {f'--key {node}' if node else '(no key)'}  {what}")
    more = "\n  …" if len(contents.nodes) > _MOST_LISTED else ""
    return f"in it are these state dicts:{''.join(lines)}{more}\nWhat to do: name one with --key"


def _deep(chain: Chain) -> bool:
    return any(layer.kind == "linear" for layer in chain.layers)


def _joined(
    layers: list[Layer], everything: list[str], prefix: Sequence[str], ordered: bool
) -> tuple[list[Layer], list[str]]:
    """The parts that the prefixes select, one behind the other, and all names that they select."""
    chosen: list[Layer] = []
    within: list[str] = []
    for given in prefix:
        start = _unwrap(given)
        if not start.endswith(".") and any(name.startswith(start + ".") for name in everything):
            start += "."
        part = [layer for layer in layers if layer.names[0].startswith(start)]
        within += [name for name in everything if name.startswith(start)]
        option = f"--prefix {given}"
        if not part:
            tops = grouped(everything)
            raise RecoveryError(f"{option}: no layer's names begin with it. What to do: choose among {tops}")
        _refuse_foreign(part, f"{option}: ")
        if any(layer in chosen for layer in part):
            raise RecoveryError(f"{option}: it selects {part[0].path}, which another --prefix selects already")
        ordered_part = in_order(part, ordered)
        if ordered_part is None:
            message = "the file keeps no order of modules, and shapes alone leave it open"
            raise RecoveryError(f"{option}: {message} for {names(part)}. What to do: give each in order with --prefix")
        wrong = mismatch(ordered_part)
        if wrong is not None:
            found = candidates([layer for layer in part if not layer.loose], ordered)
            raise RecoveryError(f"{option}: the shapes do not chain: {wrong}{_listed(found, part)}")
        chosen += ordered_part
    wrong = mismatch(chosen)
    if wrong is not None:
        raise RecoveryError(f"--prefix {' --prefix '.join(prefix)}: the parts do not chain: {wrong}")
    if not any(layer.kind == "linear" for layer in chosen):
        raise RecoveryError(f"--prefix {' --prefix '.join(prefix)}: no Linear among {names(chosen)}")
    return chosen, within


def _only(layers: list[Layer], ordered: bool) -> list[Layer]:
    """The layers, if there is one way alone to read them as a network."""
    body = [layer for layer in layers if not layer.loose]
    if not any(layer.kind == "linear" for layer in body):
        _refuse_foreign(body, "")
        raise RecoveryError(f"no Linear weights in it{f'; what is there: {names(layers)}' if layers else ''}")
    chains = candidates(body, ordered)
    foreign = [layer for layer in body if layer.kind == "foreign"]
    if foreign:
        hint = _listed(chains, layers) if any(map(_deep, chains)) else ""
        _refuse_foreign(foreign, "", hint)
    if len(chains) != 1:
        inner = mismatch(in_order(body, ordered) or ())
        reason = "more than one network can be read from it"
        if inner:
            reason = f"no single chain holds all layers ({inner}; a matrix that does not fit may be an Embedding's)"
        elif not ordered:
            reason = "a safetensors file keeps no order of modules, and their shapes alone do not give one"
        raise RecoveryError(f"{reason}{_listed(chains, layers)}")
    (chain,) = chains
    front = [layer for layer in layers if layer.loose and layer.kind == "standardize"]
    back = [layer for layer in layers if layer.loose and layer.kind == "scale"]
    result = [*front, *chain.layers, *back]
    either = bool(front or back) and chain.layers[0].widths[0] == chain.layers[-1].widths[1]
    if len(front) > 1 or len(back) > 1 or either or mismatch(result) is not None:
        message = "a normaliser or a scale lies beside the layers, and where it belongs is open"
        raise RecoveryError(f"{message}{_listed(chains, layers)}")
    return result


def _refuse_foreign(layers: Sequence[Layer], where: str, hint: str = "") -> None:
    for layer in layers:
        if layer.kind == "foreign":
            shape = list(next(iter(layer.tensors.values())).shape)
            message = f"{where}{layer.names[0]} {shape} is {layer.words}; dense networks alone can be recovered"
            raise RecoveryError(message + hint)


def _listed(chains: Sequence[Chain], layers: Sequence[Layer]) -> str:
    lines = [f"\n  {chain.line}" for chain in chains[:_MOST_LISTED]]
    lines += ["\n  …"] if len(chains) > _MOST_LISTED else []
    for layer in layers:
        if layer.loose:
            start = layer.path + "." if layer.path else layer.names[0]
            lines.append(f"\n  --prefix {start}  {layer.kind} of {layer.widths[0] or 'any number of'} features")
    pairs = [f"--prefix {a.prefix} --prefix {b.prefix}" for a, b in joins(chains[:_MOST_LISTED])]
    joined = f"; these parts chain: {'; '.join(pairs[:4])}" if pairs else ""
    hint = f"name the network with --prefix, or its parts in order with several{joined}"
    return f"; what lies in it:{''.join(lines)}\nWhat to do: {hint}"


def _start(layer: Layer) -> str:
    return f"{layer.path}." if layer.path else layer.names[0]


def _refuse_skipped(
    chosen: Sequence[Layer], unused: list[str], originals: dict[str, str], tensors: dict[str, torch.Tensor]
) -> None:
    """Raise RecoveryError where a module with weights stands between two layers and is none of them."""
    for one, other in pairwise(chosen):
        (home, before), (there, behind) = one.place, other.place
        if home != there or before is None or behind is None:
            continue
        start = f"{home}." if home else ""
        for name in unused:
            index = name[len(start) :].partition(".")[0] if name.startswith(start) else ""
            if index.isdecimal() and before < int(index) < behind:
                shape = list(tensors[originals[name]].shape)
                message = (
                    f"between {one.path} and {other.path} stands a module that is not read: it holds {name} {shape}"
                )
                raise RecoveryError(f"{message}; without it the network would be another")


def _forgotten(contents: Contents, chosen: Sequence[Layer], used: set[str], scope: str) -> list[str]:
    """Notes on normalisers of the network's input width, anywhere in the file, that are not put in front of it."""
    if any(layer.kind == "standardize" for layer in chosen):
        return []
    into = next(layer.widths[0] for layer in chosen if layer.kind == "linear")
    notes = []
    for layer in layers_of(contents.tensors)[0]:
        names_here = {_unwrap(name[len(scope) + 1 if scope else 0 :]) for name in layer.names if _under(name, scope)}
        if layer.kind == "standardize" and layer.widths[0] == into and not names_here & used:
            notes.append(
                f"NORMALISER LEFT OUT: {layer.path or layer.names[0]} holds a mean and a spread for {into} features, as"
                f" many as go in here; if the network is fed normalised rows, put it in front: --prefix"
                f" {_start(layer)} --prefix {f'{scope}.' if scope else ''}{chosen[0].names[0].partition('.')[0]}."
            )
    return notes
