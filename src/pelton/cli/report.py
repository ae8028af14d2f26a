"""`pelton report`: writes the report of a run anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pelton.cli import show
from pelton.cli.runs import kind, posterior_file, problems, read_tree, remember, remembered

if TYPE_CHECKING:
    import xarray as xr

HELP = """Write report.html, the tables and the pictures of a run anew, from its draws alone.

RUN is a folder that `pelton fit` wrote, or its posterior.nc. Nothing is fitted again: use it with another --top,
--threshold or --budget, or after an update of pelton. What is not given stays as the fit had it.

Examples:

  pelton fit example:categories --successes clicks --trials impressions --unit category --out categories

  pelton report categories --budget 1000000

  pelton report categories/posterior.nc --top 3 --out short

Exit status: 0 done; 2 something is wrong with the run or the settings.
"""


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a fit, or its posterior.nc.")],
    *,
    top: Annotated[int | None, typer.Option(metavar="K", help="Rates: P(among the K best).")] = None,
    threshold: Annotated[float | None, typer.Option(metavar="RATE", help="Rates: P(rate above this).")] = None,
    budget: Annotated[float | None, typer.Option(metavar="SUM", help="Rates: split this sum by the rates.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the results. (default: RUN)")] = None,
    quiet: show.Quiet = False,
    as_json: show.Json = False,
) -> None:
    # The help text is given where the command is registered.
    from pelton.engine.errors import ArgumentError

    file = posterior_file(run)
    folder = file.parent if out is None else out
    tree = read_tree(file)
    what = kind(tree, file)
    given = {"top": top, "threshold": threshold, "budget": budget}
    given = {name: value for name, value in given.items() if value is not None}
    stored = remembered(tree)
    notes: list[str] = [str(note) for note in stored.get("notes", [])]
    said = {"notes": notes, "source": str(stored.get("source", ""))}
    with show.collected(notes):
        if what == "rates":
            files = _rates(tree, folder, {**stored, **given}, said)
        elif given:
            raise ArgumentError(
                f"--{next(iter(given))} belongs to rates, and {run!r} is a media mix; see `pelton allocate`"
            )
        else:
            from pelton.report.media import write_media_report

            files = write_media_report(tree, folder, **said)
    for text in dict.fromkeys(notes):
        show.note(text)
    wrong = problems(tree)
    if as_json:
        show.machine(
            {
                "command": "report",
                "model": what,
                "converged": not wrong,
                "problems": wrong,
                "notes": notes,
                "files": files,
            }
        )
    elif not quiet:
        show.line(f"The report of {run} is in {folder / 'report.html'}.", error=False)
    if wrong and not as_json:
        show.line("NOT CONVERGED: do not use these figures yet; the report says why.", style="bold white on red")


def _rates(tree: "xr.DataTree", folder: Path, decided: dict[str, Any], said: dict[str, Any]) -> list[Path]:
    from pelton.cli.fit_rates import check_decisions
    from pelton.report import write_report

    top = decided.get("top") or 10
    threshold, budget = decided.get("threshold"), decided.get("budget")
    check_decisions(top, threshold, budget)
    remember(tree, decided)
    return write_report(tree, folder, top=top, threshold=threshold, budget=budget, **said)
