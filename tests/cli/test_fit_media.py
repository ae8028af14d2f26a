"""`pelton fit --model media-mix` and `pelton allocate`, from table and config to files, and what each refuses."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import pelton
from pelton.cli.main import app
from pelton.engine import run as engine_run
from pelton.engine.errors import ConvergenceWarning

WEEKS = {"AT": 60, "NA": 40}
CONFIG = """
[data]
time = "week"
geo = "country"
target = "sales"
controls = ["price"]

[channels.tv]
l_max = 6

[channels.search]
media = "clicks"
spend = "search cost"
l_max = 4

[model]
pooling = { adstock = "pooled", saturation = "pooled" }

[sampling]
chains = 2
warmup = 200
draws = 150
seed = 3
"""
MEDIA = ("--model", "media-mix", "--config", "mix.toml")


def sales():
    """Two countries of unequal length; NA is a name."""
    rng = np.random.default_rng(11)
    frames = []
    for geo, weeks in WEEKS.items():
        tv = np.where(rng.random(weeks) < 0.4, 0.0, rng.gamma(4.0, 50.0, weeks)).round(2)
        clicks = rng.gamma(6.0, 100.0, weeks).round()
        price = rng.normal(10, 1, weeks)
        carried = tv + 0.5 * np.concatenate([[0.0], tv[:-1]])
        noise = rng.normal(0, 30, weeks)
        frames.append(
            pd.DataFrame(
                {
                    "week": pd.date_range("2024-01-01", periods=weeks, freq="7D"),
                    "country": geo,
                    "sales": 2000 + 1.2 * carried + 0.4 * clicks - 20 * (price - 10) + noise,
                    "tv": tv,
                    "clicks": clicks,
                    "search cost": (0.8 * clicks).round(2),
                    "price": price,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run, and its folder."""
    folder = tmp_path_factory.mktemp("media")
    sales().to_csv(folder / "sales.csv", index=False)
    (folder / "mix.toml").write_text(CONFIG)
    args = [
        "fit",
        folder / "sales.csv",
        "--model",
        "media-mix",
        "--config",
        folder / "mix.toml",
        "--out",
        folder / "out",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "160")
        result = CliRunner().invoke(app, [str(arg) for arg in [*args, "--draws", "120", "--seed", "5"]])
    assert result.exit_code == 0, result.output
    return folder / "out", result


@pytest.fixture
def here(run):
    """The table and the config in the working folder."""
    sales().to_csv("sales.csv", index=False)
    Path("mix.toml").write_text(CONFIG)
    return run


@pytest.fixture(scope="module")
def tree(fitted):
    with xr.open_datatree(fitted[0] / "posterior.nc", engine="h5netcdf") as read:
        return read.load()


def test_files_and_words(fitted):
    out, result = fitted
    names = {path.name for path in out.iterdir()}
    assert names >= {"posterior.nc", "channels.csv", "contributions.csv", "config.toml"}
    for word in ("2 geos, 60 weeks, 2 channels", "Media brought", "ROAS", "half-life (weeks)", "tv", "search", "NA"):
        assert word in result.stdout
    for name in names:
        assert name in result.stdout, name
    assert ("Converged" in result.stdout) != ("NOT CONVERGED" in result.stdout)


def test_the_command_line_goes_before_the_config(fitted, tree):
    out, _ = fitted
    assert tree["posterior"].sizes["chain"] == 2
    assert tree["posterior"].sizes["draw"] == 120
    assert (tree.attrs["warmup"], tree.attrs["seed"]) == (200, 5)
    text = (out / "config.toml").read_text()
    assert text.startswith("# In this run the command line set: draws = 120, seed = 5\n")
    assert text.endswith(CONFIG)
    assert pelton.read_config(out / "config.toml").sampling["draws"] == 150


