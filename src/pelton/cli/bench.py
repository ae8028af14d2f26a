"""`pelton bench`: our samplers beside their rivals, on this machine."""

from pathlib import Path
from typing import Annotated

import typer

STORES_HELP = """Compare samplers on simulated stores: right answers, and effective draws per second.

The rival, in the same run, is a Metropolis-within-Gibbs sampler in NumPy, as published and corrected.

Examples:

  pelton bench stores

  pelton bench stores --stores 1000000 --memory
"""


def stores(
    *,
    number: Annotated[
        str,
        typer.Option("--stores", metavar="N", help="How many simulated stores, or a file of their counts."),
    ] = "40",
    sampler: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Sampler to run; may be repeated. (default: all)")
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Runs of each sampler; the median counts.")] = 3,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON-lines file to append the results to.")] = None,
    cold: Annotated[bool, typer.Option(help="Also time fresh processes, compiling included.")] = True,
    memory: Annotated[bool, typer.Option(help="Also measure the memory of a run with unit summaries.")] = False,
) -> None:
    # The help text is given where the command is registered.
    from pelton.benchmarks.stores import run_and_print
    from pelton.engine.samplers import REGISTRY

    chosen = list(dict.fromkeys(sampler)) if sampler else list(REGISTRY)
    status = run_and_print(int(number) if number.isdigit() else number, chosen, repeats, save, cold=cold, memory=memory)
    if status:
        raise typer.Exit(int(status))
