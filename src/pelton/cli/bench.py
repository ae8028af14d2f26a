"""`pelton bench`: pelton beside its rivals, on this machine."""

from pathlib import Path
from typing import Annotated

import typer

HELP = """Compare pelton with its rivals: right answers first, then effective draws per second.

Each rival runs in an environment of its own, which --install makes. Without CASES, all but the largest run; a family's
name, such as stores, stands for all of it. Results are added to benchmarks/results/suite.jsonl; benchmarks/report.html,
the README's table and docs/benchmarks.md are written from what is stored there.

Examples:

  pelton bench --install

  pelton bench stores-40 markets --repeats 3

  pelton bench stores-40 --rivals emcee --rivals numpyro

  pelton bench eight-schools --rivals numpyro --chains 4 --chains 64

  pelton bench stores-40 --against HEAD~5

  pelton bench --list
"""


def bench(
    cases: Annotated[list[str] | None, typer.Argument(metavar="[CASES]...", help="What to run.")] = None,
    rivals: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Rival beside pelton; may be repeated. (default: all)")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|gpu", help="Where pelton runs.")] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Processes of each system; the median counts.")] = 3,
    chains: Annotated[
        list[int] | None, typer.Option(metavar="N", help="A run of each system at N chains; may be repeated.")
    ] = None,
    install: Annotated[bool, typer.Option("--install", help="Make the rivals' environments, and stop.")] = False,
    against: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Compare this checkout with another commit instead.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List cases and rivals, and stop.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another file of results; then no page is written.")
    ] = None,
) -> None:
    # The help text is given where the command is registered.
    from pelton.benchmarks import environments, suite
    from pelton.benchmarks.cases import CASES

    chosen = [environments.known(name) for name in rivals or []]
    if install:
        for name in chosen or environments.names():
            typer.echo(f"{name}: {environments.install(name) or 'ready'}")
    elif listing:
        for case in CASES:
            systems = ", ".join(system.name for system in case.systems)
            typer.echo(f"{case.name}: {case.title}{' (only where named)' if case.opt_in else ''}: {systems}")
        for name in environments.names():
            typer.echo(f"{name}: {environments.reason(name) or 'ready'}")
    elif against is not None:
        suite.compare(against, cases or [], repeats=repeats, store=save or suite.STORE)
    else:
        suite.run(
            cases or [],
            rivals=chosen,
            repeats=repeats,
            device=device,
            chains=chains or [],
            store=save or suite.STORE,
            pages=save is None,
        )
