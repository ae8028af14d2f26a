"""The suite: the protocol, the gate before speed, rivals that fail, and pages made from what is stored."""

import ast
import dataclasses
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from pelton.benchmarks import case_data, environments, meridian_model, record, suite, suite_report, suite_tables
from pelton.benchmarks.cases import BY_NAME, CASES, System, chosen
from pelton.benchmarks.verdicts import Judge, Truth, ratios, worth
from pelton.cli.main import app
from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.engine.precision import using
from tests import pages

STORES = BY_NAME["stores-40"]


def of(case, *names, **settings):
    """The case with some of its systems."""
    kept = [dataclasses.replace(one, **settings) for one in case.systems if one.name in names]
    return dataclasses.replace(case, systems=tuple(kept))


@pytest.fixture
def here(monkeypatch):
    """Every rival in this environment, as if it were its own."""
    monkeypatch.setattr(environments, "interpreter", lambda name: sys.executable)
    monkeypatch.setattr(environments, "reason", lambda name: None)


@pytest.fixture(scope="module")
def measured():
    """The two forms of the reference and pelton itself, each in a process of its own, in this environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "interpreter", lambda name: sys.executable)
        patch.setattr(environments, "reason", lambda name: None)
        gibbs = of(STORES, "scipy_gibbs/corrected", "scipy_gibbs/published", draws=6000)
        ours = of(STORES, "pelton", draws=500)
        lines = suite.run_case(dataclasses.replace(STORES, systems=(*ours.systems, *gibbs.systems)), repeats=1)
    return {line["system"]: line | suite.about() for line in lines}


def test_a_biased_rival_gets_no_speed(measured):
    wrong, right = measured["scipy_gibbs/published"], measured["scipy_gibbs/corrected"]
    assert wrong["answer"] == "wrong"
    assert abs(wrong["worst_z"]) > 5
    assert wrong["warm"] is None
    assert wrong["cold"] is None
    assert suite_tables.against(measured["pelton"], wrong).warm is None
    assert right["answer"] == "right"
    assert right["warm"][0] > 0


def test_the_protocol_counts_everything(measured):
    for line in measured.values():
        (run,) = line["runs"]
        # The process's start, the imports and the first fit are in the cold seconds.
        assert run["cold_seconds"] > run["importing"] + run["compiling"]
        assert run["warm_seconds"] > 0
        assert 20e6 < run["peak_bytes"] < 4e9
        assert run["rhat"] < 1.1
        assert line["packages"]["numpy"] == np.__version__
    assert measured["pelton"]["answer"] == "right"
    assert measured["pelton"]["runs"][0]["compiling"] == 0 or measured["pelton"]["runs"][0]["compiling"] > 0.1


def test_rivals_know_nothing_of_pelton():
    for file in environments.RIVALS.glob("*/*.py"):
        if file.parent.name == environments.OURS:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "pelton" for name in imported), file
        assert (file.parent / "requirements.txt").exists(), file


def test_a_rival_that_is_not_there_is_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("PELTON_RIVALS", str(tmp_path))
    (tmp_path / "emcee.reason.txt").write_text("No matching distribution found for emcee\n")
    lines = suite.run_case(of(STORES, "emcee", "blackjax"), repeats=1)
    assert [line["status"] for line in lines] == ["absent", "absent"]
    assert lines[0]["why"] == "No matching distribution found for emcee"
    assert "--install" in lines[1]["why"]
    block = suite_tables.readme_block([line | suite.about() for line in lines])
    assert "emcee (stores-40): absent: No matching distribution found for emcee" in block


def test_a_rival_that_fails_or_takes_too_long_is_listed(here):
    broken = dataclasses.replace(of(STORES, "scipy_gibbs/corrected", chains=0), limit=60.0)
    (line,) = suite.run_case(broken, repeats=2)
    assert (line["status"], line["answer"], line["warm"]) == ("failed", None, None)
    assert line["why"] == "ValueError: chains is at least 1, not 0"
    slow = dataclasses.replace(of(STORES, "scipy_gibbs/corrected"), limit=0.01)
    (line,) = suite.run_case(slow, repeats=1)
    assert line["status"] == "timed out"


def test_why_an_environment_could_not_be_made():
    said = "WARNING: slow\nERROR: Could not find a version\nERROR: No matching distribution found for nothing==1\n"
    assert environments._words(said) == "No matching distribution found for nothing==1"
    assert environments._words("Traceback\n  x\nValueError: No CmdStan\n") == "ValueError: No CmdStan"
    with pytest.raises(UnknownNameError, match="unknown rival 'emce'"):
        environments.known("emce")


def test_verdicts():
    rng = np.random.default_rng(0)
    truth = {"x": Truth(np.zeros(2), np.ones(2))}

    def answer(draws, given=truth):
        judge = Judge(given)
        judge.take({"x": draws}, worth({"x": draws}))
        return judge.answer()

    noise = rng.normal(size=(4, 1000, 2))
    assert answer(noise) == "right"
    assert answer(noise + np.array([0.0, 0.2])) == "wrong"
    # The standard deviation is judged too.
    assert answer(1.2 * noise) == "wrong"
    assert answer(noise[:, :50]) == "few draws"
    assert answer(noise + np.arange(4)[:, None, None]) == "not converged"
    assert answer(np.zeros((4, 100, 2))) == "not converged"
    assert answer(noise, {}) == "unchecked"
    # A reference with an error of its own forgives what lies within it.
    rough = {"x": Truth(np.zeros(2), np.ones(2), np.full(2, 0.1), np.full(2, 0.1))}
    assert answer(noise + 0.2, rough) == "right"
    assert ratios([10.0, 20.0], [5.0, 1.0]) == [7.0, 2.0, 20.0]


def test_several_runs_are_judged_together():
    rng = np.random.default_rng(1)
    judge = Judge({"x": Truth(np.zeros(()), np.ones(()))})
    # Each run is four standard errors off by itself.
    for _ in range(3):
        draws = rng.normal(size=(4, 1000)) + 4 / np.sqrt(4000)
        judge.take({"x": draws}, worth({"x": draws}))
    assert judge.answer() == "wrong"


def test_the_schools_truth_is_that_of_another_quadrature():
    truth = case_data.eight_schools().truth
    effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    # A grid over the mean and the logarithm of the between-school sd: nothing is known to be normal.
    mean, log_between = np.linspace(-40, 50, 181)[:, None], np.linspace(-16, 8, 1201)
    between = np.exp(log_between)
    log_density = stats.norm.logpdf(mean, 0, 5) + stats.halfcauchy.logpdf(between, scale=5) + log_between
    for one, spread in zip(effect, error, strict=True):
        log_density = log_density + stats.norm.logpdf(one, mean, np.hypot(spread, between))
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    assert truth["mean"].mean == pytest.approx((weight * mean).sum(), rel=1e-4)
    assert truth["between"].mean == pytest.approx((weight * between).sum(), rel=1e-4)
    assert truth["between"].sd ** 2 == pytest.approx((weight * (between - truth["between"].mean) ** 2).sum(), rel=1e-3)
    first = (effect[0] * between**2 + mean * error[0] ** 2) / (between**2 + error[0] ** 2)
    assert truth["truth"].mean[0] == pytest.approx((weight * first).sum(), rel=1e-4)


def test_country_draws_get_the_references_names():
    draws = {"coef_lam": np.ones((1, 2)), "base_2": np.ones((1, 2)), "car_0_1": np.full((1, 2), 0.5)}
    found = case_data.country_parameters(draws | {"sat_1_2": np.ones((1, 2))})
    wanted = ["log coef_lam", "log base[Switzerland]", "log -log car[Germany,Radio]", "log sat[Austria,Banners]"]
    assert list(found) == wanted
    known = json.loads((case_data.RESULTS / "countries_reference.json").read_text())["parameters"]
    assert set(wanted) <= set(known)
    assert found["log -log car[Germany,Radio]"][0, 0] == pytest.approx(np.log(np.log(2)))


def test_cases_are_chosen_by_name_and_family():
    assert [case.name for case in chosen(["stores-1e3", "rats"])] == ["stores-1e3", "rats"]
    assert not any(case.opt_in for case in chosen([]))
    assert all(case.systems[0].name == "pelton" for case in CASES)
    with pytest.raises(UnknownNameError, match="unknown case 'store'"):
        chosen(["store"])
    with pytest.raises(ArgumentError, match="repeats"):
        suite.run_case(STORES, repeats=0)


def test_a_case_without_its_data_is_passed_over(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(case_data, "SHARED", tmp_path)
    with pytest.raises(DataError, match=r"references\.json is not at"):
        BY_NAME["categories"].build()
    assert suite.run(["categories"], store=tmp_path / "a.jsonl") == []
    assert "categories: left out: references.json" in capsys.readouterr().out


def test_pages_come_from_what_is_stored(measured, tmp_path, monkeypatch):
    store, readme, doc, report = (tmp_path / name for name in ("a.jsonl", "README.md", "b.md", "r.html"))
    older = measured["pelton"] | {"answer": "wrong", "warm": None, "cold": None}
    for line in (older, *measured.values()):
        record.append(store, line)
    for path in (readme, doc):
        path.write_text(f"before\n{suite_tables.BEGIN}\nstale\n{suite_tables.END}\nafter\n")
    suite_tables.write_tables(store, readme, doc)
    text = readme.read_text()
    assert "stale" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 40 stores |" in text
    # The newer line of pelton counts.
    own = suite_tables.number(measured["pelton"]["warm"][0])
    assert f"| 40 stores | {own} |" in text
    assert "| wrong |" in text
    assert measured["pelton"]["machine"]["cpu"] in text
    assert "Not covered" in text
    assert "SciPy Gibbs, as published | wrong" in doc.read_text()
    suite_tables.write_tables(store, readme, doc)
    assert readme.read_text() == text
    report.write_text(suite_report.page(record.read(store)))
    html = report.read_text()
    assert "Against every rival" in html
    assert not re.search(r'(src|href)="http', html)
    with pytest.raises(DataError, match="needs the lines"):
        suite_tables.between("nothing", "x", readme)


def test_numbers_of_chains_have_their_own_picture_and_table(here, measured, tmp_path, monkeypatch):
    monkeypatch.setitem(BY_NAME, "stores-40", of(STORES, "pelton", draws=300))
    monkeypatch.setattr("pelton.benchmarks.suite.chosen", lambda names: [BY_NAME[name] for name in names])
    store = tmp_path / "a.jsonl"
    suite.run(["stores-40"], chains=[2], repeats=1, store=store, pages=False)
    (two,) = record.read(store)
    assert (two["chains"], two["answer"]) == (2, "right")
    lines = [*measured.values(), two, two | {"chains": 4}]
    # They are no results of the suite.
    assert len(suite_tables.latest(lines)) == len(measured)
    assert suite_report.by_chains(list(measured.values())) is None
    assert suite_report.by_chains(lines).slug == "by-chains"
    assert "by number of chains" in suite_report.page(lines)
    text = suite_tables.page(lines)
    assert len(re.findall(r"\| 40 stores \| pelton \| [24] \| right \|", text)) == 2
    assert "By the number of chains" not in suite_tables.page(list(measured.values()))


@pytest.mark.long
def test_what_the_page_tells_to_run(here, tmp_path, monkeypatch):
    """Small cases, the rats for the markets, once, with rivals that are here; what would install them is noted."""
    names = ("pelton", "numpyro", "scipy_gibbs/corrected")
    places = {"stores-40": "stores-40", "markets": "rats", "eight-schools": "eight-schools"}
    short = {name: of(BY_NAME[place], *names, warmup=50, draws=50) for name, place in places.items()}
    store, installed, written = tmp_path / "suite.jsonl", [], []
    monkeypatch.setattr(suite, "chosen", lambda wanted: [short[name] for name in wanted or ["stores-40"]])
    run_case = suite.run_case
    monkeypatch.setattr(suite, "run_case", lambda case, repeats, **named: run_case(case, repeats=1, **named))
    monkeypatch.setattr(suite, "STORE", store)
    monkeypatch.setattr(suite, "write_all", written.append)
    monkeypatch.setattr(environments, "install", installed.append)
    (code,) = pages.blocks_for(__file__, "benchmarks.md")
    lines = pages.commands(code)
    assert len(lines) == len(code.strip().splitlines())
    for line in lines:
        # A clone may hold its last commit alone.
        result = CliRunner().invoke(app, ["HEAD" if word.startswith("HEAD~") else word for word in line])
        assert result.exit_code == 0, f"pelton {' '.join(line)}\n{result.output}"
    assert installed == environments.names()
    assert written
    ran = {(line["case"], line["system"], line["chains"]) for line in record.read(store)}
    assert {("stores-40", "scipy_gibbs/corrected"), ("rats", "pelton")} <= {row[:2] for row in ran}
    assert {("eight-schools", name, count) for name in ("pelton", "numpyro") for count in (4, 64)} <= ran


def test_losses_are_shown_as_losses(measured):
    slow = measured["pelton"] | {
        "runs": [run | {"warm_ess_per_second": 1.0, "cold_ess_per_second": 1.0} for run in measured["pelton"]["runs"]]
    }
    block = suite_tables.readme_block([slow, measured["scipy_gibbs/corrected"]])
    assert re.search(r"\*\*0\.0\d+\*\* \(\*\*0\.0\d+\*\*\)", block)
    assert 'class="loss"' in suite_report.page([slow, measured["scipy_gibbs/corrected"]])


def test_the_readme_shows_what_is_stored():
    stored = record.stored(suite.STORE)
    for path, wanted in (
        (suite_tables.README, suite_tables.readme_block(stored)),
        (suite_tables.PAGE, suite_tables.page(stored)),
    ):
        text = path.read_text(encoding="utf-8")
        assert suite_tables.between(text, wanted, path) == text, (
            f"python -m pelton.benchmarks.suite --pages-only {path}"
        )


def test_a_reference_is_stored_with_its_errors(tmp_path, monkeypatch):
    from pelton.benchmarks.cases import write_reference

    monkeypatch.setattr(case_data, "REFERENCES", tmp_path)
    draws = {"x": np.random.default_rng(0).normal(size=(4, 1000, 3))}
    write_reference("some", draws, "a rival")
    truth, made_by = case_data.stored("some")
    assert made_by == "a rival"
    assert truth["x"].mean.shape == (3,)
    assert truth["x"].mean_error == pytest.approx(1 / np.sqrt(4000), rel=0.3)
    assert case_data.stored("other")[0] == {}


def test_system_names():
    assert System("numpyro", "textbook").name == "numpyro/textbook"
    assert System("emcee").name == "emcee"


def test_without_a_reference_rivals_are_held_against_one_another():
    rng = np.random.default_rng(2)

    def entry(rival, draws):
        found = suite.Entry(System(rival), Judge({}), "none", draws=[{"x": draws}], runs=[{}])
        found.judge.take({"x": draws}, worth({"x": draws}))
        return found

    noise = [rng.normal(size=(4, 1000)) for _ in range(3)]
    entries = [entry("pelton", noise[0]), entry("pymc", noise[1]), entry("numpyro", noise[2] + 1.0)]
    for at, judge in suite._hold_together(entries).items():
        entries[at].judge = judge
    assert [suite._answer(one, False) for one in entries] == ["agrees", "disagrees", "disagrees"]
    assert entries[0].reference.endswith("pymc")
    alone = [entry("pelton", noise[0])]
    assert suite._hold_together(alone) == {}
    assert suite._answer(alone[0], False) == "unchecked"


def test_meridians_model_integrates_its_normal_effects_out():
    rng = np.random.default_rng(3)
    geos, weeks = 3, 5
    table = pd.DataFrame(
        {
            "geo": np.repeat(list("abc"), weeks),
            "time": np.tile([f"2021-01-{day:02}" for day in range(1, weeks + 1)], geos),
            "population": np.repeat([2.0, 5.0, 3.0], weeks),
            "A_impression": rng.uniform(1, 9, geos * weeks),
            "A_spend": 1.0,
            "conversions": rng.uniform(1, 9, geos * weeks),
            "revenue_per_conversion": 1.0,
            **{name: rng.normal(size=geos * weeks) for name in meridian_model.CONTROLS},
        }
    )
    data = meridian_model.scaled(table)
    residual, sigma = rng.normal(size=(geos, weeks)), 0.7
    spreads = np.concatenate([np.full(geos - 1 + 2, 5.0), np.repeat([0.4, 1.3], geos)])
    with using("float64"):
        found = float(meridian_model.log_marginal(residual, np.float64(sigma), spreads, data))
    # The same density, by the covariance of all observations. The second geo is the largest: it has no level.
    design = meridian_model.design(data["level"], data["controls"]).reshape(-1, len(spreads))
    assert design[weeks : 2 * weeks, : geos - 1].max() == 0
    same_week = np.tile(np.eye(weeks), (geos, geos))
    covariance = sigma**2 * np.eye(geos * weeks) + 25 * same_week + (design * spreads**2) @ design.T
    wanted = stats.multivariate_normal(cov=covariance).logpdf(residual.ravel())
    assert found == pytest.approx(wanted, rel=1e-10)


def test_a_commit_that_git_does_not_know_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="cannot check out 'nowhere'"):
        suite.compare("nowhere", ["stores-40"], store=tmp_path / "a.jsonl")


@pytest.mark.slow
def test_two_commits_are_compared(tmp_path, capsys):
    store = tmp_path / "a.jsonl"
    (first, _) = suite.compare("HEAD", ["stores-40"], repeats=1, store=store)
    assert first["system"] == "pelton"
    assert 0.2 < first["warm"][0] < 5
    assert {line["label"] for line in record.read(store)} == {"here", "HEAD"}
    # Such lines are no results of the suite.
    assert suite_tables.latest(record.read(store)) == []
    assert "ESS/s here over there" in capsys.readouterr().out
