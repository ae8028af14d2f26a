"""`pelton fit` of rates: a table of successes and trials goes in, pooled rates and decisions come out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pelton.cli import show
from pelton.cli.runs import remember

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.table import Table

    from pelton.models.partial_pooling import PartialPooling
    from pelton.report.findings import Findings

# Up to this many units the prior's own data sets are made too, for the predictive check.
PRIOR_CHECK_UNITS = 5_000
MAX_TABLE = 30
SAMPLING = {"chains": 4, "warmup": 1000, "draws": 1000, "seed": 0, "target_accept": 0.8}
FILES = {
    "report.html": "everything, with pictures; open it in a browser",
    "units.csv": "one row a unit",
    "posterior.nc": "all draws, for ArviZ",
}


@dataclass(frozen=True)
class Options:
    """What the command line says of rates, by the names of its options; None where it says nothing."""

    successes: str | None = None
    trials: str | None = None
    unit: str | None = None
    prior: str | None = None
    groups: str | None = None
    segments: str | None = None
    covariate: list[str] | None = None
    top: int | None = None
    threshold: float | None = None
    budget: float | None = None
    hold_out: int | None = None


def fit_rates(
    data: str, name: str, options: Options, out: Path, sampling: dict[str, Any], *, manner: show.Manner
) -> bool:
    """Fits and reports; tells whether the draws converged.

    Args:
        data: as for `read_table`.
        name: of the data, for headings.
        options: of rates.
        out: folder for the results.
        sampling: settings of `pelton.sample`, None where the default holds.
        manner: what is printed.
    """
    from pelton.cli.draws import RUN, drawn, sampler_settings
    from pelton.cli.tables import Columns, read_table, refuse_text
    from pelton.engine.samplers import sampler_class
    from pelton.models.decisions import held_out, unit_table
    from pelton.models.partial_pooling import PartialPooling
    from pelton.models.priors import from_text
    from pelton.report import check_output, write_report
    from pelton.report.findings import find

    (successes, trials), unit = columns_of_counts(options), options.unit
    chosen = from_text("default" if options.prior is None else options.prior)
    if sampling["sampler"] is not None:
        sampler_class(sampling["sampler"])
    top = 10 if options.top is None else options.top
    threshold, budget = options.threshold, options.budget
    check_decisions(top, threshold, budget)
    covariates = list(dict.fromkeys(options.covariate or ()))
    labels = tuple(name for name in (unit, options.groups, options.segments) if name is not None)
    check_output(out)
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
            groups=options.groups,
            segments=options.segments,
        )
        settings: dict[str, Any] = {
            **{key: SAMPLING.get(key) if value is None else value for key, value in sampling.items()},
        }
        show_progress = None if manner in ("plain", "verbose") else False
        # Before the fit itself, so that a number of parts that cannot be is refused at once.
        held = None
        if options.hold_out is not None:
            held = held_out(model, options.hold_out, progress=show_progress, **sampler_settings(settings))
        predictive = ("prior_predictive",) if _prior_check(model) else ()
        given = {key: value for key, value in sampling.items() if value is not None}
        tree = drawn(model, settings, predictive, show_progress, out=out, given=given)
    units = unit_table(tree, top, threshold, budget)
    decided = {"top": top, "threshold": threshold, "budget": budget}
    remember(tree, {**vars(options), "covariates": covariates or None, **decided, "notes": notes, "source": name})
    files = write_report(tree, out, **decided, notes=notes, source=name, units=units, held=held)
    files += [out / RUN] if (out / RUN).exists() else []
    for text in notes:
        show.note(text)
    findings = find(tree, units, top, threshold, budget)
    if manner == "json":
        best = units.sort_values("mean", ascending=False, kind="stable").iloc[:top]
        show.fitted(tree, findings, notes=notes, files=files, model="rates", units=show.records(best))
    else:
        show.outcome(tree, findings, manner, lambda: _print(tree, units, findings, files=files, top=top, name=name))
    return findings.converged


def columns_of_counts(options: Options) -> tuple[str, str]:
    """The columns of successes and of trials, which rates cannot do without."""
    from pelton.engine.errors import ArgumentError

    successes, trials = options.successes, options.trials
    if successes is None or trials is None:
        lacking = [f"--{name} COL" for name, given in (("successes", successes), ("trials", trials)) if given is None]
        raise ArgumentError(
            f"rates need {' and '.join(lacking)}, as in --successes clicks --trials impressions; for a media mix say "
            "--model media-mix --config FILE"
        )
    return successes, trials


def check_decisions(top: int, threshold: float | None, budget: float | None) -> None:
    """Refuses top, threshold or budget that cannot be, before any sampling."""
    from math import isfinite

    from pelton.engine.errors import ArgumentError

    if top < 1:
        raise ArgumentError(f"top is a whole number of at least 1, not {top}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ArgumentError(f"threshold is a rate between 0 and 1, not {threshold!r}; for 5% give 0.05")
    if budget is not None and not (isfinite(budget) and budget > 0):
        raise ArgumentError(f"budget is a positive number, not {budget!r}")


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

    from pelton.cli.draws import RUN, RUN_MEANS
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
    show.verdict(tree, findings.problems)
    show.files(files, FILES | {RUN: RUN_MEANS})


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
