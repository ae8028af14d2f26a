"""What the commands print: tables, notes and errors, for a terminal or a pipe."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pelton.engine.errors import ConvergenceWarning, PeltonWarning

if TYPE_CHECKING:
    from rich.console import Console

# A pipe or a file has no width of its own.
WIDTH_WITHOUT_TERMINAL = 120


def console(error: bool = False) -> "Console":
    """Standard output or error. Square brackets and colons in names are no markup there."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=error, markup=False, emoji=False, highlight=False, width=width)


def fail(message: str) -> None:
    """An error, on one line."""
    line(f"pelton: {message}", style="bold red")


def note(message: str) -> None:
    """Something the user should know, on one line."""
    line(f"note: {message}", style="yellow")


def line(message: str, style: str = "", error: bool = True) -> None:
    """One line, never wrapped, that nothing in it can break or colour."""
    from rich.text import Text

    from pelton.report.wording import visible

    console(error).print(Text(visible(message), style=style), soft_wrap=True)


@contextmanager
def collected(notes: list[str]) -> Iterator[None]:
    """Gathers pelton's warnings about the data as notes; of convergence the report tells in its own way.

    All other warnings go where they would have gone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", category=PeltonWarning)
        show = warnings.showwarning

        def gather(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
            if issubclass(category, ConvergenceWarning):
                return
            if issubclass(category, PeltonWarning):
                notes.append(str(message))
            else:
                show(message, category, *rest, **named)

        warnings.showwarning = gather
        yield
