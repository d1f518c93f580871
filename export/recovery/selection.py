"""Which of a file's layers are the network: the state dict, the chain in it, and what is left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, permutations

import torch

from builder.errors import RecoveryError

from .chains import ancestry, candidates, in_order, mismatch, names, widths, without_loose
from .checkpoint_file import Contents
from .checkpoint_layers import Layer, layers_of

_MOST_LISTED = 24
_SKIP = re.compile(r"(^|[._])(res|resnet|residual|skip|shortcut)(_?(block|net|layer)s?)?\d*([._]|$)", re.IGNORECASE)


def select(contents: Contents, key: str | None, prefix: Sequence[str], notes: list[str]) -> list[Layer]:
    """The layers of the chain that ``key`` and ``prefix`` name, or of the only one; how they were found is noted.

    Raises RecoveryError, listing what there is.
    """
    scope = _scope(contents, key, prefix)
    if scope and key is None:
        notes.append(f"the state dict lies under --key {scope}")
    inside = contents.under(scope)
    tensors = {_unwrap(name): tensor for name, tensor in inside.items()}
    if len(tensors) < len(inside):
        raise RecoveryError("two tensors bear one name once 'module.' and '_orig_mod.' are left out of their names")
    if list(tensors) != list(inside):
        notes.append("'module.' (DataParallel) or '_orig_mod.' (torch.compile) is left out of the names")
    layers, left = layers_of(tensors)
    if prefix:
        chosen, starts = _joined(layers, list(tensors), prefix, contents.ordered)
        left = [name for name in left if name.startswith(starts)]
    else:
        chosen = _only(layers, contents.ordered)
    used = {name for layer in chosen for name in layer.names}
    _refuse_skipped(chosen, {name: tensor for name, tensor in tensors.items() if name not in used})
    if first := chosen[0].place[1]:
        before = f"{first} module{'s' if first > 1 else ''} without weights"
        notes.append(f"{before} before {chosen[0].path}, such as Flatten: taken as nothing; rows are flat here")
    if left:
        notes.append(f"left out, of no layer: {_short(left)}")
    rest = [name for name in tensors if name not in used and name not in left]
    rest += [name for name in contents.tensors if scope and not name.startswith(f"{scope}.")]
    if rest:
        notes.append(f"not part of the network: {_grouped(rest, used)}")
    if skipping := [layer.path for layer in chosen if _SKIP.search(layer.path)]:
        notes.append(f"the names {_short(skipping)} speak of a residual connection; none is in a checkpoint, nor here")
    if contents.optimizers:
        notes.append(f"not part of the network: the optimiser's state in {_short(contents.optimizers)}")
    if all(layer.kind != "standardize" for layer in chosen):
        notes += _forgotten(contents, chosen, scope)
    return chosen


def _unwrap(name: str) -> str:
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _short(words: Sequence[str]) -> str:
    """The first ten, and how many more there are."""
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


def _grouped(rest: Iterable[str], used: Iterable[str] = ()) -> str:
    """Names by the shortest prefix that none of ``used`` has: ``critic. (4 tensors), std``."""
    taken = {head for name in used for head in ancestry(name)[:-1]}
    groups = Counter(next((f"{head}." for head in ancestry(name)[:-1] if head not in taken), name) for name in rest)
    return _short([f"{name} ({count} tensors)" if count > 1 else name for name, count in groups.items()])


def _scope(contents: Contents, key: str | None, prefix: Sequence[str]) -> str:
    """The dotted name of the state dict that ``key`` or ``prefix`` names, or of the only one."""
    if key is not None:
        key = key.rstrip(".")
        if not contents.under(key):
            raise RecoveryError(f"--key {key}: no tensors under it; {_state_dicts(contents)}")
        return key
    fitting = with_weights = [node for node, has_weights in contents.nodes.items() if has_weights]
    message = "several state dicts lie in it"
    if prefix:
        starts = [_unwrap(start) for start in prefix]
        scopes = {"", *(scope for node in contents.nodes for scope in ancestry(node))}
        inside = {scope: [_unwrap(name) for name in contents.under(scope)] for scope in scopes}
        fitting = [s for s in scopes if all(any(name.startswith(start) for name in inside[s]) for start in starts)]
        if len(fitting) != 1 and len(with_weights) == 1 and (not fitting or with_weights[0] in fitting):
            return with_weights[0]
        message = f"no state dict has names that begin with each of {', '.join(map(repr, prefix))}"
        message = f"{len(fitting)} state dicts have such names" if fitting else message
    if len(fitting) == 1:
        return fitting[0]
    if fitting or prefix:
        raise RecoveryError(f"{message}; {_state_dicts(contents)}")
    layers, left = layers_of(contents.tensors)
    _refuse_foreign(layers)
    everything = [*(name for layer in layers for name in layer.names), *left]
    raise RecoveryError(f"no weights of a Linear in it; it holds {_grouped(everything)}")


def _state_dicts(contents: Contents) -> str:
    """The state dicts of a file and the chains in each, and what to do."""
    lines = []
    for node in list(contents.nodes)[:_MOST_LISTED]:
        tensors = contents.under(node)
        chains = candidates(layers_of(tensors)[0], contents.ordered).values()
        shown = [widths(chain) for chain in chains if _has_linear(chain)]
        what = "; ".join(shown[:4]) or _grouped(tensors)
        lines.append(f"\n  {f'--key {node}' if node else '(no key)'}  {what}")
    more = "\n  …" if len(contents.nodes) > _MOST_LISTED else ""
    return f"in it are these state dicts:{''.join(lines)}{more}\nWhat to do: name one with --key"


def _has_linear(layers: Iterable[Layer]) -> bool:
    return any(layer.kind == "linear" for layer in layers)


def _joined(
    layers: list[Layer], everything: list[str], prefix: Sequence[str], ordered: bool
) -> tuple[list[Layer], tuple[str, ...]]:
    """The parts that the prefixes select, one behind the other, and what the selected names begin with."""
    chosen: list[Layer] = []
    starts: list[str] = []
    for given in prefix:
        start = _unwrap(given)
        if not start.endswith(".") and any(name.startswith(start + ".") for name in everything):
            start += "."
        part = [layer for layer in layers if layer.names[0].startswith(start)]
        starts.append(start)
        option = f"--prefix {given}"
        if not part:
            tops = _grouped(everything)
            raise RecoveryError(f"{option}: no layer's names begin with it. What to do: choose among {tops}")
        _refuse_foreign(part, f"{option}: ")
        if any(layer in chosen for layer in part):
            raise RecoveryError(f"{option}: it selects {part[0].path}, which another --prefix selects already")
        chained = in_order(part, ordered)
        if chained is None:
            message = "the file keeps no order of modules, and shapes alone leave it open"
            raise RecoveryError(f"{option}: {message} for {names(part)}. What to do: give each in order with --prefix")
        if wrong := mismatch(chained):
            chains = candidates(without_loose(part)[1], ordered)
            raise RecoveryError(f"{option}: the shapes do not chain: {wrong}{_listed(chains, part)}")
        chosen += chained
    options = f"--prefix {' --prefix '.join(prefix)}"
    if wrong := mismatch(chosen):
        raise RecoveryError(f"{options}: the parts do not chain: {wrong}")
    if not _has_linear(chosen):
        raise RecoveryError(f"{options}: no Linear among {names(chosen)}")
    return chosen, tuple(starts)


def _only(layers: list[Layer], ordered: bool) -> list[Layer]:
    """The layers, if there is one way alone to read them as a network."""
    front, body, back = without_loose(layers)
    if not _has_linear(body):
        _refuse_foreign(body)
        raise RecoveryError(f"no Linear weights in it{f'; what is there: {names(layers)}' if layers else ''}")
    chains = candidates(body, ordered)
    listed = _listed(chains, layers)
    _refuse_foreign(body, hint=listed if any(map(_has_linear, chains.values())) else "")
    if len(chains) != 1:
        inner = mismatch(in_order(body, ordered) or ())
        reason = "more than one network can be read from it"
        if inner:
            reason = f"no single chain holds all layers ({inner}; a matrix that does not fit may be an Embedding's)"
        elif not ordered:
            reason = "a safetensors file keeps no order of modules, and their shapes alone do not give one"
        raise RecoveryError(f"{reason}{listed}")
    (chain,) = chains.values()
    either = bool(front or back) and chain[0].widths[0] == chain[-1].widths[1]
    if len(front) > 1 or len(back) > 1 or either or mismatch([*front, *chain, *back]):
        raise RecoveryError(f"a normaliser or a scale lies beside the layers, and where it belongs is open{listed}")
    return [*front, *chain, *back]


def _refuse_foreign(layers: Iterable[Layer], where: str = "", hint: str = "") -> None:
    for layer in layers:
        if layer.kind == "foreign":
            shape = list(next(iter(layer.tensors.values())).shape)
            message = f"{where}{layer.names[0]} {shape} is {layer.words}; dense networks alone can be recovered"
            raise RecoveryError(message + hint)


def _listed(chains: Mapping[str, Sequence[Layer]], layers: Iterable[Layer]) -> str:
    """The chains and the loose layers beside them, each with its prefix, and what to do."""
    listed = list(chains.items())[:_MOST_LISTED]
    lines = [f"\n  --prefix {prefix or chr(39) * 2}  {widths(chain)} ({names(chain)})" for prefix, chain in listed]
    lines += ["\n  …"] if len(chains) > _MOST_LISTED else []
    lines += [f"\n  --prefix {layer.prefix}  {widths([layer])}" for layer in layers if layer.loose]
    pairs = [  # the second takes what the first gives, and they are no two of the same input
        f"--prefix {first} --prefix {second}"
        for (first, giver), (second, taker) in permutations(listed, 2)
        if mismatch([*giver, *taker]) is None and giver[0].widths[0] != taker[0].widths[0]
    ]
    joined = f"; these parts chain: {'; '.join(pairs[:4])}" if pairs else ""
    hint = f"name the network with --prefix, or its parts in order with several{joined}"
    return f"; what lies in it:{''.join(lines)}\nWhat to do: {hint}"


def _refuse_skipped(chosen: Sequence[Layer], unused: Mapping[str, torch.Tensor]) -> None:
    """Raise RecoveryError where a module with weights stands between two layers and is none of them."""
    for layer, following in pairwise(chosen):
        (container, before), (other, behind) = layer.place, following.place
        if container != other or before is None or behind is None:
            continue
        start = f"{container}." if container else ""
        for name, tensor in unused.items():
            index = name[len(start) :].partition(".")[0] if name.startswith(start) else ""
            if index.isdecimal() and before < int(index[:18]) < behind:
                raise RecoveryError(
                    f"between {layer.path} and {following.path} stands a module that is not read: it holds {name}"
                    f" {list(tensor.shape)}; without it the network would be another"
                )


def _forgotten(contents: Contents, chosen: Sequence[Layer], scope: str) -> list[str]:
    """Notes on normalisers of the network's input width, anywhere in the file, that are not put in front of it."""
    width = next(layer.widths[0] for layer in chosen if layer.kind == "linear")
    network = f"{f'{scope}.' if scope else ''}{chosen[0].names[0].partition('.')[0]}."
    return [
        f"NORMALISER LEFT OUT: {layer.title} holds a mean and a spread for {width} features, as many as go in here; if"
        f" the network is fed normalised rows, put it in front: --prefix {layer.prefix} --prefix {network}"
        for layer in layers_of(contents.tensors)[0]
        if layer.kind == "standardize" and layer.widths[0] == width
    ]
