"""`pelton predict`: what a fit says of new rows, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pelton.cli import show
from pelton.cli.runs import kind, posterior_file, problems, read_tree, remembered

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

HELP = r"""Predict new rows of a table by a fit: counts of units, or the target of weeks to come.

RUN is a folder that `pelton fit` wrote, or its posterior.nc.

Rates: NEWDATA has a column of trials and one of units. A unit of the fit keeps what was learnt of it;
any other name is a new unit of the same population. Columns are called as in the fit unless told otherwise.

Media mix: NEWDATA has the columns of the fit without the target, one row per geo and date after the last one
fitted: planned media, controls and events.

Examples:

  pelton fit example:stores --successes conversions --trials impressions --unit store --out stores

  pelton predict stores next_month.csv

  pelton predict stores next_month.csv --trials visits --unit shop --out next

  pelton predict mix plan.csv --json

Exit status: 0 done; 2 something is wrong with the run or the data; 3 the fit did not converge (with --strict).
"""
PREDICTIONS = "predictions.csv"
MAX_ROWS = 30
NOT_CONVERGED = 3


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a fit, or its posterior.nc.")],
    data: Annotated[str, typer.Argument(metavar="NEWDATA", help="CSV, TSV or Parquet file.")],
    *,
    trials: Annotated[str | None, typer.Option(metavar="COL", help="Column of trials. (default: as fitted)")] = None,
    unit: Annotated[str | None, typer.Option(metavar="COL", help="Column of names. (default: as fitted)")] = None,
    groups: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of regions or segments. (default: as fitted)")
    ] = None,
    probability: Annotated[float, typer.Option(metavar="P", help="Of the central intervals.")] = 0.94,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the results. (default: RUN)")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 3 if the fit did not converge.")] = False,
    quiet: show.Quiet = False,
    as_json: show.Json = False,
) -> None:
    # The help text is given where the command is registered.
    from pelton.engine.errors import ArgumentError
    from pelton.report.write import aside, check_output

    file = posterior_file(run)
    folder = check_output(file.parent if out is None else out, [PREDICTIONS])
    tree = read_tree(file)
    what = kind(tree, file)
    notes: list[str] = []
    with show.collected(notes):
        if what == "rates":
            columns = {"trials": trials, "unit": unit, "groups": groups}
            table = _rates(tree, data, columns, probability, notes)
        else:
            given = [f"--{name}" for name, value in (("trials", trials), ("unit", unit), ("groups", groups)) if value]
            if given:
                raise ArgumentError(f"{given[0]} belongs to rates, and {run!r} is a media mix; leave it out")
            table = _weeks(tree, file, data, probability, notes)
    with aside(folder) as scratch:
        table.to_csv(scratch / PREDICTIONS, encoding="utf-8")
    wrong = problems(tree)
    for text in dict.fromkeys(notes):
        show.note(text)
    written = [folder / PREDICTIONS]
    if as_json:
        show.machine(
            {
                "command": "predict",
                "model": what,
                "converged": not wrong,
                "problems": wrong,
                "probability": probability,
                "predictions": show.records(table),
                "notes": list(dict.fromkeys(notes)),
                "files": written,
            }
        )
    elif not quiet:
        _print(table, what, probability)
        show.files(written, {PREDICTIONS: "one row a row of NEWDATA, with all digits"})
    if wrong and not as_json:
        show.line("NOT CONVERGED: do not use these figures yet.", style="bold white on red")
        for problem in wrong:
            show.line(f"  - {problem}", style="red")
    if strict and wrong:
        raise typer.Exit(NOT_CONVERGED)


def _rates(
    tree: "xr.DataTree", data: str, given: dict[str, str | None], probability: float, notes: list[str]
) -> "pd.DataFrame":
    from pelton.cli.tables import Columns, read_table, refuse_text
    from pelton.engine.errors import ArgumentError
    from pelton.models.prediction import predict_rates

    stored = remembered(tree)
    level = next((name for name in ("groups", "segments") if stored.get(name)), "groups")
    trials = given["trials"] or stored.get("trials")
    unit = given["unit"] or stored.get("unit")
    groups = given["groups"] or stored.get(level)
    if trials is None:
        raise ArgumentError("the run does not say what its column of trials was called; give --trials COL")
    covariates = [str(name) for name in stored.get("covariates") or ()]
    if not covariates and "covariate" in tree["posterior"].coords:
        covariates = [str(name) for name in tree["posterior"].coords["covariate"].values]
    labels = [name for name in (unit, groups) if name is not None]

    def columns(header: list[str]) -> Columns:
        # A table of known units alone needs neither.
        present = [str(name) for name in labels if name in header or name in (given["unit"], given["groups"], unit)]
        return Columns((trials, *(name for name in covariates if name in header)), tuple(present))

    frame, found = read_table(data, columns)
    notes += found
    inside = [name for name in covariates if name in frame]
    refuse_text(frame, inside, unit)
    names = frame[unit].tolist() if unit is not None else None
    if names is not None:
        _refuse_nameless(names, unit)
    return predict_rates(
        tree,
        frame[trials].to_numpy(),
        unit=names,
        groups=frame[groups].tolist() if groups is not None and groups in frame else None,
        covariates=frame[inside] if inside else None,
        probability=probability,
    )


def _refuse_nameless(names: list[Any], column: str | None) -> None:
    from pelton.engine.errors import DataError

    for row, name in enumerate(names):
        if name is None or name != name:
            raise DataError(f"{column}: row {row + 1} has no name; give one, that of a new unit if it is new")


def _weeks(tree: "xr.DataTree", file: Path, data: str, probability: float, notes: list[str]) -> "pd.DataFrame":
    from pelton.cli.tables import Columns, read_table
    from pelton.models.forecast import columns_of, forecast

    numbers, labels = columns_of(tree)
    called = _media_columns(file, numbers)
    frame, found = read_table(data, Columns(tuple(called.get(name, name) for name in numbers), tuple(labels)))
    notes += found
    plan = frame.rename(columns={column: name for name, column in called.items()})
    return forecast(tree, plan, probability=probability)


def _media_columns(file: Path, names: list[str]) -> dict[str, str]:
    """The column of each channel's media, where the config beside the run calls it otherwise."""
    from pelton.models.media_config import read_config

    config = file.parent / "config.toml"
    if not config.is_file():
        return {}
    return {one.name: one.media for one in read_config(config).channels if one.media and one.name in names}


