"""Runs the code of a Markdown page as a reader would: its Python in one namespace, its `pelton` commands, in order."""

import re
import shlex
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from pelton.cli.main import app
from pelton.engine.errors import ConvergenceWarning

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Python and commands in the order of the page; a comment that begins with "run first" is run and not shown.
BLOCK = re.compile(
    r"```(python|sh)\n(.*?)```|<!-- run first\n(.*?)-->|<!-- (not run): (.*?) -->\n+```\w+\n.*?```", re.DOTALL
)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")


def blocks(page):
    """(kind, code) of each block that is to be run."""
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        kind, code, hidden, skipped, _ = match.groups()
        if not skipped:
            found.append((kind or "python", code or hidden))
    return found


def pictures(page):
    """(alternative text, path from docs/) of each picture of a page."""
    return PICTURE.findall(page.read_text(encoding="utf-8"))


def run(page):
    """Runs a page in the current folder.

    Returns:
        The names that its Python leaves.
    """
    scope: dict = {"__name__": "__page__"}
    for kind, code in blocks(page):
        if kind == "sh":
            for line in commands(code):
                result = CliRunner().invoke(app, line)
                assert result.exit_code == 0, f"{page.name}: pelton {shlex.join(line)}\n{result.output}"
            continue
        with warnings.catch_warnings():
            # A page of few draws may say so; what libraries of plots warn of is not the page's.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", module="arviz|matplotlib|xarray")
            exec(compile(code, page.name, "exec"), scope)
        plt.close("all")
    return scope


def commands(code):
    """The arguments of each `pelton` command of a shell block; other commands are not ours to run."""
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("pelton ")]


def alternatives(page):
    """Fails where a picture has no words for those who cannot see it."""
    for words, path in pictures(page):
        if len(words) < 15:
            pytest.fail(f"{page.name}: {path} needs an alternative text that says what it shows, not {words!r}")
