"""compare, predict, report and doctor, on runs that fit wrote; JSON, quiet and verbose; what goes through a pipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from typer.testing import CliRunner

from pelton.cli.main import app
from tests.cli.conftest import FIXED, SMALL
from tests.models.media_trees import media_tree
from tests.report.test_media_report import full_tree

COLUMNS = ("--successes", "conversions", "--trials", "impressions", "--unit", "store")


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two fits of the stores by different priors, and one of fixed shapes."""
    folder = tmp_path_factory.mktemp("runs")
    for name, prior in (("a", ("--prior", "default")), ("b", ("--prior", "bda")), ("fixed", FIXED)):
        invoke("fit", "example:stores", *COLUMNS, *SMALL, *prior, "--budget", 1000, "--out", folder / name, "--quiet")
    return folder


@pytest.fixture(scope="module")
def media_run(tmp_path_factory):
    """The folder of a made-up media mix."""
    folder = tmp_path_factory.mktemp("mix")
    tree = full_tree()
    for group in tree.children.values():
        group.attrs.clear()
    tree.to_netcdf(folder / "posterior.nc", engine="h5netcdf")
    return folder


def test_compare_ranks_by_leave_one_out(runs, run):
    result = run("compare", runs / "a", runs / "b")
    assert result.exit_code == 0, result.output
    assert "do not tell the two apart" in result.stdout
    found = json.loads(invoke("compare", runs / "a", runs / "b", "--json").stdout)
    assert {row["index"] for row in found["loo"]} == {str(runs / "a"), str(runs / "b")}
    tree = xr.open_datatree(runs / "a" / "posterior.nc", engine="h5netcdf").load()
    mu = next(row for row in found["parameters"] if row["parameter"] == "mu")
    assert mu[f"{runs / 'a'}: mean"] == pytest.approx(float(tree["posterior"]["mu"].mean()), rel=1e-12)
    # The beta-binomial density of each count, averaged over the draws: what leave-one-out exceeds by little.
    k, n = np.asarray(tree["observed_data"]["successes"]), np.asarray(tree["constant_data"]["trials"])
    alpha, beta = (np.asarray(tree["posterior"][name]).ravel()[::10, None] for name in ("alpha", "beta"))
    lppd = np.log(np.exp(stats.betabinom.logpmf(k, n, alpha, beta)).mean(axis=0)).sum()
    row = next(row for row in found["loo"] if row["index"] == str(runs / "a"))
    assert row["elpd"] + row["p"] == pytest.approx(lppd, abs=0.1)


def test_compare_falls_back_to_the_parameters(runs, run):
    result = run("compare", runs / "a", runs / "fixed")
    assert result.exit_code == 0, result.output
    assert "fixed prior" in result.stderr
    assert "mu" in result.stdout


def test_compare_refuses_other_data(runs, refuses, media_run):
    said = refuses("compare", runs / "a", media_run)
    assert "a fit of rates" in said
    assert "media mix" in said
    invoke("example", "stores", "--out", "stores.csv")
    table = pd.read_csv("stores.csv")
    table.loc[3, "conversions"] += 1
    table.to_csv("other.csv", index=False)
    invoke("fit", "other.csv", *COLUMNS, *FIXED, *SMALL, "--out", "other", "--quiet")
    said = refuses("compare", runs / "fixed", "other")
    assert f"successes of unit '{table.loc[3, 'store']}'" in said
    table.iloc[1:].to_csv("less.csv", index=False)
    invoke("fit", "less.csv", *COLUMNS, *FIXED, *SMALL, "--out", "less", "--quiet")
    assert "is in" in refuses("compare", runs / "fixed", "less")
    assert "both runs" in refuses("compare", "less", "less/posterior.nc")
    assert "there is no" in refuses("compare", "less", "nowhere")


def test_predict_counts_of_known_and_new_units(runs, run):
    stores = pd.read_csv(runs / "fixed" / "units.csv").set_index("store")
    known = stores.index[0]
    pd.DataFrame({"store": [known, "another"], "impressions": [200, 50]}).to_csv("new.csv", index=False)
    result = run("predict", runs / "fixed", "new.csv", "--out", "there")
    assert result.exit_code == 0, result.output
    table = pd.read_csv("there/predictions.csv")
    # Beta(2, 8) is the population: a new unit has it, the known one its conjugate posterior.
    k, n = stores.loc[known, ["successes", "trials"]]
    for row, (alpha, beta, trials) in enumerate(((2 + k, 8 + n - k, 200), (2, 8, 50))):
        exact = stats.betabinom(trials, alpha, beta)
        draws = 2000
        assert abs(table.loc[row, "successes"] - exact.mean()) < 5 * exact.std() / np.sqrt(draws)
        for end, p in (("low", 0.03), ("high", 0.97)):
            found = table.loc[row, f"successes_{end}"]
            error = 5 * np.sqrt(p * (1 - p) / draws)
            assert exact.cdf(found) >= p - error
            assert exact.cdf(found - 1) <= p + error
    assert table["known"].tolist() == [True, False]
    quiet = run("predict", runs / "fixed", "new.csv", "--out", "there", "--quiet")
    assert quiet.stdout == ""
    found = json.loads(run("predict", runs / "fixed", "new.csv", "--out", "there", "--json").stdout)
    assert [row["trials"] for row in found["predictions"]] == [200, 50]


