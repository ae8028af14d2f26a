"""`pelton rate`: one campaign's rate by a Beta prior and its counts, in closed form."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pelton.cli import show

if TYPE_CHECKING:
    from pelton.models.priors import FixedBeta

HELP = r"""Update a Beta prior by the counts of one campaign.

The posterior is exact: Beta(A + successes, B + trials - successes).
The table also shows what the same share of successes would say of ten, a hundred and a thousand
times the trials; the picture shows prior, likelihood and posterior for each.

Example:

  pelton rate --prior 11.5,48.5 --successes 7 --trials 10
"""
PICTURE = "rate.png"


def rate(
    prior: Annotated[str, typer.Option(metavar="A,B", help="Shapes of the Beta prior; its mean is A / (A + B).")],
    successes: Annotated[int, typer.Option(metavar="K", help="Successes seen.")],
    trials: Annotated[int, typer.Option(metavar="N", help="Trials seen.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the picture.")] = Path("pelton-out"),
    as_json: show.Json = False,
) -> None:
    # The help text is given where the command is registered.
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pelton.models.single_rate import RatePosterior, rate_posterior
    from pelton.report.pictures import CAMPAIGN_TIMES, rate_picture
    from pelton.report.wording import Rates, visible
    from pelton.report.write import aside, check_output

    posterior = rate_posterior(_shapes(prior), successes, trials)
    check_output(out, [PICTURE])
    alpha, beta = posterior.prior.alpha, posterior.prior.beta
    rows = [posterior, *(posterior.at(trials * times) for times in CAMPAIGN_TIMES)]
    write = Rates([row.summary()["sd"] for row in rows])
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for head in ("distribution", "raw", "mean", "sd", "94% interval"):
        table.add_column(head, justify="right", no_wrap=True)
    before = RatePosterior(posterior.prior, 0, 0).summary()
    lines = [("prior", f"Beta({alpha:g}, {beta:g})", "", before)]
    for row in rows:
        name = f"{row.successes:,} of {row.trials:,}"
        lines.append((name, f"Beta({row.alpha:g}, {row.beta:g})", write(row.successes / row.trials), row.summary()))
    for name, shapes, raw, found in lines:
        interval = write.interval(found["low"], found["high"])
        table.add_row(name, shapes, raw, write(found["mean"]), write(found["sd"]), interval)
    with aside(out) as folder:
        rate_picture(posterior).save_png(folder / PICTURE)
    if as_json:
        shown = [
            {"successes": row.successes, "trials": row.trials, "alpha": row.alpha, "beta": row.beta, **row.summary()}
            for row in rows
        ]
        show.machine({"command": "rate", "prior": {"alpha": alpha, "beta": beta, **before}, "posteriors": shown,
                      "files": [out / PICTURE]})  # fmt: skip
        return
    console = show.console()
    console.print(table)
    found = posterior.summary()
    sentence = (
        f"After {successes:,} of {trials:,} the rate is {write(found['mean'])} (94% interval "
        f"{write.interval(found['low'], found['high'])}); before, it was {write(before['mean'])}."
    )
    console.print(Text(sentence, style="bold"))
    console.print(Text(f"Picture: {visible(out / PICTURE)}"), soft_wrap=True)


def _shapes(text: str) -> "FixedBeta":
    """A Beta prior from A,B.

    Raises:
        ArgumentError: not two positive numbers.
    """
    from pelton.engine.errors import ArgumentError
    from pelton.models.priors import FixedBeta

    parts = text.removeprefix("fixed-beta:").split(",")
    try:
        alpha, beta = (float(part) for part in parts)
    except ValueError:
        raise ArgumentError(f"prior is two numbers A,B such as 11.5,48.5, not {text!r}") from None
    return FixedBeta(alpha, beta)
