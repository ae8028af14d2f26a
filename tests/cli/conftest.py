"""Runs the command line in this process, where compiled programs are shared between tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pelton.cli.main import app

Run = Callable[..., Any]

# Known shapes of the population: nothing is sampled, so that a test of input or output is quick.
FIXED = ("--prior", "fixed-beta:2,8")
# The length of the warm-up is compiled in, so that all tests have the same; that of the run is not.
SMALL = ("--chains", "2", "--warmup", "500", "--draws", "1000")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `pelton ARGS` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def command(*args: object) -> Any:
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return command


@pytest.fixture
def refuses(run: Run) -> Run:
    """Runs `pelton ARGS`, which must end with status 2 and one line on standard error; gives that line."""

    def command(*args: object) -> str:
        result = run(*args)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = result.stderr.splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("pelton: ")
        return lines[0]

    return command
