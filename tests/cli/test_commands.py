"""The smaller commands: rate, simulate, example, bench, and the help of all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pelton.examples import EXAMPLES, load
from pelton.models.simulate import simulate_markets, simulate_media


def test_rate_is_the_conjugate_posterior(run):
    result = run("rate", "--prior", "11.5,48.5", "--successes", "7", "--trials", "10", "--out", "there")
    assert result.exit_code == 0, result.output
    posterior = stats.beta(18.5, 51.5)
    low, high = posterior.interval(0.94)
    for value in (posterior.mean(), posterior.std(), low, high, 11.5 / 60, 81.5 / 160, 7011.5 / 10060):
        assert f"{100 * value:.1f}%" in result.stdout
    for counts in ("7 of 10", "70 of 100", "700 of 1,000", "7,000 of 10,000"):
        assert counts in result.stdout
    assert Path("there/rate.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("prior", "successes", "trials", "word"),
    [
        ("11.5", 7, 10, "'11.5'"),
        ("a,b", 7, 10, "'a,b'"),
        ("1,2,3", 7, 10, "'1,2,3'"),
        ("0,2", 7, 10, "alpha"),
        ("nan,2", 7, 10, "alpha"),
        ("1,2", 11, 10, "11"),
        ("1,2", -1, 10, "-1"),
        ("1,2", 0, 0, "trials"),
    ],
)
def test_rate_refuses(refuses, prior, successes, trials, word):
    said = refuses("rate", "--prior", prior, "--successes", successes, "--trials", trials)
    assert word in said
    assert not Path("pelton-out").exists()


@pytest.mark.parametrize("name", ["stores.csv", "deep/er/stores.parquet"])
def test_simulated_stores_are_written(run, name):
    result = run(
        "simulate",
        "stores",
        "--stores",
        12,
        "--seed",
        3,
        "--trials-low",
        5,
        "--trials-high",
        9,
        "--out",
        name,
    )
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(name) if name.endswith("csv") else pd.read_parquet(name)
    assert len(frame) == 12
    assert frame["impressions"].between(5, 9).all()
    assert (frame["conversions"] <= frame["impressions"]).all()
    before = Path(name).read_bytes()
    assert run("simulate", "stores", "--stores", 12, "--seed", 3, "--out", name, "--alpha", 1).exit_code == 0
    assert Path(name).read_bytes() != before


def test_simulate_refuses(refuses):
    assert "stores" in refuses("simulate", "stores", "--stores", 0, "--out", "a.csv")
    assert "trials" in refuses("simulate", "stores", "--trials-low", 9, "--trials-high", 5, "--out", "a.csv")
    Path("folder.csv").mkdir()
    assert "folder.csv" in refuses("simulate", "stores", "--out", "folder.csv")
    assert list(Path.cwd().iterdir()) == [Path("folder.csv").resolve()]


def test_simulated_markets_are_written_with_their_truth(run):
    result = run("simulate", "markets", "--seed", 3, "--out", "deep/markets.csv", "--truth", "truth.parquet")
    assert result.exit_code == 0, result.output
    made = simulate_markets(3)
    table = pd.read_csv("deep/markets.csv", parse_dates=["date"])
    pd.testing.assert_frame_equal(table, made.frame, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet("truth.parquet"), made.truth_table(), check_dtype=False)
    first, second, third = result.stdout.splitlines()
    spent = made.frame[made.columns["media"]].to_numpy().sum()
    assert first.startswith("8 markets of 26 to 104 weeks and 6 channels in deep/markets.csv;")
    assert f"{spent:,.0f} euro spent" in first
    assert "truth.parquet" in second
    assert third == "Next: pelton init media-mix deep/markets.csv"


def test_simulated_markets_of_any_size(run):
    result = run("simulate", "markets", "--geos", 3, "--weeks", 20, "--channels", 2, "--seed", 1, "--out", "m.parquet")
    assert result.exit_code == 0, result.output
    expected = simulate_media(3, 20, 2, seed=1).frame
    pd.testing.assert_frame_equal(pd.read_parquet("m.parquet"), expected, check_dtype=False)
    assert result.stdout.startswith("3 markets of 20 weeks and 2 channels in m.parquet;")
    assert run("simulate", "markets", "--weeks", 30, "--out", "w.csv").exit_code == 0
    assert len(pd.read_csv("w.csv")) == 8 * 30


def test_simulate_markets_refuses(refuses):
    assert "geos" in refuses("simulate", "markets", "--geos", 0, "--out", "a.csv")
    assert "seed" in refuses("simulate", "markets", "--seed", -1, "--out", "a.csv")
    assert "give two files" in refuses("simulate", "markets", "--out", "a.csv", "--truth", "./a.csv")
    Path("folder.csv").mkdir()
    assert "folder.csv" in refuses("simulate", "markets", "--out", "a.csv", "--truth", "folder.csv")
    assert list(Path.cwd().iterdir()) == [Path("folder.csv").resolve()]


def test_examples_are_listed_printed_and_written(run, refuses):
    listed = run("example").stdout
    assert all(f"example:{name}" in listed for name in EXAMPLES)
    assert run("example", "categories").stdout.startswith("category,impressions,clicks\nComedy,487320,93455\n")
    assert run("example", "stores", "--out", "mine.csv").exit_code == 0
    pd.testing.assert_frame_equal(pd.read_csv("mine.csv"), load("stores"))
    assert "'stores'" in refuses("example", "store")


def test_examples_are_the_reference_tables(cases):
    for name, file in (("categories", "streamrec_categories.csv"), ("stores", "store_conversions.csv")):
        pd.testing.assert_frame_equal(load(name), pd.read_csv(cases / file))
        unit, trials, successes = EXAMPLES[name][1]
        assert load(name)[unit].is_unique
        assert np.all(load(name)[successes] <= load(name)[trials])


def test_bench_hands_on_what_it_is_told(run, monkeypatch):
    from pelton.benchmarks import suite

    told = []
    monkeypatch.setattr(suite, "run", lambda *args, **named: told.append((args, named)))
    assert run("bench", "stores-40", "--rivals", "scipy-gibbs", "--repeats", "2", "--save", "a").exit_code == 0
    named = {"rivals": ["scipy_gibbs"], "repeats": 2, "device": None, "chains": [], "store": Path("a"), "pages": False}
    assert told == [((["stores-40"],), named)]
    assert run("bench", "rats", "--chains", "2", "--chains", "8").exit_code == 0
    assert told.pop()[1]["chains"] == [2, 8]
    monkeypatch.setattr(suite, "compare", lambda *args, **named: told.append((args, named)))
    assert run("bench", "rats", "--against", "HEAD~1").exit_code == 0
    assert told[1] == (("HEAD~1", ["rats"]), {"repeats": 3, "store": suite.STORE})


def test_bench_lists_cases_and_rivals(run, refuses):
    listed = run("bench", "--list").stdout
    assert "stores-1e6: 1,000,000 stores: pelton, pelton/nuts, scipy_gibbs/corrected" in listed
    assert "emcee: " in listed
    assert "'emce'" in refuses("bench", "--rivals", "emce")


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("fit",),
        ("rate",),
        ("example",),
        ("simulate",),
        ("simulate", "stores"),
        ("simulate", "markets"),
        ("bench",),
    ],
)
def test_help(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: pelton" in result.stdout or "Usage: root" in result.stdout


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from pelton.cli.main import app\n"
        "try: app(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('jax', 'matplotlib', 'pandas', 'xarray', 'scipy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_version_and_usage_errors(run):
    assert run("--version").stdout.startswith("pelton ")
    for args in (
        ("fit",),
        ("nothing",),
        ("fit", "a.csv", "--successes"),
        ("rate", "--prior", "1,2", "--trials", "many"),
    ):
        result = run(*args)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
