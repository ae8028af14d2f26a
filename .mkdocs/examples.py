"""For the documentation site: the examples in docstrings as code, which Markdown would take for quotations."""

import re
import textwrap
from typing import Any

import griffe

# A first line with >>>, and what follows up to the next empty line.
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The docstring with each example in a fence of its own."""

    def fence(match: re.Match[str]) -> str:
        margin = match.group(1)
        code = textwrap.dedent(match.group(0))
        return textwrap.indent(f"```pycon\n{code}\n```", margin)

    return _EXAMPLE.sub(fence, text)


class Examples(griffe.Extension):
    """Fences the examples of every object."""

    def on_object(self, *, obj: Any, **rest: Any) -> None:
        del rest
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
