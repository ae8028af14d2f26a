"""`pelton allocate`: the split of a budget over geos and channels that a fitted media mix expects most of."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pelton.cli import show
from pelton.cli.runs import posterior_file, read_tree

if TYPE_CHECKING:
    from rich.table import Table

    from pelton.models.allocation import Allocation
    from pelton.models.response import Response
    from pelton.report.media_numbers import Media

HELP = r"""Split a budget over geos and channels for the best expected response.

RUN is a folder that `pelton fit --model media-mix` wrote, or its posterior.nc.
The split is compared with today's and with shares in proportion to ROAS.
Bounds are multiples of today's spend (the mean of a geo's last year), LOW:HIGH, either end may be left out.

Examples:

  pelton allocate pelton-out/sales --budget 500000

  pelton allocate pelton-out/sales --budget 500000 --periods 13 \
      --channel-bounds tv=0.5:1.5 --geo-bounds PL=0.8: --fix DE/radio=20000

  pelton allocate pelton-out/sales --budget 500000 \
      --bounds 0.7:1.3 --objective 0.1

Exit status: 0 done; 2 something is wrong with the run or the settings.
"""
# Lines in the table of the terminal; allocation.csv has all.
MAX_LINES = 60
QUARTER = 365.25 / 4

_BOUNDS = "NAME=LOW:HIGH"


def allocate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a fitted media mix, or its posterior.nc.")],
    *,
    budget: Annotated[float, typer.Option(metavar="SUM", help="Money to split over the periods.")],
    periods: Annotated[
        int | None,
        typer.Option(metavar="N", help="Weeks (days, months) that the money is for. (default: a quarter's, 13 weeks)"),
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Of every channel in every geo, as multiples of today's spend."),
    ] = None,
    channel_bounds: Annotated[
        list[str] | None, typer.Option(metavar=_BOUNDS, help="Of a channel's total over geos; may be repeated.")
    ] = None,
    geo_bounds: Annotated[
        list[str] | None, typer.Option(metavar=_BOUNDS, help="Of a geo's total over channels; may be repeated.")
    ] = None,
    line_bounds: Annotated[
        list[str] | None,
        typer.Option(metavar="GEO/CHANNEL=LOW:HIGH", help="Of one channel in one geo; may be repeated."),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=SUM]",
            help="Keep GEO/CHANNEL at a sum over the periods, or at today's spend where no sum is given; so also a "
            "channel or a geo. May be repeated.",
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(metavar="NAME", help="mean, or a probability such as 0.1 for the cautious quantile.")
    ] = "mean",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the solver's random starts.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the results. (default: RUN)")] = None,
    quiet: show.Quiet = False,
    as_json: show.Json = False,
) -> None:
    # The help text is given where the command is registered.
    from pelton.models import allocation
    from pelton.models.response import Response
    from pelton.report.media import ALLOCATION, ALLOCATION_PICTURES, PLANS, write_allocation
    from pelton.report.media_numbers import Media
    from pelton.report.write import check_output

    file = posterior_file(run, "pelton fit --model media-mix")
    folder = check_output(file.parent if out is None else out, [ALLOCATION, PLANS, *ALLOCATION_PICTURES])
    tree = read_tree(file)
    known = Response.of(tree)
    limits: dict[Any, tuple[float | None, float | None]] = {}
    for option, texts in (("channel", channel_bounds), ("geo", geo_bounds), ("line", line_bounds)):
        for text in texts or ():
            key, ends = _named_ends(text, option, known)
            limits[key] = ends
    every = None if bounds is None else _ends(bounds, f"--bounds {bounds}")
    notes: list[str] = []
    with show.collected(notes):
        found = allocation.allocate(
            known,
            budget,
            periods=max(1, round(QUARTER / float(known.settings["period_days"]))) if periods is None else periods,
            bounds=_joined(every, limits, known),
            fixed=_fixed(fix or (), known),
            objective=_objective(objective),
            seed=seed,
        )
    named = Media(tree, known)
    files = write_allocation(found, folder, target=named.target, period=named.period)
    for note in dict.fromkeys((*notes, *found.notes)):
        show.note(note)
    if as_json:
        show.machine(
            {
                "command": "allocate",
                "budget": budget,
                "lines": show.records(found.table),
                "plans": show.records(found.plans),
                "notes": list(dict.fromkeys((*notes, *found.notes))),
                "files": files,
            }
        )
    elif not quiet:
        with show.collected([]):
            _print(found, named, files)


def _ends(text: str, where: str) -> tuple[float | None, float | None]:
    """(lowest, highest) from LOW:HIGH.

    >>> _ends("0.5:1.5", ""), _ends(":2", "")
    ((0.5, 1.5), (None, 2.0))
    """
    from pelton.engine.errors import ArgumentError

    low, colon, high = text.partition(":")
    try:
        ends = tuple(float(end) if end.strip() else None for end in (low, high))
    except ValueError:
        colon = ""
        ends = (None, None)
    if not colon:
        raise ArgumentError(f"{where}: bounds are LOW:HIGH, multiples of today's spend such as 0.5:1.5, not {text!r}")
    return ends[0], ends[1]


def _named_ends(text: str, option: str, known: "Response") -> tuple[Any, tuple[float | None, float | None]]:
    """What a bound names, and its ends; the name may hold an equals sign."""
    from pelton.engine.errors import ArgumentError, UnknownNameError

    where = f"--{option}-bounds {text}"
    name, equals, ends = text.rpartition("=")
    if not equals:
        raise ArgumentError(f"{where}: write {'GEO/CHANNEL' if option == 'line' else 'NAME'}=LOW:HIGH")
    if option == "line":
        return _line(name, where, known), _ends(ends, where)
    names = known.channels if option == "channel" else known.geos
    if name not in names:
        raise UnknownNameError(f"{option} in {where}:", name, names)
    return name, _ends(ends, where)


def _line(text: str, where: str, known: "Response") -> tuple[str, str]:
    """(geo, channel) from GEO/CHANNEL; a name may hold a slash."""
    from pelton.engine.errors import ArgumentError, UnknownNameError

    places = [place for place, letter in enumerate(text) if letter == "/"]
    pairs = [(text[:place], text[place + 1 :]) for place in places]
    if not pairs:
        raise ArgumentError(f"{where}: {text!r} is no GEO/CHANNEL; the geos are {', '.join(known.geos)}")
    for geo, channel in pairs:
        if geo in known.geos and channel in known.channels:
            return geo, channel
    geo, channel = pairs[0]
    if geo not in known.geos:
        raise UnknownNameError(f"geo in {where}:", geo, known.geos)
    raise UnknownNameError(f"channel in {where}:", channel, known.channels)


def _joined(every: Any, limits: dict[Any, Any], known: "Response") -> Any:
    """Bounds of every line and of named ones as one argument; a line's own take the place of the general ones."""
    if every is None or not limits:
        return every if every is not None else limits
    lines: dict[Any, Any] = {(geo, channel): every for geo in known.geos for channel in known.channels}
    spent = known.recent_spend() > 0
    for g, geo in enumerate(known.geos):
        for c, channel in enumerate(known.channels):
            if not spent[g, c]:
                del lines[geo, channel]
    return lines | limits


