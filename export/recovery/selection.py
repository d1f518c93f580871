"""Selects the network among a file's layers: the state dict, the chain in it, and what is left out."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from builder.errors import RecoveryError

from .chains import ancestry, candidate_chains, execution_order, format_names, format_widths, mismatch, split_unindexed
from .checkpoint_file import Contents
from .checkpoint_layers import Layer, layers_of
from .suggestions import MOST_LISTED, Parts, format_networks, networks_in, own_prefix, tried

_SKIP = re.compile(r"(^|[._])(res|resnet|residual|skip|shortcut)(_?(block|net|layer)s?)?\d*([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """A chain of layers in a file's state dict."""

    scope: str
    """The dotted name of the state dict."""
    tensors: Mapping[str, torch.Tensor]
    """Those of the state dict, without what DataParallel and torch.compile add to names."""
    chosen: Sequence[Layer]
    unused: Sequence[str]
    """Small tensors beside the chosen layers that belong to no layer."""


class _Unclear(RecoveryError):
    """Nothing is selected; ``listing`` is what can be, worked out only for a user."""

    def __init__(self, message: str, listing: Callable[[], str]):
        super().__init__(message)
        self.listing = listing


def select(contents: Contents, key: str | None, prefix: Sequence[str], notes: list[str]) -> Selection:
    """The chain that ``key`` and ``prefix`` select, or the only one; ``notes`` says how.

    Raises RecoveryError, with a list of what can be selected.
    """
    try:
        selection = selected(contents, key, prefix)
    except _Unclear as error:
        raise RecoveryError(f"{error}{error.listing()}") from None
    scope, tensors, chosen, unused = selection.scope, selection.tensors, selection.chosen, selection.unused
    used = {name for layer in chosen for name in layer.names}
    if scope and key is None:
        notes.append(f"the state dict is under --key {scope}")
    if list(tensors) != list(contents.under(scope)):
        notes.append("'module.' (DataParallel) or '_orig_mod.' (torch.compile) is left out of the names")
    if first := chosen[0].position[1]:
        before = f"{first} module{'s' if first > 1 else ''} without weights"
        notes.append(f"{before} before {chosen[0].path}, such as Flatten: ignored; rows are flat here")
    if unused:
        notes.append(f"left out, of no layer: {_format_list(unused)}")
    rest = [name for name in tensors if name not in used and name not in unused]
    rest += [name for name in contents.tensors if scope and not name.startswith(f"{scope}.")]
    if rest:
        notes.append(f"not part of the network: {_format_groups(rest, used)}")
    if skipping := [layer.path for layer in chosen if _SKIP.search(layer.path)]:
        notes.append(f"the names {_format_list(skipping)} suggest a residual connection; a checkpoint does not hold it")
    if contents.classes:
        notes.append(f"not read, and none of their code was run: objects of {_format_list(contents.classes)}")
    if contents.optimizers:
        notes.append(f"not part of the network: the optimiser's state in {_format_list(contents.optimizers)}")
    return selection


def selected(contents: Contents, key: str | None, prefix: Sequence[str]) -> Selection:
    """The chain that ``key`` and ``prefix`` select, or the only one. Raises RecoveryError."""
    scope = _state_dict_name(contents, key, prefix)
    inside = contents.under(scope)
    tensors = {_unwrap(name): tensor for name, tensor in inside.items()}
    if len(tensors) < len(inside):
        raise RecoveryError("two tensors have the same name without 'module.' and '_orig_mod.'")
    layers, unused = layers_of(tensors)
    offers = partial(_format_offers, contents, key, layers)
    if prefix:
        chosen, starts = _selected_by_prefix(layers, list(tensors), prefix, contents.ordered, offers)
        unused = [name for name in unused if name.startswith(starts)]
    else:
        chosen = _only_chain(layers, contents.ordered, offers)
    used = {name for layer in chosen for name in layer.names}
    _refuse_skipped(chosen, {name: tensor for name, tensor in tensors.items() if name not in used})
    return Selection(scope, tensors, chosen, unused)


