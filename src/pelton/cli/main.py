"""The `pelton` command: its subcommands, and how errors end."""

import contextlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pelton.cli import allocate, bench, compare, doctor, files, fit, init, predict, rate, report, show
from pelton.engine.errors import PeltonError

USER_ERROR = 2
INTERRUPTED = 130


class Group(TyperGroup):
    """Ends errors that a user can cause with one line and status 2, and Ctrl-C with a word and status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PeltonError as error:
            show.fail(str(error))
        except KeyboardInterrupt:
            show.fail("interrupted; results that were not complete have not been written")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output has gone; typer ends quietly.
            raise
        except OSError as error:
            where = f"{error.filename!r}: " if error.filename else ""
            show.fail(f"{where}{error.strerror or error}")
        except MemoryError:
            show.fail("out of memory; take fewer draws (--draws), or fit a sample of the units")
        raise typer.Exit(USER_ERROR)


app = typer.Typer(
    name="pelton",
    cls=Group,
    help="Rates of many units from successes and trials, each drawn towards what all have in common, "
    "and media mixes over geos and weeks.\n\n"
    "Start with:\n\n  pelton fit example:categories --successes clicks \\\n      --trials impressions --unit category"
    "\n\n  pelton init media-mix sales.csv\n\n  pelton doctor\n\n"
    "Exit status of every command: 0 done; 1 a defect of pelton itself, or of a device (doctor), or a wrong answer "
    "(bench); 2 something is wrong with the data or the settings; 3 not converged (with --strict); 130 interrupted.\n\n"
    "Completion of names by the Tab key: pelton --install-completion.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(help=fit.HELP)(fit.fit)
app.command(help=allocate.HELP)(allocate.allocate)
app.command(help=predict.HELP)(predict.predict)
app.command(help=compare.HELP)(compare.compare)
app.command(help=report.HELP)(report.report)
app.command(help=rate.HELP)(rate.rate)
app.command(help=files.EXAMPLE_HELP)(files.example)
app.command(help=doctor.HELP)(doctor.doctor)
app.command(help=bench.HELP)(bench.bench)

init_app = typer.Typer(help=init.HELP, no_args_is_help=True)
init_app.command("media-mix", help=init.MEDIA_MIX_HELP)(init.media_mix)
init_app.command("country-mix", help=init.COUNTRY_MIX_HELP)(init.country_mix)
app.add_typer(init_app, name="init")

simulate_app = typer.Typer(help="Write simulated data with known truth.", no_args_is_help=True)
simulate_app.command("stores", help=files.SIMULATE_HELP)(files.stores)
simulate_app.command("markets", help=files.MARKETS_HELP)(files.markets)
app.add_typer(simulate_app, name="simulate")


# One command alone would lose its name, and a group may have one for now.
@simulate_app.callback()
def _simulate() -> None:
    """Write simulated data with known truth."""


def _version(wanted: bool) -> None:
    if wanted:
        from pelton import __version__

        typer.echo(f"pelton {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # The help text is that of the app.
    del version


def main() -> None:
    """Runs the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a letter shows its code; nothing fails for want of one.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    app()


if __name__ == "__main__":
    main()
