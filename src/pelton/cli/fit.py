"""`pelton fit`: a table goes in; a checked posterior, decisions, pictures and a report come out."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pelton.cli import show

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.table import Table

    from pelton.models.partial_pooling import PartialPooling
    from pelton.report.findings import Findings

NOT_CONVERGED = 3
# Up to this many units the prior's own data sets are made too, for the predictive check.
PRIOR_CHECK_UNITS = 5_000
MAX_TABLE = 30

HELP = r"""Estimate each unit's rate, drawn towards the population that all units come from.

DATA is a CSV, TSV or Parquet file with one row per unit (a store, a category, a campaign ...),
or a table that comes with pelton: example:categories, example:stores.

Examples:

  pelton fit example:categories --successes clicks \
      --trials impressions --unit category --budget 48000000

  pelton fit stores.csv --successes sales --trials visits \
      --unit store --top 5 --out results

  pelton fit shops.parquet --successes orders \
      --trials sessions --unit shop --groups region

Exit status: 0 done; 2 something is wrong with the data or the settings;
3 not converged (with --strict); 130 interrupted.
"""


def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="CSV, TSV or Parquet file, or example:NAME.")],
    *,
    successes: Annotated[str, typer.Option(metavar="COL", help="Column of successes: clicks, sales, sign-ups ...")],
    trials: Annotated[str, typer.Option(metavar="COL", help="Column of trials: impressions, visits, mails ...")],
    unit: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of names. Without it, rows are numbered from 0.")
    ] = None,
    prior: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Prior of the population: default (mean uniform, concentration Pareto 1.5), "
            "gamma-shapes:0.5,0.5, mean-concentration:2,2,1,1.5 (Beta(2, 2) mean; Pareto concentration from 1 with "
            "tail 1.5), bda, or fixed-beta:11.5,48.5.",
        ),
    ] = "default",
    groups: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of regions, each with a mean of its own.")
    ] = None,
    segments: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of questions, each fitted by itself in one go.")
    ] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(metavar="COL", help="Column of numbers that move the rate; may be repeated."),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", help="Tell how probably each unit is among the K best.")] = 10,
    threshold: Annotated[
        float | None, typer.Option(metavar="RATE", help="Tell how probably each rate exceeds this, 0.05 say.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(metavar="SUM", help="Split this sum in proportion to the rates, raw and pooled."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results. (default: pelton-out/NAME, NAME that of DATA)"),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="grid, numpyro-nuts or blackjax-nuts. (default: grid; numpyro-nuts with groups or covariates)",
        ),
    ] = None,
    chains: Annotated[int, typer.Option(metavar="N", help="Independent chains.")] = 4,
    warmup: Annotated[int, typer.Option(metavar="N", help="Adapting iterations a chain.")] = 1000,
    draws: Annotated[int, typer.Option(metavar="N", help="Draws a chain.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same draws.")] = 0,
    target_accept: Annotated[
        float,
        typer.Option(metavar="X", help="Acceptance that the step size aims at; raise it against divergences."),
    ] = 0.8,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="float32 or float64. (default: float64 on a CPU, float32 on a GPU)"),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            metavar="PARTS", help="Also predict each unit by a fit without it, in so many parts: calibration.png."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 3 if the draws did not converge.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print notes and errors only.")] = False,
) -> None:
    # The help text is given where the command is registered.
    from pelton.cli.tables import Columns, read_table, refuse_text
    from pelton.engine.run import sample
    from pelton.engine.samplers import sampler_class
    from pelton.models.decisions import held_out, unit_table
    from pelton.models.partial_pooling import PartialPooling
    from pelton.models.priors import from_text
    from pelton.report import check_output, write_report
    from pelton.report.findings import find

    chosen = from_text(prior)
    if sampler is not None:
        sampler_class(sampler)
    _check(top, threshold, budget)
    covariates = list(dict.fromkeys(covariate or ()))
    labels = tuple(name for name in (unit, groups, segments) if name is not None)
    out = check_output(_folder(data) if out is None else out)
    frame, notes = read_table(data, Columns((successes, trials, *covariates), labels))
    refuse_text(frame, covariates, unit)
    with show.collected(notes):
        model = PartialPooling.from_frame(
            frame,
            successes=successes,
            trials=trials,
            unit=unit,
            prior=chosen,
            covariates=covariates or None,
            groups=groups,
            segments=segments,
        )
        settings: dict[str, Any] = {
            "sampler": sampler,
            "chains": chains,
            "warmup": warmup,
            "draws": draws,
            "seed": seed,
            "target_accept": target_accept,
            "precision": precision,
            "progress": False if quiet else None,
        }
        # Before the fit itself, so that a number of parts that cannot be is refused at once.
        held = None if hold_out is None else held_out(model, hold_out, **settings)
        tree = sample(model, groups=("prior_predictive",) if _prior_check(model) else (), **settings)
    units = unit_table(tree, top, threshold, budget)
    name = _name(data)
    decided = {"top": top, "threshold": threshold, "budget": budget}
    files = write_report(tree, out, **decided, notes=notes, source=name, units=units, held=held)
    for text in notes:
        show.note(text)
    findings = find(tree, units, top, threshold, budget)
    if not quiet:
        _print(tree, units, findings, files=files, top=top, name=name)
    elif not findings.converged:
        _verdict(tree, findings, error=True)
    if strict and not findings.converged:
        raise typer.Exit(NOT_CONVERGED)


def _check(top: int, threshold: float | None, budget: float | None) -> None:
    """What concerns the decisions, before any sampling."""
    from math import isfinite

    from pelton.engine.errors import ArgumentError

    if top < 1:
        raise ArgumentError(f"top is a whole number of at least 1, not {top}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ArgumentError(f"threshold is a rate between 0 and 1, not {threshold!r}; for 5% give 0.05")
    if budget is not None and not (isfinite(budget) and budget > 0):
        raise ArgumentError(f"budget is a positive number, not {budget!r}")


def _name(data: str) -> str:
    from pelton.cli.tables import EXAMPLE

    return data.removeprefix(EXAMPLE) if data.startswith(EXAMPLE) else Path(data).name


def _folder(data: str) -> Path:
    return Path("pelton-out") / (Path(_name(data)).stem or "fit")


def _prior_check(model: "PartialPooling") -> bool:
    one_population = model.group is None and model.segment is None and model.covariates is None
    return model.prior.proper and one_population and len(model.counts) <= PRIOR_CHECK_UNITS


def _print(
    tree: "xr.DataTree",
    units: "pd.DataFrame",
    findings: "Findings",
    *,
    files: list[Path],
    top: int,
    name: str,
) -> None:
    """The result at a glance."""
    from rich.padding import Padding
    from rich.text import Text

    from pelton.report.wording import count, visible

    console = show.console()
    console.print(Text(f"{visible(name)}: {count(len(units), 'unit')}", style="bold"))
    for sentence in findings.sentences:
        console.print(Padding(Text(sentence), (0, 0, 0, 2)))
    console.print()
    console.print(_table(units, top, console.width))
    if len(units) > min(top, MAX_TABLE):
        console.print(Text(f"  ... and {len(units) - min(top, MAX_TABLE):,} more in units.csv", style="dim"))
    console.print()
    _verdict(tree, findings)
    _print_files(files)


def _table(units: "pd.DataFrame", top: int, width: int) -> "Table":
    """The units with the highest rates; columns without room are left out, the least important first."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    from pelton.report.wording import Amounts, Rates, probability, shorten, visible

    shown = units.sort_values("mean", ascending=False, kind="stable").iloc[: min(top, MAX_TABLE)]
    write = Rates(shown["sd"])

    def column(name: str, said: Callable[[float], str]) -> list[str]:
        return [said(float(value)) for value in shown[name]]

    names = [shorten(visible(name), 40) for name in shown.index]
    columns = {
        "successes": column("successes", "{:,.0f}".format),
        "trials": column("trials", "{:,.0f}".format),
        "raw": column("raw", write),
        "pooled": column("mean", write),
        "94% interval": [write.interval(*ends) for ends in shown[["q03", "q97"]].to_numpy()],
        "P(best)": column("p_best", probability),
    }
    if top < len(units):
        columns[f"P(top {top})"] = column("p_top", probability)
    if "p_above" in units:
        columns["P(above)"] = column("p_above", probability)
    if "budget_pooled" in units:
        money = Amounts(shown["budget_pooled"])
        columns["budget"] = column("budget_pooled", money)
        columns["change"] = column("budget_change", lambda value: money(value, sign=True))
    head = visible(units.index.name or "unit")
    # Each column has a space at both sides and one between.
    room = width - max(map(cell_len, [head, *names])) - 3 - len(str(len(shown))) - 3 - 2
    for least in ("successes", "P(best)", "trials", "raw", "budget", "P(above)"):
        if sum(max(map(cell_len, [name, *cells])) + 3 for name, cells in columns.items()) <= room:
            break
        columns.pop(least, None)
    table = Table(
        title="Highest pooled rates",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    table.add_column("", justify="right", style="dim")
    table.add_column(head, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", style="bold" if name == "pooled" else "", no_wrap=True)
    for rank, cells in enumerate(zip(names, *columns.values(), strict=True), start=1):
        table.add_row(str(rank), *cells)
    return table


def _verdict(tree: "xr.DataTree", findings: "Findings", error: bool = False) -> None:
    """Whether the draws converged; in red what to do where they did not."""
    attrs = tree.attrs
    if findings.converged:
        seconds = sum(float(attrs[name]) for name in ("seconds_warmup", "seconds_sampling"))
        checks = (
            f": largest R-hat {attrs['worst_rhat']:.3f}, smallest effective sample "
            f"{min(attrs['least_ess_bulk'], attrs['least_ess_tail']):,.0f}, {attrs['divergences']} divergences; "
            f"sampled in {seconds:.2f} s after compiling for {attrs['seconds_compiling']:.2f} s"
            if attrs["worst_rhat"] == attrs["worst_rhat"]
            else ": nothing had to be sampled"
        )
        show.line(f"Converged{checks}.", style="green", error=False)
        return
    show.line("NOT CONVERGED: do not use these figures yet.", style="bold white on red", error=error)
    for problem in findings.problems:
        show.line(f"  - {problem}", style="red", error=error)


def _print_files(files: list[Path]) -> None:
    from rich.text import Text

    from pelton.report.wording import visible

    meanings = {
        "report.html": "everything, with pictures; open it in a browser",
        "units.csv": "one row a unit",
        "posterior.nc": "all draws, for ArviZ",
    }
    console = show.console()
    console.print(Text(f"Written to {visible(files[0].parent)}:"), soft_wrap=True)
    for name, meaning in meanings.items():
        console.print(Text(f"  {name:<14}{meaning}"))
    pictures = ", ".join(file.name for file in files if file.suffix == ".png")
    console.print(Text(f"  {pictures}"))
