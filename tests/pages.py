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
# Python and commands in the order of the page; a comment that begins with "run first" is run and not shown, and what
# needs other libraries, devices or hosts stands below a comment with the file of the test that runs it.
BLOCK = re.compile(
    r"<!-- run by (\S+) -->\n+```\w+\n(.*?)```|```(python|sh)\n(.*?)```|<!-- run first\n(.*?)-->", re.DOTALL
)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")


def blocks(page, hidden=True):
    """(kind, code) of each block that a reader runs in order, those not shown among them."""
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        other, _, kind, code, first = match.groups()
        if not other and (kind or hidden):
            found.append((kind or "python", code or first))
    return found


def elsewhere(page):
    """(file of the test, code) of each block that a test of its own runs."""
    return [match[:2] for match in BLOCK.findall(page.read_text(encoding="utf-8")) if match[0]]


def blocks_for(test, page):
    """The code of each block of a page that a test runs, given the test's file."""
    name = Path(test).resolve().relative_to(ROOT).as_posix()
    return [code for file, code in elsewhere(DOCS / page) if file == name]


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