def _fixed(texts: Iterable[str], known: "Response") -> dict[Any, float | None] | None:
    """Lines, channels and geos that stay as they are or at a sum."""
    from pelton.engine.errors import ArgumentError, UnknownNameError

    found: dict[Any, float | None] = {}
    for text in texts:
        where = f"--fix {text}"
        name, equals, amount = text.rpartition("=") if text not in (*known.geos, *known.channels) else (text, "", "")
        name = name if equals else text
        try:
            money = float(amount) if equals else None
        except ValueError:
            raise ArgumentError(f"{where}: {amount!r} is no sum of money; write GEO/CHANNEL=20000") from None
        if name in (*known.geos, *known.channels):
            key: Any = name
        elif "/" in name:
            key = _line(name, where, known)
        else:
            raise UnknownNameError(f"geo or channel in {where}:", name, (*known.geos, *known.channels))
        if key in found:
            raise ArgumentError(f"{where}: {name!r} is fixed already")
        found[key] = money
    return found or None


def _objective(text: str) -> str | float:
    from pelton.engine.errors import ArgumentError

    if text == "mean":
        return text
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(
            f"--objective is mean, or the probability of a quantile such as 0.1, not {text!r}"
        ) from None


def _print(found: "Allocation", named: "Media", files: list[Path]) -> None:
    """Each line's money by plan, and what each plan brings."""
    from rich.padding import Padding
    from rich.text import Text

    from pelton.report.media import ALLOCATION, FILES, PLANS
    from pelton.report.media_allocation import sentence
    from pelton.report.media_axes import amount, amounts
    from pelton.report.wording import probability, shorten, visible

    console = show.console()
    console.print(Padding(Text(sentence(found, named.target, named.period)), (0, 0, 0, 2)))
    console.print()
    console.print(_lines(found, len(named.known.geos) == 1))
    if len(found.table) > MAX_LINES:
        console.print(Text(f"  ... and {len(found.table) - MAX_LINES:,} more lines in {ALLOCATION}", style="dim"))
    names = {"today": "today's split", "optimum": "optimum", "proportional": "in proportion to ROAS"}
    rows = []
    for plan, name in names.items():
        row = found.plans.loc[plan]
        gain = "–" if plan == "today" else f"{amount(row['gain_mean'], sign=True)}"
        ends = "" if plan == "today" else amounts(row["gain_low"], row["gain_high"])
        better = "" if plan == "today" else probability(row["p_better"])
        allowed = "yes" if row["within_bounds"] else "no"
        response = (amount(row["response_mean"]), amounts(row["response_low"], row["response_high"]))
        rows.append((name, *response, gain, ends, better, allowed))
    target = shorten(visible(named.target), 30)
    head_row = ("plan", target, "94% interval", "more than today", "94% interval", "P(more)", "within bounds")
    console.print(show.table("What each split of the budget brings", head_row, rows))
    show.files(files, {name: FILES[name] for name in (ALLOCATION, PLANS)})


def _lines(found: "Allocation", one_geo: bool) -> "Table":
    """Lines with most money first: today's spend, and the budget split as today, by ROAS and at the optimum."""
    import numpy as np

    from pelton.report.media_axes import Ratios, amount
    from pelton.report.wording import shorten, visible

    records: Any = found.table.reset_index().to_dict("records")
    splits = [np.array([line[name] for line in records]) for name in ("today", "as_today", "by_roas", "spend")]
    today, spend = splits[0], splits[-1]
    order = [at for at in np.argsort(-spend, kind="stable") if spend[at] > 0 or today[at] > 0][:MAX_LINES]
    write = Ratios([0.02 * max(1e-9, *(line["marginal"] for line in records))])
    rows = []
    for at in order:
        line = records[at]
        label = [shorten(visible(line[name]), 30) for name in ("geo", "channel")]
        marks = [line["held"], "beyond what was seen" if line["beyond"] else ""]
        figures = [amount(float(split[at])) for split in splits]
        rows.append((*label, *figures, write(line["marginal"]), ", ".join(filter(None, marks))))
    heads = ["geo", "channel", "today", "budget as today", "by ROAS", "optimum", "next unit returns", ""]
    start = int(one_geo)
    return show.table("Money by line", heads[start:], [row[start:] for row in rows])
