"""Options and commands as Markdown, from the fields and docstrings that they are declared by."""

from __future__ import annotations

import click

from onnxcomp.api import Limits, Settings
from onnxcomp.cli.commands import command
from onnxcomp.cli.options import options_of
from onnxcomp.pipeline import available_passes
from onnxcomp.search import Aim


def option_table(name: str) -> str:
    """Return a table of the options of a pass, or of `Settings`, `Limits` or `Aim`."""
    others = {cls.name: cls for cls in (Settings, Limits, Aim)}
    context = click.Context(click.Command(name))
    lines = ["| option | |", "|---|---|"]
    for option in options_of((available_passes() | others)[name]):
        record = option.get_help_record(context)
        if record is not None:
            flags, text = (escaped(part) for part in record)
            lines.append(f"| `{flags}` | {text} |")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Return text as it may stand in a cell."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def command_list() -> str:
    """Return the help of every command."""
    group = command()
    parts = []
    for name, each in group.commands.items():
        context = click.Context(each, info_name=f"onnxcomp {name}", max_content_width=100)
        parts.append(f"## {name}\n\n```text\n{each.get_help(context)}\n```\n")
    return "\n".join(parts)