def _print(table: "pd.DataFrame", what: str, probability: float) -> None:
    from rich.text import Text

    from pelton.report.media_axes import amount
    from pelton.report.wording import Rates, shorten, visible

    shown = table.iloc[:MAX_ROWS]
    name = f"{100 * probability:g}% interval"
    if what == "rates":
        write = Rates((shown["rate_high"] - shown["rate_low"]) / 4)
        heads = ("unit", "fitted", "trials", "rate", name, "successes", f"{name} ")
        rows = [
            (
                shorten(visible(label), 40),
                "yes" if row["known"] else "new",
                f"{row['trials']:,.0f}",
                write(row["rate"]),
                write.interval(row["rate_low"], row["rate_high"]),
                f"{row['successes']:,.1f}",
                f"{row['successes_low']:,.0f} to {row['successes_high']:,.0f}",
            )
            for label, row in shown.iterrows()
        ]
    else:
        heads = ("geo", "date", "expected", name, f"{name} of a week")
        rows = [
            (
                shorten(visible(label[0]), 30),
                str(label[1])[:10],
                amount(row["mean"]),
                f"{amount(row['low'])} to {amount(row['high'])}",
                f"{amount(row['noise_low'])} to {amount(row['noise_high'])}",
            )
            for label, row in shown.iterrows()
        ]
    console = show.console()
    console.print(show.table("Predictions", heads, rows))
    if len(table) > MAX_ROWS:
        console.print(Text(f"  ... and {len(table) - MAX_ROWS:,} more in {PREDICTIONS}", style="dim"))
