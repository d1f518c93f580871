"""Code attached to a module that torch.fx would not see."""

from torch import nn
from torch.nn.modules import module as torch_module

from .blocks import MODULES
from .errors import ExportError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def refuse_lost_hooks(module: nn.Module) -> None:
    """Raise ExportError for a forward hook, or a replaced ``forward``, that tracing would silently leave out.

    torch.fx calls the hooks of modules that it traces into; those of the blocks themselves it drops, as it does hooks
    that are registered for all modules.
    """
    for kind in _HOOKS:
        for hook in getattr(torch_module, f"_global{kind}").values():
            raise ExportError(_lost(hook, "every module (it is registered globally)"))
    for path, part in module.named_modules():
        is_block = type(part) in MODULES or type(part).__module__.startswith("torch.nn.modules.")
        if not is_block or isinstance(part, nn.Sequential):
            continue
        place = f"'{path}' ({type(part).__name__})" if path else f"the module itself ({type(part).__name__})"
        for kind in _HOOKS:
            for hook in getattr(part, kind).values():
                raise ExportError(_lost(hook, place))
        if "forward" in vars(part):
            raise ExportError(_lost(vars(part)["forward"], place, "forward is replaced by"))


def _lost(hook: object, place: str, what: str = "the forward hook") -> str:
    name = getattr(hook, "__qualname__", repr(hook))
    return f"{what} {name} on {place} would not be in the file. What to do: remove it, or put its work into a forward"
