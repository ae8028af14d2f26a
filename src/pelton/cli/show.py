"""What the commands print: tables, notes and errors for people, and JSON for machines."""

import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pelton.engine.errors import ConvergenceWarning, PeltonWarning
from pelton.engine.importance import MAX_KHAT

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.console import Console
    from rich.table import Table

# What a fit prints: its tables, nothing but notes and errors, its tables and how they came about, or JSON.
type Manner = Literal["plain", "quiet", "verbose", "json"]
# Options that several commands share.
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print notes and errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of tables.")]

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


def machine(result: Mapping[str, Any]) -> None:
    """One JSON object on standard output and nothing else there; what is no finite number is null."""
    text = json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """A table as JSON has it, a row a record, its index among the columns."""
    return [{str(name): value for name, value in row.items()} for row in table.reset_index().to_dict("records")]


def _plain(value: Any) -> Any:
    """
    >>> _plain({"rate": float("nan"), "of": (1, Path("a"))})
    {'rate': None, 'of': [1, 'a']}
    """
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        # A number of NumPy.
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


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


def fitted(
    tree: "xr.DataTree",
    findings: Any,
    *,
    notes: Sequence[str],
    files: Sequence[Path],
    model: str,
    **tables: Any,
) -> None:
    """What a fit found, for machines: the verdict and its figures, the headline, tables and files."""
    checks = ("status", "worst_rhat", "least_ess_bulk", "least_ess_tail", "divergences")
    costs = ("seconds_compiling", "seconds_warmup", "seconds_sampling", "seconds_fitting", "gradient_evaluations")
    machine(
        {
            "command": "fit",
            "model": model,
            "converged": findings.converged,
            "problems": findings.problems,
            "diagnostics": {name: tree.attrs[name] for name in checks if name in tree.attrs},
            "costs": {name: tree.attrs[name] for name in costs if name in tree.attrs},
            "sentences": findings.sentences,
            "notes": list(dict.fromkeys(notes)),
            **tables,
            "files": files,
        }
    )


def outcome(tree: "xr.DataTree", findings: Any, manner: Manner, tables: Callable[[], None]) -> None:
    """What a fit found, for people: its tables, or where they are not wanted the verdict if it is a bad one."""
    if manner != "quiet":
        tables()
    elif not findings.converged:
        verdict(tree, findings.problems, error=True)
    if manner == "verbose":
        details(tree)


# Lines of the diagnostics in the terminal; the report has more.
MAX_DIAGNOSTICS = 20


def details(tree: "xr.DataTree") -> None:
    """The parameters with the largest R-hats, and how the draws were computed."""
    from rich.text import Text

    from pelton.engine.diagnostics import table as diagnostics
    from pelton.report.html import settings
    from pelton.report.wording import significant, visible

    def figure(value: float, write: Any) -> str:
        return write(value) if math.isfinite(value) else "–"

    found = diagnostics(tree).sort_values("rhat", ascending=False, kind="stable").iloc[:MAX_DIAGNOSTICS]
    columns = (
        ("mean", significant), ("sd", significant), ("rhat", "{:.3f}".format), ("ess_bulk", "{:,.0f}".format),
        ("ess_tail", "{:,.0f}".format),
    )  # fmt: skip
    rows = [(visible(label), *(figure(row[name], write) for name, write in columns)) for label, row in found.iterrows()]
    out = console()
    out.print(table("Diagnostics, largest R-hats first", ("parameter", *(name for name, _ in columns)), rows))
    for name, value in settings({str(name): value for name, value in tree.attrs.items()}):
        out.print(Text(f"  {name}: {value}"), soft_wrap=True)


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


# Columns that hold words, and stand to the left.
_WORDS = ("", "run", "parameter", "unit", "geo", "channel", "plan")


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """A table of cells as they stand; the first column and those of words to the left, figures to the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    for number, head in enumerate(heads):
        words = number == 0 or head in _WORDS
        made.add_column(head, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in rows:
        made.add_row(*row)
    return made


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
