"""What the commands print: tables, notes and errors, for a terminal or a pipe."""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pelton.engine.errors import ConvergenceWarning, PeltonWarning
from pelton.engine.importance import MAX_KHAT

if TYPE_CHECKING:
    import xarray as xr
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


def verdict(tree: "xr.DataTree", problems: Sequence[str], error: bool = False) -> None:
    """Whether the draws converged or what an approximation is worth; in red what to do where they did not."""
    attrs = tree.attrs
    method = attrs.get("approximation")
    if method and not problems:
        seconds = sum(float(attrs[name]) for name in ("seconds_fitting", "seconds_drawing"))
        line(
            f"An approximation by {method}, not the posterior itself: Pareto k-hat {attrs['khat']:.2f} (at most "
            f"{MAX_KHAT}), worth {attrs['effective_draws']:,.0f} draws; computed in {seconds:.2f} s after compiling "
            f"for {attrs['seconds_compiling']:.2f} s. Leave out --approximate for the posterior.",
            style="yellow",
            error=False,
        )
        return
    if not problems:
        seconds = sum(float(attrs[name]) for name in ("seconds_warmup", "seconds_sampling"))
        checks = (
            f": largest R-hat {attrs['worst_rhat']:.3f}, smallest effective sample "
            f"{min(attrs['least_ess_bulk'], attrs['least_ess_tail']):,.0f}, {attrs['divergences']} divergences; "
            f"sampled in {seconds:.2f} s after compiling for {attrs['seconds_compiling']:.2f} s"
            if attrs["worst_rhat"] == attrs["worst_rhat"]
            else ": nothing had to be sampled"
        )
        line(f"Converged{checks}.", style="green", error=False)
        return
    if method:
        line(f"An approximation by {method}, not the posterior itself.", style="yellow", error=error)
    line("NOT CONVERGED: do not use these figures yet.", style="bold white on red", error=error)
    for problem in problems:
        line(f"  - {problem}", style="red", error=error)


def files(written: Sequence[Path], meanings: Mapping[str, str]) -> None:
    """Where the results are, and what each file is."""
    from rich.text import Text

    from pelton.report.wording import visible

    names = [file.name for file in written]
    out = console()
    out.print(Text(f"Written to {visible(written[0].parent)}:"), soft_wrap=True)
    width = max(14, *(len(name) + 2 for name in meanings))
    for name, meaning in meanings.items():
        if name in names:
            out.print(Text(f"  {name:<{width}}{meaning}"))
    pictures = [file.name for file in written if file.suffix == ".png"]
    if pictures:
        out.print(Text(f"  {', '.join(pictures)}"))
