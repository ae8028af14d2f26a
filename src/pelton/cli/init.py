"""`pelton init`: writes a commented config for a table, with its columns guessed and every option explained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pelton.cli import show

if TYPE_CHECKING:
    from pelton.cli.guess import Guess, GuessedChannel
    from pelton.cli.template import Span
    from pelton.models.panel import Panel

HELP = "Write a config for a table, to be read and then given to `pelton fit`."
MEDIA_MIX_HELP = """Write a commented config of a media mix, with the table's columns guessed.

DATA is a CSV, TSV or Parquet file with one row per geo and date, or per date.
The config says what was guessed, what was left out and why, and explains every option.

Example:

  pelton init media-mix sales.csv --out mix.toml

  pelton fit sales.csv --model media-mix --config mix.toml
"""
COUNTRY_MIX_HELP = """Write a config of the hierarchical country model, with the table's columns guessed.

Example:

  pelton init country-mix countries.csv --out countries.toml

  pelton fit countries.csv --model country-mix --config countries.toml
"""

Data = Annotated[str, typer.Argument(metavar="DATA", help="CSV, TSV or Parquet file.")]
Out = Annotated[Path, typer.Option(metavar="FILE", help="TOML file to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


def media_mix(data: Data, *, out: Out = Path("mix.toml"), force: Force = False) -> None:
    # The help text is given where the command is registered.
    _write(data, out, force, "media_mix")


def country_mix(data: Data, *, out: Out = Path("mix.toml"), force: Force = False) -> None:
    # The help text is given where the command is registered.
    _write(data, out, force, "country_mix")


def _write(data: str, out: Path, force: bool, kind: str) -> None:
    from pelton.cli.guess import guess
    from pelton.cli.tables import Columns, read_table
    from pelton.cli.template import template
    from pelton.engine.errors import OutputError, PeltonError
    from pelton.models.media_config import parse_config
    from pelton.report.write import aside, check_output

    if not out.name:
        raise OutputError(f"cannot write to {str(out)!r}: it is no file name; give one such as mix.toml")
    if out.exists() and not force:
        raise OutputError(
            f"{str(out)!r} exists already and is left as it is; give another --out, or --force to replace it"
        )
    folder = check_output(out.parent, [out.name])
    # As text, where 007 and 7 are two stores.
    texts, notes = read_table(data, lambda header: Columns((), tuple(header)))
    found = guess(texts) if kind == "media_mix" else guess(texts).media_alone()
    panel = None
    labels = tuple(name for name in (found.time, found.geo) if name is not None)
    frame, _ = read_table(data, lambda header: Columns(tuple(name for name in header if name not in labels), labels))
    text = template(data, out.name, kind, found, None, {})
    try:
        with show.collected(notes):
            config = parse_config(text, out)
            panel = config.panel(frame)
            text = template(data, out.name, kind, found, _span(panel), {})
            model = parse_config(text, out).model(panel)
            if kind == "media_mix":
                text = template(data, out.name, kind, found, _span(panel), model.priors)
    except PeltonError as error:
        notes.append(f"with these guesses the table cannot be fitted yet: {error}")
    with aside(folder) as scratch:
        (scratch / out.name).write_text(text, encoding="utf-8")
    for note in notes:
        show.note(note)
    _print(data, out, kind, found, panel)


def _span(panel: "Panel") -> "Span":
    from pelton.cli.template import Span
    from pelton.report.wording import count

    weeks = panel.weeks
    longest, shortest = int(weeks.max()), int(weeks.min())
    length = count(longest, panel.period) if longest == shortest else f"{shortest:,} to {count(longest, panel.period)}"
    said = f"{count(len(panel.geos), 'geo')} with {length}, from {panel.dates[0]} to {panel.dates[-1]}"
    return Span(panel.period, shortest, longest, longest * panel.period_days / 364, said)


def _print(data: str, out: Path, kind: str, found: "Guess", panel: "Panel | None") -> None:
    """What was guessed, and what to do next."""
    from rich.table import Table
    from rich.text import Text

    from pelton.report.wording import visible

    def channel(one: "GuessedChannel") -> str:
        columns = [name for name in (one.media, one.spend) if name is not None]
        return one.name if columns == [one.name] else f"{one.name} ({', '.join(columns)})"

    rows = {
        "dates": found.time or "? fill in time",
        "geos": found.geo or ("none" if panel is not None else "?"),
        "target": found.target or "? fill in target",
        "channels": ", ".join(map(channel, found.channels)) or "? add them",
        "controls": ", ".join(found.controls),
        "events": ", ".join(found.events),
        "population": found.population or "",
        "left out": ", ".join(found.left_out),
    }
    console = show.console()
    head = f"{visible(data)}: {_span(panel).words}" if panel is not None else visible(data)
    console.print(Text(head, style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, visible(value))
    console.print(table)
    show.line(f"Guessed, and written to {out} with every option explained.", error=False)
    show.line(
        f"Next: read {out}, then: pelton fit {data} --model {kind.replace('_', '-')} --config {out}",
        style="dim",
        error=False,
    )