def _unwrap(name: str) -> str:
    """The name without what DataParallel and torch.compile add."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _format_list(items: Sequence[str]) -> str:
    """The first ten items, and the number of the others."""
    return ", ".join(items[:10]) + (f" and {len(items) - 10} more" if len(items) > 10 else "")


def _format_groups(rest: Iterable[str], used: Iterable[str] = ()) -> str:
    """Names by the shortest prefix that no name in ``used`` has: ``critic. (4 tensors), std``."""
    taken = {head for name in used for head in ancestry(name)[:-1]}
    groups = Counter(next((f"{head}." for head in ancestry(name)[:-1] if head not in taken), name) for name in rest)
    return _format_list([f"{name} ({count} tensors)" if count > 1 else name for name, count in groups.items()])


def _state_dict_name(contents: Contents, key: str | None, prefix: Sequence[str]) -> str:
    """The dotted name of the state dict that ``key`` or ``prefix`` selects, or of the only one."""
    if key is not None:
        key = key.rstrip(".")
        if not contents.under(key):
            raise _Unclear(f"--key {key}: no tensors under it", lambda: _format_state_dicts(contents))
        return key
    matching = with_weights = [node for node, has_weights in contents.nodes.items() if has_weights]
    message = "several state dicts have weights"
    if prefix:
        starts = [_unwrap(start) for start in prefix]
        scopes = {"", *(scope for node in contents.nodes for scope in ancestry(node))}
        inside = {scope: [_unwrap(name) for name in contents.under(scope)] for scope in scopes}
        matching = [s for s in scopes if all(any(name.startswith(start) for name in inside[s]) for start in starts)]
        if len(matching) != 1 and len(with_weights) == 1 and (not matching or with_weights[0] in matching):
            return with_weights[0]
        message = f"no state dict has names that begin with each of {', '.join(map(repr, prefix))}"
        message = f"{len(matching)} state dicts have such names" if matching else message
    if len(matching) == 1:
        return matching[0]
    if matching or prefix:
        raise _Unclear(message, lambda: _format_state_dicts(contents))
    layers, unused = layers_of(contents.tensors)
    _refuse_foreign(layers)
    names = [*(name for layer in layers for name in layer.names), *unused]
    raise RecoveryError(f"it holds no weights of a Linear, but {_format_groups(names)}")


def _format_state_dicts(contents: Contents) -> str:
    """The networks in each state dict of a file, and what to do."""
    lines: list[str] = []
    for node in list(contents.nodes)[:MOST_LISTED]:
        tensors = {_unwrap(name): tensor for name, tensor in contents.under(node).items()}
        option = f"--key {shlex.quote(node)}" if node else ""
        try:
            lines.append(f"\n  {option or '(no key)'}  {format_widths(selected(contents, node or None, ()).chosen)}")
        except RecoveryError:
            networks = _networks(contents, node or None, layers_of(tensors)[0])
            lines.append(format_networks(networks[:4], f"{option} " if option else ""))
            lines += [] if networks else [f"\n  {node or '(no key)'} holds no network alone: {_format_groups(tensors)}"]
    more = "\n  …" if len(contents.nodes) > MOST_LISTED else ""
    return f"; it holds these state dicts:{''.join(lines)}{more}\nWhat to do: name one with --key"


def _networks(contents: Contents, key: str | None, layers: Sequence[Layer]) -> list[Parts]:
    """The networks in a state dict, each selected by its prefixes."""
    return tried(networks_in(layers, contents.ordered), lambda prefixes: selected(contents, key, prefixes).chosen)


def _has_linear(layers: Iterable[Layer]) -> bool:
    return any(layer.kind == "linear" for layer in layers)


def _selected_by_prefix(
    layers: list[Layer], names: list[str], prefix: Sequence[str], ordered: bool, offers: Callable[[], str]
) -> tuple[list[Layer], tuple[str, ...]]:
    """The layers of the parts that the prefixes select, in this order, and the prefixes as the names have them."""
    chosen: list[Layer] = []
    starts: list[str] = []
    for part_prefix in prefix:
        start = _unwrap(part_prefix)
        if not start.endswith(".") and any(name.startswith(start + ".") for name in names):
            start += "."
        part = [layer for layer in layers if layer.names[0].startswith(start)]
        starts.append(start)
        option = f"--prefix {shlex.quote(part_prefix)}"
        if not part:
            hint = f"What to do: choose among {_format_groups(names)}"
            raise RecoveryError(f"{option}: no layer's names begin with it. {hint}")
        _refuse_foreign(part, f"{option}: ")
        if any(layer in chosen for layer in part):
            raise RecoveryError(f"{option}: it selects {part[0].title}, which another --prefix selects too")
        chain = execution_order(part, ordered)
        if chain is None:
            message = "the file keeps no order of modules, and shapes alone do not give one"
            raise RecoveryError(
                f"{option}: {message} for {format_names(part)}. What to do: give each in order with --prefix"
            )
        if problem := mismatch(chain):
            raise _Unclear(f"{option}: the shapes do not chain: {problem}", offers)
        chosen += chain
    options = f"--prefix {' --prefix '.join(prefix)}"
    if problem := mismatch(chosen):
        raise RecoveryError(f"{options}: the parts do not chain: {problem}")
    if not _has_linear(chosen):
        raise RecoveryError(f"{options}: no Linear among {format_names(chosen)}")
    return chosen, tuple(starts)


def _only_chain(layers: list[Layer], ordered: bool, offers: Callable[[], str]) -> list[Layer]:
    """The layers, if they make exactly one network."""
    front, body, back = split_unindexed(layers)
    if not _has_linear(body):
        _refuse_foreign(body)
        raise RecoveryError(f"it holds no Linear weights{f', but {format_names(layers)}' if layers else ''}")
    chains = candidate_chains(body, ordered)
    _refuse_foreign(body, offers=offers if any(map(_has_linear, chains.values())) else None)
    if len(chains) != 1:
        problem = mismatch(execution_order(body, ordered) or ())
        reason = "more than one network can be read from it"
        if problem:
            reason = f"no single chain has all layers ({problem}; a matrix that does not chain may be an Embedding's)"
        elif not ordered:
            reason = "a safetensors file keeps no order of modules, and their shapes alone do not give one"
        raise _Unclear(reason, offers)
    (chain,) = chains.values()
    at_either_end = bool(front or back) and chain[0].widths[0] == chain[-1].widths[1]
    if len(front) > 1 or len(back) > 1 or at_either_end or mismatch([*front, *chain, *back]):
        raise _Unclear("it is not clear where a normaliser or a scale belongs among the layers", offers)
    return [*front, *chain, *back]


def _refuse_foreign(layers: Iterable[Layer], where: str = "", offers: Callable[[], str] | None = None) -> None:
    for layer in layers:
        if layer.kind == "foreign":
            shape = list(next(iter(layer.tensors.values())).shape)
            message = f"{where}{layer.names[0]} {shape} is {layer.description}; only dense networks can be recovered"
            raise _Unclear(message, offers) if offers is not None else RecoveryError(message)


def _format_offers(contents: Contents, key: str | None, layers: Sequence[Layer]) -> str:
    """The parts of a state dict, each with its prefix, and the networks that they make."""
    _, body, _ = split_unindexed(layers)
    chains = list(candidate_chains(body, contents.ordered).items())
    lines: list[str] = []
    for prefix, chain in chains[:MOST_LISTED]:
        try:
            option = "--prefix " if selected(contents, key, (prefix,)) else ""
        except RecoveryError:  # a part of a network, which cannot be recovered alone
            option = ""
        lines.append(f"\n  {option}{shlex.quote(prefix)}  {format_widths(chain)} ({format_names(chain)})")
    lines += ["\n  …"] if len(chains) > MOST_LISTED else []
    alone = [(layer, own_prefix(layer, layers)) for layer in layers if layer.unindexed]
    lines += [f"\n  --prefix {shlex.quote(prefix)}  {format_widths([layer])}" for layer, prefix in alone if prefix]
    networks = [network for network in _networks(contents, key, layers) if len(network) > 1]
    joined = f"; these parts chain:{format_networks(networks)}" if networks else ""
    hint = f"name the network with --prefix, or its parts in order with several{joined}"
    return f"; it holds:{''.join(lines)}\nWhat to do: {hint}"


def _refuse_skipped(chosen: Sequence[Layer], unused: Mapping[str, torch.Tensor]) -> None:
    """Raise RecoveryError if a module with weights that is not one of the layers is between two of them."""
    for layer, following in pairwise(chosen):
        (container, before), (other, after) = layer.position, following.position
        if container != other or before is None or after is None:
            continue
        start = f"{container}." if container else ""
        for name, tensor in unused.items():
            index = name[len(start) :].partition(".")[0] if name.startswith(start) else ""
            if index.isdecimal() and before < int(index[:18]) < after:
                message = f"between {layer.path} and {following.path} there is a module that cannot be read"
                raise RecoveryError(f"{message}: it holds {name} {list(tensor.shape)}; without it the network differs")
