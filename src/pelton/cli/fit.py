"""`pelton fit`: a table goes in; a checked posterior, decisions, pictures and a report come out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pelton.cli import show

NOT_CONVERGED = 3
MODELS = ("rates", "media-mix", "country-mix")

HELP = r"""Fit a model to a table and write posterior, tables, pictures and a report.

Rates, the default: each unit's rate is drawn towards the population that all units come from.
DATA is a CSV, TSV or Parquet file with one row per unit (a store, a category, a campaign ...),
or a table that comes with pelton: example:categories, example:stores.

Media mix: what each channel brought, with carryover and saturation, over geos and weeks.
DATA has one row per geo and date; `pelton init media-mix DATA` writes its config.

Examples:

  pelton fit example:categories --successes clicks \
      --trials impressions --unit category --budget 48000000

  pelton fit stores.csv --successes sales --trials visits \
      --unit store --top 5 --out results

  pelton fit shops.parquet --successes orders \
      --trials sessions --unit shop --groups region

  pelton fit sales.csv --model media-mix --config mix.toml

  pelton fit sales.csv --model media-mix --config mix.toml --resume

  pelton fit 'stores/*.parquet' --stream --successes orders \
      --trials sessions --unit shop

While chains run, their draws go to run.zarr among the results; after a crash, a power cut or Ctrl-C
the same command with --resume goes on there.

