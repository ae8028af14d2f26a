"""Runs commands that must end well, or with status 2 and one line."""

import re
import warnings

from typer.testing import CliRunner

from pelton.cli.main import app
from pelton.engine.errors import PeltonWarning

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def run(tally, *args):
    """Runs `pelton ARGS`: status 0, or 2 and one line on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PeltonWarning)
        result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    assert not CONTROL.search(result.output), repr(CONTROL.search(result.output))
    if result.exit_code == 0:
        tally.fitted += 1
    else:
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        lines = result.stderr.split("\n")
        assert lines[-1] == ""
        assert len(lines) == 2, result.stderr
        assert lines[0].startswith("pelton: ")
        tally.refuse("status 2", lines[0])
    return result