def test_the_tree_is_what_python_gives(fitted, tree):
    """The same model, asked for in Python, has the same draws."""
    panel = pelton.Panel.from_frame(
        sales(),
        time="week",
        geo="country",
        target="sales",
        media=["tv", "clicks"],
        channels=["tv", "search"],
        spend={"tv": "tv", "search": "search cost"},
        controls=["price"],
    )
    model = pelton.MediaMix(
        panel,
        pooling={"adstock": "pooled", "saturation": "pooled"},
        adstock={"tv": pelton.adstock.Geometric(l_max=6), "search": pelton.adstock.Geometric(l_max=4)},
    )
    with warnings.catch_warnings():
        # Few draws do here; they are compared, not believed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        again = pelton.sample(model, chains=2, warmup=200, draws=120, seed=5, progress=False)
    for name in ("coef", "alpha", "sigma", "baseline_coefficient"):
        xr.testing.assert_allclose(again["posterior"][name], tree["posterior"][name], rtol=1e-6)


def test_channels_are_told_in_money_and_shares(fitted, tree):
    table = pd.read_csv(fitted[0] / "channels.csv", index_col=["geo", "channel"], keep_default_na=False)
    assert list(table.index) == [(geo, channel) for geo in ("all", "AT", "NA") for channel in ("tv", "search")]
    frame = sales()
    for geo, rows in frame.groupby("country"):
        assert table.loc[(geo, "tv"), "spend"] == pytest.approx(rows["tv"].sum())
        assert table.loc[(geo, "search"), "spend"] == pytest.approx(rows["search cost"].sum())
    assert table.loc[("all", "tv"), "spend"] == pytest.approx(frame["tv"].sum())
    np.testing.assert_allclose(table["roas"], table["effect"] / table["spend"])
    for name in ("roas", "marginal_roas", "contribution", "share", "half_life"):
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    # Of a geometric window, normalised: the week in which half of the weights is reached, linear within it.
    alpha = tree["posterior"]["alpha"].sel(geo="AT", channel="tv").to_numpy().ravel()
    lives = []
    for value in alpha:
        weights = [value**lag for lag in range(6)]
        half, weeks = sum(weights) / 2, 0
        while half > weights[weeks]:
            half -= weights[weeks]
            weeks += 1
        lives.append(weeks + half / weights[weeks])
    assert table.loc[("AT", "tv"), "half_life"] == pytest.approx(np.mean(lives))
    # Adstock is pooled, so that the typical geo is any.
    assert table.loc[("all", "tv"), "half_life"] == pytest.approx(np.mean(lives))
    # The model is given the truth's form but for the saturation, so that returns are near the true 1.2 (1 + 0.5).
    assert table.loc[("all", "tv"), "roas_low"] < 1.8 < table.loc[("all", "tv"), "roas_high"]


def test_contributions_sum_to_the_prediction_of_each_week(fitted, tree):
    table = pd.read_csv(fitted[0] / "contributions.csv", keep_default_na=False, parse_dates=["time"])
    counted = table.groupby(["geo", "component"]).size().to_dict()
    components = ("tv", "search", "intercept", "control")
    assert counted == {(geo, component): weeks for geo, weeks in WEEKS.items() for component in components}
    # The formula of the tree, draw by draw, for one week.
    week, expected, constant = 7, [], tree["constant_data"]
    posterior = tree["posterior"].to_dataset().sel(geo="NA")
    design = constant["baseline_design"].sel(geo="NA").isel(time=week).to_numpy()
    for sample in np.ndindex(posterior.sizes["chain"], posterior.sizes["draw"]):
        expected.append(float(design @ posterior["baseline_coefficient"].to_numpy()[sample]))
        for channel, window in (("tv", 6), ("search", 4)):
            media = constant["media"].sel(geo="NA", channel=channel).to_numpy()
            alpha, half, slope, coef = (
                float(posterior[name].sel(channel=channel).to_numpy()[sample])
                for name in ("alpha", "half_saturation", "slope", "coef")
            )
            weights = [alpha**lag for lag in range(window)]
            carried = sum(weights[lag] * media[week - lag] for lag in range(window)) / sum(weights)
            expected[-1] += coef * carried**slope / (carried**slope + half**slope)
    date = constant["time"].to_numpy()[week]
    found = table.loc[(table["geo"] == "NA") & (table["time"] == date), "mean"].sum()
    assert found == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--model", "media-mix"), ("--model media-mix needs --config", "pelton init media-mix sales.csv")),
        (("--model", "media_mix", "--config", "mix.toml"), ("model 'media_mix'", "'media-mix'")),
        (("--model", "media-mix", "--config", "mx.toml"), ("no config 'mx.toml'", "did you mean 'mix.toml'")),
        ((), ("--successes COL and --trials COL", "--model media-mix --config FILE")),
        (("--successes", "sales"), ("rates need --trials COL",)),
        (("--successes", "a", "--trials", "b", "--config", "mix.toml"), ("--config", "--model media-mix")),
        ((*MEDIA, "--successes", "a"), ("--successes belongs to rates", "stand in its config")),
        ((*MEDIA, "--top", "3", "--budget", "9"), ("--top and --budget belong to rates", "leave them out")),
        ((*MEDIA, "--hold-out", "3"), ("--hold-out belongs to rates",)),
        ((*MEDIA, "--sampler", "numpyro-nut"), ("sampler 'numpyro-nut'", "'numpyro-nuts'")),
        ((*MEDIA, "--chains", "0"), ("chains", "at least 1")),
        ((*MEDIA, "--out", "sales.csv"), ("'sales.csv'", "not a folder")),
    ],
)
def test_options_that_do_not_fit_one_another(here, refuses, monkeypatch, args, words):
    monkeypatch.setattr(engine_run, "sampler_of", lambda *args, **settings: pytest.fail("sampled"))
    said = refuses("fit", "sales.csv", *args)
    for word in words:
        assert word in said


