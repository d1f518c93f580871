"""The help of ``mlpx`` and of its commands, laid out for the width of the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from shutil import get_terminal_size
from typing import Any

from typer.core import TyperCommand, TyperGroup

from .streams import wrapped

_WIDEST, _NARROW = 120, 64
_NO_BREAK = "\u00a0"


class Command(TyperCommand):
    """A command whose help is ``help_of``."""

    def get_help(self, ctx: Any) -> str:
        """The help, as printed."""
        return help_of(ctx)


class Group(TyperGroup):
    """Commands, the list of which is ``help_of``."""

    def get_help(self, ctx: Any) -> str:
        """The help, as printed."""
        return help_of(ctx)


def help_of(context: Any) -> str:
    """The help of a context's command: how it is called, what it does, its arguments, options and commands.

    Headings are bold on a terminal that has colours, unless NO_COLOR is set.
    """
    command, width = context.command, min(get_terminal_size().columns, _WIDEST)
    arguments: list[tuple[str, str]] = []
    options: list[tuple[str, str]] = []
    for parameter in command.get_params(context):
        is_option = parameter.param_type_name == "option"
        (options if is_option else arguments).append((_spelling(parameter), _description(parameter)))
    commands = [(name, each.short_help) for name, each in getattr(command, "commands", {}).items()]
    title, call = wrapped(usage(context), width, 7).split(" ", 1)
    parts = [f"{_heading(title)} {call}", wrapped(command.help, width)]
    for title, rows in (("Arguments", arguments), ("Options", options), ("Commands", commands)):
        if rows:
            parts.append("\n".join([_heading(f"{title}:"), *_listed(rows, width)]))
    return "\n\n".join(parts)


def usage(context: Any) -> str:
    """How the command of a context is called."""
    command = context.command
    called = [_spelling(each) for each in command.get_params(context) if each.param_type_name == "argument"]
    pieces = ["COMMAND", "[ARGS]..."] if hasattr(command, "commands") else called
    return " ".join(["Usage:", context.command_path, "[OPTIONS]", *pieces])


def _spelling(parameter: Any) -> str:
    """``-o, --output FILE``, ``--html / --no-html`` or ``FILE``."""
    if parameter.param_type_name == "argument":
        return parameter.metavar if parameter.required else f"[{parameter.metavar}]"
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.is_flag:
        return " / ".join([names, *parameter.secondary_opts])
    return f"{names} {parameter.metavar}"


def _description(parameter: Any) -> str:
    """The help of a parameter, with the default; None and False are not shown, as they ask for nothing."""
    default, remark = parameter.default, ""
    if parameter.required:
        remark = "[required]"
    elif default is True:
        remark = f"[default: {parameter.opts[0].lstrip('-')}]"
    elif default is not False and isinstance(default, (str, int, float)):
        remark = f"[default: {default:g}]" if isinstance(default, float) else f"[default: {default}]"
    return f"{parameter.help} {remark.replace(' ', _NO_BREAK)}".rstrip()


def _listed(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Each text in a column beside its term; under the term where that is long, and where the terminal is narrow."""
    rows = list(rows)
    longest = 0 if width < _NARROW else max((len(term) for term, _ in rows if len(term) <= width // 3 - 4), default=0)
    indent = longest + 4
    for term, text in rows:
        column = wrapped(f"{' ' * indent}{text}", max(width, indent + 20), indent).replace(_NO_BREAK, " ")
        yield f"  {term:<{longest}}  {column[indent:]}" if len(term) <= longest else f"  {term}\n{column}"


def _heading(text: str) -> str:
    """Bold; what prints it takes the codes away where there is no terminal."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return text if is_plain else f"\033[1m{text}\033[0m"
