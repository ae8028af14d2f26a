"""`pelton simulate` and `pelton example`: tables written to a file, with nothing lost if that fails."""

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pelton.cli import show

if TYPE_CHECKING:
    import pandas as pd

SIMULATE_HELP = r"""Write a table of stores whose true rates are known.

Each store's true rate is drawn from Beta(alpha, beta),
its trials between two limits, its successes from the true rate.

Example:

  pelton simulate stores --stores 40 --seed 1 --out stores.csv

  pelton fit stores.csv --successes conversions \
      --trials impressions --unit store
"""
MARKETS_HELP = r"""Write weekly sales and spend of markets whose media response is known.

Without sizes: eight European markets with 26 to 104 weeks and six channels.
With --geos, --weeks or --channels: markets of any number and length.

Examples:

  pelton simulate markets --out markets.csv --truth truth.csv

  pelton simulate markets --geos 50 --weeks 208 \
      --channels 12 --seed 1 --out many.parquet

  pelton init media-mix markets.csv
"""
EXAMPLE_HELP = """Write one of the tables that come with pelton, or list them.

Examples:

  pelton example

  pelton example categories --out categories.csv
"""


def stores(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="CSV or Parquet file to write.")],
    number: Annotated[int, typer.Option("--stores", metavar="N", help="How many stores.")] = 40,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same table.")] = 0,
    alpha: Annotated[float, typer.Option(metavar="X", help="First shape of the rates' Beta distribution.")] = 2.5,
    beta: Annotated[float, typer.Option(metavar="X", help="Second shape.")] = 8.0,
    trials_low: Annotated[int, typer.Option(metavar="N", help="Fewest trials of a store.")] = 60,
    trials_high: Annotated[int, typer.Option(metavar="N", help="Most trials of a store.")] = 160,
) -> None:
    # The help text is given where the command is registered.
    from pelton.models.simulate import simulate_stores

    folder = _check_file(out)
    frame = simulate_stores(number, alpha, beta, trials=(trials_low, trials_high), seed=seed)
    with _aside(folder) as scratch:
        _write(frame, scratch / out.name)
    show.line(
        f"{len(frame):,} stores in {out}; their mean true rate is {100 * frame['true_rate'].mean():.1f}%.",
        error=False,
    )
    show.line(
        f"Next: pelton fit {out} --successes conversions --trials impressions --unit store",
        style="dim",
        error=False,
    )


def markets(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="CSV or Parquet file to write.")],
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for the true parameters and ROAS by market and channel."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same table.")] = 0,
    geos: Annotated[
        int | None, typer.Option(metavar="N", help="How many markets. (default: the eight; with other sizes 8)")
    ] = None,
    weeks: Annotated[
        int | None, typer.Option(metavar="N", help="Weeks of each. (default: 26 to 104; with other sizes 104)")
    ] = None,
    channels: Annotated[int | None, typer.Option(metavar="N", help="How many channels. (default: 6)")] = None,
) -> None:
    # The help text is given where the command is registered.
    from pelton.engine.errors import OutputError
    from pelton.models.simulate import simulate_markets, simulate_media

    if truth is not None and truth.resolve() == out.resolve():
        raise OutputError(f"--out and --truth are both {str(out)!r}; give two files")
    paths = [out] if truth is None else [out, truth]
    folders = [_check_file(path) for path in paths]
    sizes = {"geos": geos, "weeks": weeks, "channels": channels}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    made = simulate_media(**sizes, seed=seed) if sizes else simulate_markets(seed)
    tables = [made.frame, made.truth_table()]
    with ExitStack() as stack:
        for table, folder, path in zip(tables, folders, paths, strict=False):
            _write(table, stack.enter_context(_aside(folder)) / path.name)
    lengths = made.frame["market"].value_counts().tolist()
    span = " to ".join(str(length) for length in sorted({min(lengths), max(lengths)}))
    media = made.columns["media"]
    show.line(
        f"{len(lengths):,} markets of {span} weeks and {len(media)} channels in {out}; "
        f"{made.frame[media].to_numpy().sum():,.0f} euro spent, {made.frame['sales'].sum():,.0f} euro of sales.",
        error=False,
    )
    if truth is not None:
        show.line(f"What is true of each market and channel is in {truth}.", error=False)
    show.line(f"Next: pelton init media-mix {out}", style="dim", error=False)


def example(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which table; without it, all are listed.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV file to write; without it, the table is printed.")
    ] = None,
) -> None:
    # The help text is given where the command is registered.
    from pelton.examples import EXAMPLES, text

    if name is None:
        for known, (what, (unit, trials, successes)) in EXAMPLES.items():
            show.line(f"{known}: {what}", style="bold", error=False)
            show.line(
                f"  pelton fit example:{known} --successes {successes} --trials {trials} --unit {unit}",
                error=False,
            )
        return
    table = text(name)
    if out is None:
        typer.echo(table, nl=False)
        return
    with _aside(_check_file(out)) as scratch:
        (scratch / out.name).write_text(table, encoding="utf-8")
    show.line(f"The table {name!r} is in {out}.", error=False)


def _write(frame: "pd.DataFrame", path: Path) -> None:
    """As Parquet where the name says so, else as CSV."""
    if path.suffix.lower() in (".parquet", ".pq"):
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)


def _check_file(out: Path) -> Path:
    """The folder of a file that is to be written, once it is known that it can be."""
    from pelton.engine.errors import OutputError
    from pelton.report.write import check_output

    if not out.name:
        raise OutputError(f"cannot write to {str(out)!r}: it is no file name; give one such as stores.csv")
    return check_output(out.parent, [out.name])


def _aside(folder: Path) -> AbstractContextManager[Path]:
    from pelton.report.write import aside

    return aside(folder)
