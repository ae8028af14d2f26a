"""The README's Python runs as it stands, and importing pelton loads no numerical library."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pelton
from pelton.cli.main import app
from pelton.engine.errors import ConvergenceWarning
from tests import pages

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.long
def test_the_readmes_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        scope: dict = {}
        with warnings.catch_warnings():
            # A transition or two in thousands may diverge on one machine and not on the next.
            warnings.simplefilter("ignore", ConvergenceWarning)
            exec(compile(block, "README.md", "exec"), scope)
        found = scope["tree"].attrs
        assert found["worst_rhat"] <= 1.01
        assert found["least_ess_bulk"] >= 400
        assert found["divergences"] <= 8


def _commands():
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [command for block in blocks for command in pages.commands(block)]


@pytest.mark.long
@pytest.mark.parametrize("part", ["rates", "media"])
def test_the_readmes_commands_run(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores = pelton.simulate_stores(12).rename(columns={"conversions": "sales", "impressions": "visits"})
    stores.to_csv("stores.csv", index=False)
    stores.to_csv("next_month.csv", index=False)
    commands = _commands()
    start = next(at for at, command in enumerate(commands) if command[0] == "simulate")
    if part == "rates":
        other = [*commands[0], "--prior", "bda", "--out", "other-run"]
        commands = [commands[0], other, *commands[1:start]]
    else:
        commands = commands[start:]
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, f"pelton {' '.join(command)}: {result.output}"


def test_importing_pelton_loads_nothing_heavy():
    code = (
        "import sys, pelton\n"
        "assert pelton.__version__\n"
        "heavy = {'jax', 'numpy', 'numpyro', 'arviz', 'pandas', 'xarray', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