def edited(old, new):
    assert old in CONFIG
    Path("mix.toml").write_text(CONFIG.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"clicks"', '"click"', ("[channels.search] media of 'mix.toml': 'click'", "'clicks'")),
        ('time = "week"', 'time = "weeks"', ("[data] time", "'week'")),
        ('controls = ["price"]', 'controls = ["prices"]', ("[data] controls", "'price'")),
        ("l_max = 6", "l_max = 50", ("geo 'NA' has 40 dates", "'tv'", "l_max = 50")),
        ("[model]", '[model]\neffects = "roi"', ("key of [model]", "'effect'")),
        ("[model]", '[model]\ntype = "country_mix"', ("describes a country_mix", "--model says media-mix")),
        ("[sampling]", "[sampling]\ntarget_accept = 2", ("target_accept", "2")),
        ("[sampling]", '[sampling]\ngroups = ["prior", "lp"]', ("group", "'lp'")),
    ],
)
def test_configs_that_do_not_fit_the_table(here, refuses, old, new, words):
    edited(old, new)
    said = refuses("fit", "sales.csv", *MEDIA)
    for word in words:
        assert word in said
    assert not Path("pelton-out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(tv=t["tv"].where(t.index != 3, -5.0)), ("media 'tv'", "row 4", "'AT'", "-5.0", "negative")),
        (lambda t: t.drop(index=[7]), ("'AT' lacks 1 of the 60 weeks", "2024-02-19")),
        (lambda t: t.iloc[::-1], ("not sorted",)),
        (lambda t: t.assign(sales=t["sales"].where(t.index != 3)), ("target 'sales'", "row 4", "missing")),
        (lambda t: t.assign(price=5.0), ("control 'price' is 5 in every row",)),
        (
            lambda t: t.astype({"tv": object}).assign(tv=lambda f: f["tv"].where(f.index != 2, "1,200")),
            ("tv", "'1,200'"),
        ),
    ],
)
def test_tables_that_cannot_be_used(here, refuses, change, words):
    change(sales()).to_csv("sales.csv", index=False)
    said = refuses("fit", "sales.csv", *MEDIA)
    for word in words:
        assert word in said


@pytest.mark.long
def test_notes_strict_and_quiet(here):
    frame = sales()
    frame["price_gross"] = 1.19 * frame["price"] + np.random.default_rng(2).normal(0, 0.01, len(frame))
    frame.to_csv("sales.csv", index=False)
    edited('controls = ["price"]', 'controls = ["price", "price_gross"]')
    result = here("fit", "sales.csv", *MEDIA, "--warmup", 10, "--draws", 10, "--chains", 1, "--strict", "--quiet")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("note: control 'price' and control 'price_gross' are collinear")
    assert "NOT CONVERGED" in result.stderr
    assert "Traceback" not in result.stderr
    assert Path("pelton-out/sales/channels.csv").exists()


