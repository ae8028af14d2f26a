"""`pelton fit --approximate`: what it says, how it fails, what it refuses."""

from pathlib import Path

import arviz as az
import pandas as pd
import pytest

from pelton.engine import approximate as front
from tests.cli.conftest import FIXED

CATEGORIES = ("example:categories", "--successes", "clicks", "--trials", "impressions", "--unit", "category")


@pytest.mark.long
def test_an_approximation_is_called_one(run):
    result = run("fit", *CATEGORIES, "--approximate", "laplace", "--draws", "1000", "--out", "there", "--strict")
    assert result.exit_code == 0, result.output
    assert "An approximation by laplace, not the posterior itself: Pareto k-hat 0." in result.stdout
    assert "onverged" not in result.stdout
    page = Path("there/report.html").read_text(encoding="utf-8")
    assert "An approximation." in page
    assert "fast approximation to the posterior (laplace) and not from sampling it" in page
    assert "The draws converged" not in page
    assert not Path("there/traces.png").exists()
    assert len(pd.read_csv("there/units.csv")) == 25
    with az.from_netcdf("there/posterior.nc") as tree:
        assert tree["posterior"].sizes["chain"] == 1
        assert tree.attrs["approximation"] == "laplace"
        assert tree.attrs["khat"] < 0.7


def test_a_bad_approximation_fails_where_it_must(run, monkeypatch):
    """A limit that no approximation keeps."""
    monkeypatch.setattr(front, "MAX_KHAT", -10.0)
    args = ("fit", *CATEGORIES, "--approximate", "laplace", "--draws", "1000")
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert "NOT CONVERGED" in result.stdout
    assert "An approximation by laplace" in result.stdout
    assert "sample it instead" in result.stdout
    page = Path("pelton-out/categories/report.html").read_text(encoding="utf-8")
    assert "NOT CONVERGED" in page
    assert "An approximation." in page
    assert run(*args, "--strict", "--quiet").exit_code == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--approximate", "laplce"), "did you mean 'laplace'"),
        (("--approximate", "map"), "Known: advi, laplace, pathfinder"),
        (("--approximate", "laplace", "--chains", "2"), "--chains goes not with an approximation"),
        (("--approximate", "laplace", "--sampler", "nuts"), "--sampler goes not with an approximation"),
        (("--approximate", "laplace", "--hold-out", "2"), "--hold-out goes not with an approximation"),
        (("--approximate", "laplace", *FIXED), "nothing unknown to approximate"),
    ],
)
def test_refusals(refuses, args, words):
    assert words in refuses("fit", *CATEGORIES, *args)
