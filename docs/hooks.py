"""What MkDocs calls for each page: commands are run, options listed, graphs drawn.

Pages say where, each in a line of its own, or a block:

    ```console                      the commands are run where all blocks of a page are run, and
    $ onnxcomp inspect MODEL        what they print is put below each
    ```
    ```python                       the code is run there too, as it stands
    <!-- options: cluster -->       a table of the options of a pass, from its fields
    <!-- commands -->               the help of every command
    <!-- graph: MODEL output 6 -->  a drawing of what is so many nodes from the output, or input
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from drawing import drawn
from listing import command_list, option_table
from running import Workplace

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page

BLOCK = re.compile(
    r"^```(?P<language>console|python)\n(?P<code>.*?)^```$"
    r"|^<!-- (?P<what>options|commands|graph):? ?(?P<words>.*?) ?-->$",
    re.MULTILINE | re.DOTALL,
)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replace what a page says is to be made."""
    with Workplace(page.file.src_uri) as workplace:
        return BLOCK.sub(lambda match: made(match, workplace), markdown)


def made(match: re.Match[str], workplace: Workplace) -> str:
    """Return what takes the place of one block."""
    words = match["words"].split() if match["words"] else []
    match match["language"] or match["what"]:
        case "console":
            return f"```console\n{workplace.console(match['code'])}```"
        case "python":
            workplace.python(match["code"])
            return match[0]
        case "options":
            return option_table(*words)
        case "commands":
            return command_list()
        case _:
            model, end, steps = words
            return drawn(workplace.folder / model, end, int(steps))