@pytest.mark.long
def test_a_table_of_one_geo(here):
    """Its results stand once, under all, and are allocated like any other's."""
    frame = sales()
    frame[frame["country"] == frame["country"].iloc[0]].drop(columns="country").to_csv("sales.csv", index=False)
    Path("mix.toml").write_text("\n".join(line for line in CONFIG.splitlines() if not line.startswith("geo")))
    result = here("fit", "sales.csv", *MEDIA, "--out", "out")
    assert result.exit_code == 0, result.output
    channels = pd.read_csv("out/channels.csv", keep_default_na=False)
    assert channels[["geo", "channel"]].to_numpy().tolist() == [["all", "tv"], ["all", "search"]]
    assert not channels.isna().any(axis=None)
    result = here("allocate", "out", "--budget", 20000)
    assert result.exit_code == 0, result.output


def test_the_country_model_takes_columns_alone(here, monkeypatch):
    asked = []

    def caught(model, **settings):
        asked.append((type(model).__name__, model.panel.channels, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(engine_run, "sample", caught)
    mix = CONFIG.replace('controls = ["price"]', "")
    alone = mix[: mix.index("[model]")].replace("l_max", "# l_max") + '[model]\ntype = "country_mix"\n'
    for text in (mix, alone):
        Path("mix.toml").write_text(text)
        assert here("fit", "sales.csv", "--model", "country-mix", *MEDIA[2:], "--chains", 3).exit_code == 130
    assert [name for name, _, _ in asked] == ["CountryMix", "CountryMix"]
    assert asked[0][1] == ("tv", "search")
    assert (asked[0][2]["chains"], asked[0][2]["warmup"], asked[0][2]["groups"]) == (3, 200, [])
    assert set(asked[1][2]) == {"chains", "groups", "progress", "store"}


def test_an_interrupted_fit_writes_nothing(here, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine_run, "sample", interrupted)
    result = here("fit", "sales.csv", *MEDIA)
    assert result.exit_code == 130
    assert not Path("pelton-out").exists()


def test_allocation_splits_the_budget_within_its_bounds(fitted, run):
    out, _ = fitted
    result = run("allocate", out, "--budget", 20000, "--channel-bounds", "tv=0.5:1.1", "--out", "there")
    assert result.exit_code == 0, result.output
    table = pd.read_csv("there/allocation.csv", index_col=["geo", "channel"], keep_default_na=False)
    assert table["spend"].sum() == pytest.approx(20000)
    frame = sales()
    # Today is the mean of a geo's last 52 weeks, for a quarter of 13.
    for geo, rows in frame.groupby("country"):
        assert table.loc[(geo, "tv"), "today"] == pytest.approx(13 * rows["tv"].tail(52).mean())
    before, after = (table[name].xs("tv", level="channel").sum() for name in ("today", "spend"))
    assert 0.5 * before - 1e-3 <= after <= 1.1 * before + 1e-3
    for word in ("Budget 20,000 over 13 weeks", "optimum", "in proportion to ROAS", "today's split", "allocation.csv"):
        assert word in result.stdout, word


def test_the_rule_of_thumb_stands_beside_the_optimum(fitted, run):
    out, _ = fitted
    returns = pd.read_csv(out / "channels.csv", index_col=["geo", "channel"], keep_default_na=False)["roas"].drop(
        "all", level="geo"
    )
    result = run("allocate", out, "--budget", 20000, "--out", "there")
    lines = [line.split() for line in result.stdout.splitlines()]
    for (geo, channel), split in (20000 * returns / returns.sum()).items():
        by_roas = next(line for line in lines if line[:2] == [geo, channel])[4]
        assert float(by_roas.replace(",", "").replace("k", "e3")) == pytest.approx(split, rel=5e-3)


def test_fixed_lines_stay(fitted, run):
    out, _ = fitted
    args = ("--budget", 30000, "--periods", 10, "--fix", "NA/tv=1234", "--fix", "search", "--objective", "0.1")
    assert run("allocate", out / "posterior.nc", *args, "--out", "there").exit_code == 0
    table = pd.read_csv("there/allocation.csv", index_col=["geo", "channel"], keep_default_na=False)
    assert table.loc[("NA", "tv"), "spend"] == pytest.approx(1234)
    np.testing.assert_allclose(
        table["spend"].xs("search", level="channel"), table["today"].xs("search", level="channel")
    )
    assert table["spend"].sum() == pytest.approx(30000)
    assert table["held"].tolist().count("fixed") == 3


def test_bounds_of_every_line_give_way_to_those_of_one(fitted, run):
    out, _ = fitted
    budget = 13 * sum(
        rows[name].tail(52).mean() for _, rows in sales().groupby("country") for name in ("tv", "search cost")
    )
    args = ("--bounds", "0.9:1.1", "--line-bounds", "AT/tv=0.2:0.4", "--geo-bounds", "NA=:1.09")
    result = run("allocate", out, "--budget", 0.9 * budget, *args, "--out", "there")
    assert result.exit_code == 0, result.output
    table = pd.read_csv("there/allocation.csv", index_col=["geo", "channel"], keep_default_na=False)
    ratio = table["spend"] / table["today"]
    assert 0.2 - 1e-6 <= ratio[("AT", "tv")] <= 0.4 + 1e-6
    assert ratio.drop(("AT", "tv")).between(0.9 - 1e-6, 1.1 + 1e-6).all()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--budget", "-5"), ("budget", "-5")),
        (("--budget", "9", "--periods", "0"), ("periods", "0")),
        (("--budget", "9", "--channel-bounds", "tvv=0.5:1"), ("channel in --channel-bounds tvv=0.5:1", "'tv'")),
        (("--budget", "9", "--geo-bounds", "AUT=1:2"), ("geo in --geo-bounds", "'AT'")),
        (("--budget", "9", "--geo-bounds", "AT"), ("NAME=LOW:HIGH",)),
        (("--budget", "9", "--channel-bounds", "tv=1"), ("LOW:HIGH", "'1'")),
        (("--budget", "9", "--channel-bounds", "tv=a:b"), ("LOW:HIGH", "'a:b'")),
        (("--budget", "9", "--bounds", "2:1"), ("above the upper one",)),
        (("--budget", "9", "--line-bounds", "tv=1:2"), ("'tv' is no GEO/CHANNEL", "AT, NA")),
        (("--budget", "9", "--line-bounds", "AT/radio=1:2"), ("channel in --line-bounds", "search, tv")),
        (("--budget", "9", "--line-bounds", "BE/tv=1:2"), ("geo in --line-bounds", "AT, NA")),
        (("--budget", "9", "--fix", "radio"), ("geo or channel in --fix radio", "tv")),
        (("--budget", "9", "--fix", "AT/tv=many"), ("--fix AT/tv=many", "'many' is no sum")),
        (("--budget", "9", "--fix", "tv=5"), ("more than one line",)),
        (("--budget", "9", "--fix", "AT/tv", "--fix", "AT/tv=5"), ("fixed already",)),
        (("--budget", "9", "--fix", "AT/tv=50"), ("more than the budget",)),
        (("--budget", "9", "--objective", "median"), ("'median'", "0.1")),
    ],
)
def test_allocation_refuses(fitted, refuses, args, words):
    said = refuses("allocate", fitted[0], *args)
    for word in words:
        assert word in said
    assert not (fitted[0] / "allocation.csv").exists()


def test_runs_that_are_none(refuses):
    Path("empty").mkdir()
    Path("torn.nc").write_bytes(b"\x89HDF torn")
    xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": ("draw", [1.0])})}).to_netcdf("rates.nc", engine="h5netcdf")
    for run, word in {
        "nowhere": "there is no 'nowhere'",
        "empty": "no posterior.nc in 'empty'",
        "torn.nc": "'torn.nc' cannot be read",
        "rates.nc": "not one of MediaMix",
    }.items():
        assert word in refuses("allocate", run, "--budget", "9"), run


@pytest.mark.parametrize("command", ["fit", "allocate"])
def test_help(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "media-mix" in result.stdout


def test_public_names():
    from pelton.models import country_mix

    assert callable(country_mix)
    # Whoever imports the module that owns it, the function stays.
    import pelton.models.countries

    assert pelton.models.country_mix is country_mix
    assert pelton.models.countries.country_mix is country_mix
    assert pelton.adstock.Geometric(l_max=3).l_max == 3
    assert pelton.saturation.Hill().name == "hill"
    for name in dir(pelton):
        getattr(pelton, name)