def test_predict_refuses(runs, refuses):
    Path("a.csv").write_text("shop,visits\nx,3\n")
    assert "'impressions'" in refuses("predict", runs / "fixed", "a.csv")
    Path("a.csv").write_text("shop,visits\nx,3.5\n")
    assert "row 1 is 3.5" in refuses("predict", runs / "fixed", "a.csv", "--trials", "visits", "--unit", "shop")
    Path("a.csv").write_text("shop,visits\n,3\n")
    assert "no name" in refuses("predict", runs / "fixed", "a.csv", "--trials", "visits", "--unit", "shop")
    Path("a.csv").write_text("shop,visits\nx,3\n")
    assert "probability" in refuses(
        "predict", runs / "fixed", "a.csv", "--trials", "visits", "--unit", "shop", "--probability", 2
    )


def test_predict_of_a_media_mix_refuses_what_it_cannot(media_run, refuses):
    names = [*media_tree()["constant_data"]["channel"].to_numpy(), "price", "holiday"]
    Path("plan.csv").write_text("week,country," + ",".join(names) + "\n2023-10-15,DE" + ",1" * len(names) + "\n")
    assert "belongs to rates" in refuses("predict", media_run, "plan.csv", "--trials", "x")
    # The made-up tree has no columns of controls to carry on.
    assert refuses("predict", media_run, "plan.csv", "--out", "out")


def test_report_is_written_anew(runs, run):
    result = run("report", runs / "a", "--out", "again")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("again").iterdir()} == {path.name for path in (runs / "a").iterdir()}
    assert Path("again/units.csv").read_text() == (runs / "a" / "units.csv").read_text()
    result = run("report", runs / "a", "--top", 3, "--out", "short", "--json")
    assert "again/report.html" not in result.stdout
    assert "P(top 3)" in Path("short/report.html").read_text()
    # What the fit had stays: the budget.
    assert "budget_pooled" in pd.read_csv("short/units.csv")


@pytest.mark.long
def test_report_of_a_media_mix(media_run, run, refuses):
    assert "belongs to rates" in refuses("report", media_run, "--top", 3)
    result = run("report", media_run, "--out", "again")
    assert result.exit_code == 0, result.output
    assert Path("again/report.html").exists()


def test_report_refuses_what_is_no_run(refuses):
    Path("posterior.nc").write_text("nothing")
    assert "cannot be read" in refuses("report", "posterior.nc")
    xr.DataTree.from_dict({"posterior": xr.Dataset({"x": 1.0})}).to_netcdf("other.nc", engine="h5netcdf")
    assert "neither rates nor a media mix" in refuses("report", "other.nc")


def test_doctor_says_what_there_is(run, monkeypatch):
    monkeypatch.setenv("PELTON_CACHE_DIR", str(Path("cache").resolve()))
    Path("cache").mkdir()
    Path("cache/program").write_bytes(b"12345")
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ok"]
    assert found["cache"]["bytes"] == 5
    assert found["cache"]["files"] == 1
    assert [device["precision"] for device in found["devices"] if device["name"] == "cpu:0"] == ["float64"]
    assert found["memory"]["free_bytes"] > 0
    assert "runs in float64" in run("doctor").stdout


def test_doctor_fails_where_a_device_does(run, monkeypatch):
    from pelton.cli import doctor

    monkeypatch.setattr(doctor, "_computes", lambda device, double: "float64: it broke" if double else "")
    result = run("doctor")
    assert result.exit_code == 1
    assert "it broke" in result.stdout


def test_fit_for_machines_and_in_detail(run, refuses):
    args = ("fit", "example:stores", *COLUMNS, *FIXED, *SMALL, "--out", "out", "--top", 4)
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["units"]) == 4
    assert found["converged"] is True
    assert "out/report.html" in found["files"]
    assert "Diagnostics" in run(*args, "--verbose").stdout
    assert "exclude one another" in refuses(*args, "--json", "--quiet")


def test_rate_for_machines(run):
    result = run("rate", "--prior", "11.5,48.5", "--successes", 7, "--trials", 10, "--json")
    first = json.loads(result.stdout)["posteriors"][0]
    assert first["mean"] == pytest.approx(18.5 / 70)
    assert (first["low"], first["high"]) == pytest.approx(stats.beta(18.5, 51.5).interval(0.94))


def test_a_pipe_gets_no_control_characters(tmp_path):
    """Neither colours nor a moving bar: a log of CI reads as text."""
    command = [sys.executable, "-m", "pelton.cli.main", "fit", "example:stores", *COLUMNS, *SMALL, "--prior", "bda"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=True)
    for text in (done.stdout, done.stderr):
        assert not [letter for letter in text if ord(letter) < 32 and letter != "\n"]
    assert "Converged" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell):
    code = "from pelton.cli.main import app; app(prog_name='pelton')"
    environment = {**os.environ, "_PELTON_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "pelton" in done.stdout


def test_every_command_teaches_by_example(run):
    commands = [()]
    while commands:
        command = commands.pop()
        said = run(*command, "--help")
        assert said.exit_code == 0
        listed = said.stdout.partition("Commands")[2]
        names = [line.split()[1] for line in listed.splitlines() if line.startswith("│ ") and line[2] != " "]
        commands += [(*command, name) for name in names]
        if not names:
            assert "Example" in said.stdout, command
            assert f"pelton {' '.join(command)}" in said.stdout, command