Exit status: 0 done; 2 something is wrong with the data or the settings;
3 not converged, or approximated too far from the posterior (with --strict); 130 interrupted.
"""
RATES, MEDIA, SAMPLING, HOSTS = "Rates", "Media mix", "Sampling", "Large data"


def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="CSV, TSV or Parquet file, or example:NAME.")],
    *,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="rates, media-mix, or country-mix (the hierarchical country model).")
    ] = "rates",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results. (default: pelton-out/NAME, NAME that of DATA)"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 3 if the draws did not converge.")] = False,
    quiet: show.Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print the diagnostics and how it was computed.")
    ] = False,
    as_json: show.Json = False,
    successes: Annotated[
        str | None,
        typer.Option(
            metavar="COL", help="Column of successes: clicks, sales, sign-ups ... (required)", rich_help_panel=RATES
        ),
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="COL", help="Column of trials: impressions, visits, mails ... (required)", rich_help_panel=RATES
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="COL", help="Column of names. Without it, rows are numbered from 0.", rich_help_panel=RATES
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Prior of the population: default (mean uniform, concentration Pareto 1.5), "
            "gamma-shapes:0.5,0.5, mean-concentration:2,2,1,1.5 (Beta(2, 2) mean; Pareto concentration from 1 with "
            "tail 1.5), bda, or fixed-beta:11.5,48.5.",
            rich_help_panel=RATES,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Column of regions, each with a mean of its own.", rich_help_panel=RATES),
    ] = None,
    segments: Annotated[
        str | None,
        typer.Option(
            metavar="COL", help="Column of questions, each fitted by itself in one go.", rich_help_panel=RATES
        ),
    ] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL", help="Column of numbers that move the rate; may be repeated.", rich_help_panel=RATES
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Tell how probably each unit is among the K best. (default: 10)",
            rich_help_panel=RATES,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Tell how probably each rate exceeds this, 0.05 say.", rich_help_panel=RATES),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SUM", help="Split this sum in proportion to the rates, raw and pooled.", rich_help_panel=RATES
        ),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            metavar="PARTS",
            help="Also predict each unit by a fit without it, in so many parts: calibration.png.",
            rich_help_panel=RATES,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with columns, channels, model and priors; `pelton init media-mix DATA` writes one. "
            "(required)",
            rich_help_panel=MEDIA,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="nuts, numpyro-nuts, chees, meads, mclmc, smc, grid ... (default: what suits the model)",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    approximate: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Instead of sampling, a fast approximation: pathfinder, laplace or advi. Its Pareto k-hat says when "
            "not to trust it.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    chains: Annotated[
        int | None, typer.Option(metavar="N", help="Independent chains. (default: 4)", rich_help_panel=SAMPLING)
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(metavar="N", help="Adapting iterations a chain. (default: 1000)", rich_help_panel=SAMPLING),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(metavar="N", help="Draws a chain. (default: 1000)", rich_help_panel=SAMPLING)
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in DIR/run.zarr that was cut short, or take more draws of it (--draws).",
            rich_help_panel=SAMPLING,
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="The same seed gives the same draws. (default: 0)", rich_help_panel=SAMPLING),
    ] = None,
    target_accept: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Acceptance that the step size aims at; raise it against divergences. (default: 0.8, or more where "
            "the model asks for it)",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    ess: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Stop before --draws once every parameter has N effective draws and an R-hat of at most 1.01.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="cpu, gpu or tpu. (default: an accelerator where there is one and the model is large enough to gain)",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="float32 or float64. (default: float64 on a CPU, float32 on a GPU)",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Rates of units past the memory: read Parquet files in batches, keep histograms alone, and write "
            "the units' rates to units.parquet. DATA may be a folder or a pattern.",
            rich_help_panel=HOSTS,
        ),
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="Share --stream among processes, one a host, that all run this same command; Slurm and Open MPI "
            "tell them of one another, or the next three options.",
            rich_help_panel=HOSTS,
        ),
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where process 0 can be reached.", rich_help_panel=HOSTS),
    ] = None,
    processes: Annotated[int | None, typer.Option(metavar="N", help="Processes in all.", rich_help_panel=HOSTS)] = None,
    process: Annotated[
        int | None, typer.Option(metavar="I", help="Which one this is, from 0.", rich_help_panel=HOSTS)
    ] = None,
) -> None:
    # The help text is given where the command is registered.
    from pelton.cli.draws import check_approximation
    from pelton.cli.fit_media import fit_media
    from pelton.cli.fit_rates import Options, fit_rates
    from pelton.cli.fit_streamed import fit_streamed
    from pelton.cli.fit_together import fit_together
    from pelton.engine.errors import ArgumentError, UnknownNameError

    if model not in MODELS:
        raise UnknownNameError("model", model, MODELS)
    rates = Options(successes, trials, unit, prior, groups, segments, covariate, top, threshold, budget, hold_out)
    sampling: dict[str, Any] = {
        "sampler": sampler,
        "chains": chains,
        "warmup": warmup,
        "draws": draws,
        "seed": seed,
        "target_accept": target_accept,
        "ess": ess,
        "device": device,
        "precision": precision,
        "approximate": approximate,
        "resume": True if resume else None,
    }
    check_approximation(sampling, hold_out)
    if quiet + verbose + as_json > 1:
        raise ArgumentError("--quiet, --verbose and --json exclude one another; give one of them")
    manner = "quiet" if quiet else "verbose" if verbose else "json" if as_json else "plain"
    name = _name(data)
    # Of a file called "...csv" two dots are left, which would be the folder above.
    folder = Path("pelton-out") / (Path(name).stem.strip(".") or "fit") if out is None else out
    meeting = {"coordinator": coordinator, "processes": processes, "process": process}
    if not distributed and any(value is not None for value in meeting.values()):
        raise ArgumentError("--coordinator, --processes and --process say who shares a fit: say --distributed too")
    if model != "rates" and (stream or distributed):
        raise ArgumentError(f"--stream and --distributed belong to rates and not to --model {model}; leave them out")
    if model == "rates":
        _refuse_others(model, {"config": config})
        if distributed:
            converged = fit_together(meeting, data, rates, folder, sampling, manner)
        elif stream:
            converged = fit_streamed(data, rates, folder, sampling, manner=manner)
        else:
            converged = fit_rates(data, name, rates, folder, sampling, manner=manner)
    else:
        _refuse_others(model, vars(rates))
        converged = fit_media(data, name, model, config, folder, sampling, manner=manner)
    if strict and not converged:
        raise typer.Exit(NOT_CONVERGED)


def _refuse_others(model: str, options: dict[str, Any]) -> None:
    """Refuses options that belong to another model, which would otherwise say nothing."""
    from pelton.engine.errors import ArgumentError
    from pelton.report.wording import listed

    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if not given:
        return
    if model == "rates":
        raise ArgumentError(f"{listed(given)} belongs to a media mix; say --model media-mix too")
    verb = "belongs" if len(given) == 1 else "belong"
    remedy = "leave it out" if len(given) == 1 else "leave them out"
    columns = "; the columns of a media mix stand in its config" if {"--successes", "--trials"} & {*given} else ""
    raise ArgumentError(f"{listed(given)} {verb} to rates and not to --model {model}; {remedy}{columns}")


def _name(data: str) -> str:
    from pelton.cli.tables import EXAMPLE

    return data.removeprefix(EXAMPLE) if data.startswith(EXAMPLE) else Path(data).name
