"""`pelton init`: what columns are taken for, what the config says of it, and that it then works without editing."""

import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from pelton.cli.guess import GuessedChannel, guess, words
from pelton.cli.tables import Columns, read_table
from pelton.engine.precision import using
from pelton.models.media_config import read_config
from pelton.models.panel import Panel
from pelton.models.simulate import simulate_markets

CASES = {
    "bhmmm": ("Date", "Country", "Sales", {"TV": "TV", "Radio": "Radio", "Banners": "Banners"}, [], [], None),
    "meridian_geo_media": (
        "time",
        "geo",
        "conversions",
        {f"Channel{k}": f"Channel{k}_impression" for k in range(4)},
        ["competitor_activity_score_control", "sentiment_score_control"],
        [],
        "population",
    ),
    "pymc_marketing_two_geos": ("date", "geo", "y", {"x1": "x1", "x2": "x2"}, [], ["event_1", "event_2"], None),
    "pymc_marketing_roas": ("date", None, "y", {"x1": "x1", "x2": "x2"}, ["z"], [], None),
}


def weekly(weeks=60, geos=("A", "B"), **columns):
    """A table whose columns are made by functions of (generator, weeks); dates and geos apart."""
    rng = np.random.default_rng(5)
    frames = []
    for geo in geos:
        frame = pd.DataFrame({"week": pd.date_range("2023-01-02", periods=weeks, freq="7D").strftime("%Y-%m-%d")})
        if len(geos) > 1:
            frame["region"] = geo
        frames.append(frame.assign(**{name: make(rng, weeks) for name, make in columns.items()}))
    return pd.concat(frames, ignore_index=True)


def money(rng, weeks):
    return np.where(rng.random(weeks) < 0.3, 0.0, rng.gamma(2.0, 100.0, weeks)).round(2)


def level(rng, weeks):
    return rng.normal(20.0, 3.0, weeks).round(3)


def columns_of(config):
    tables = tomllib.loads(Path(config).read_text(encoding="utf-8"))
    data = tables["data"]
    media = {name: table["media"] for name, table in tables.get("channels", {}).items()}
    return (
        data.get("time"),
        data.get("geo"),
        data.get("target"),
        media,
        data["controls"],
        data["events"],
        data.get("population"),
    )


def works(table, config):
    """The panel and the model that a config describes, with a finite density where a chain would start."""
    read = read_config(config)
    frame, _ = read_table(str(table), Columns(tuple(read.numbers), tuple(read.labels)))
    panel = read.panel(frame)
    posterior = read.model(panel).posterior()
    with using("float64"):
        data = jax.tree.map(jnp.asarray, posterior.data)
        density = jax.jit(posterior.logdensity)(posterior.start(jax.random.key(0), data), data)
    assert np.isfinite(density)
    return panel


@pytest.mark.parametrize("name", sorted(CASES))
def test_published_tables_need_no_editing(run, cases, name):
    result = run("init", "media-mix", cases / f"{name}.csv")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert columns_of("mix.toml") == CASES[name]
    panel = works(cases / f"{name}.csv", "mix.toml")
    frame = pd.read_csv(cases / f"{name}.csv")
    assert panel.inside.sum() == len(frame)
    assert panel.has_spend == (name == "meridian_geo_media")
    for column in CASES[name][3].values():
        assert column in result.stdout


def test_columns_left_out_are_said_with_reasons(run, cases):
    run("init", "media-mix", cases / "pymc_marketing_roas.csv")
    text = Path("mix.toml").read_text()
    for column, reason in {
        "y01": "another y",
        "x1_adstock_saturated": "computed from other columns",
        "x2_effect": "computed from other columns",
        "epsilon": "error",
        "cs": "function of the date",
        "trend": "calendar",
        "quarter": "text such as '2021Q4'",
    }.items():
        assert any(f"#   {column}: " in line and reason in line for line in text.splitlines()), column


def test_simulated_markets_need_no_editing(run):
    simulate_markets(seed=3).frame.to_csv("markets.csv", index=False)
    assert run("init", "media-mix", "markets.csv", "--out", "markets.toml").exit_code == 0
    channels = ["spotify_ads", "meta", "tiktok", "youtube", "radio", "playlist"]
    expected = ("date", "market", "sales", {name: name for name in channels}, ["price_index"], ["holiday"], None)
    assert columns_of("markets.toml") == expected
    tables = tomllib.loads(Path("markets.toml").read_text())
    assert {name: table["kind"] for name, table in tables["channels"].items()} == {
        "spotify_ads": "audio",
        "meta": "social",
        "tiktok": "social",
        "youtube": "video",
        "radio": "audio",
        "playlist": "audio",
    }
    assert (tables["model"]["trend"], tables["model"]["seasonality"]) == ("linear", 2)
    assert works("markets.csv", "markets.toml").geos == ("DE", "UK", "FR", "NL", "ES", "IT", "PL", "SE")


def test_the_country_model_has_a_config_of_its_own(run, cases):
    assert run("init", "country-mix", cases / "bhmmm.csv").exit_code == 0
    config = read_config("mix.toml")
    assert config.type == "country_mix"
    assert config.media_mix_settings == ()
    tables = tomllib.loads(Path("mix.toml").read_text())
    assert tables["data"] == {"time": "Date", "geo": "Country", "target": "Sales"}
    assert list(tables["channels"]) == ["TV", "Radio", "Banners"]
    assert works(cases / "bhmmm.csv", "mix.toml").geos == ("Germany", "Austria", "Switzerland")
    # It has no place for anything beside the media.
    assert run("init", "country-mix", cases / "pymc_marketing_two_geos.csv", "--out", "two.toml").exit_code == 0
    assert "#   event_1: the model has no place for it" in Path("two.toml").read_text().splitlines()
    assert works(cases / "pymc_marketing_two_geos.csv", "two.toml").event_names == ()


def test_every_option_stands_in_the_template(run, cases):
    run("init", "media-mix", cases / "bhmmm.csv")
    text = Path("mix.toml").read_text()
    for option in (
        *("time", "geo", "target", "controls", "events", "population", "missing", "frequency"),
        *("type", "pooling", "effect", "trend", "seasonality", "likelihood", "centring"),
        *("file", "chains", "warmup", "draws", "seed", "target_accept", "max_tree_depth", "precision", "groups"),
    ):
        assert f"\n{option} = " in text or f"\n# {option} = " in text, option
    for option in ("media", "spend", "kind", "adstock", "l_max", "normalize", "saturation"):
        assert f"\n#   {option} " in text, option
    # A line is a setting once its mark is taken off.
    priors = text[text.index("[priors]") : text.index("# Experiments")]
    lines = [line.removeprefix("# ") for line in priors.splitlines() if " = " in line]
    Path("priors.toml").write_text(text.replace("[priors]", "\n".join(["[priors]", *lines])))
    before, after = (read_config(name) for name in ("mix.toml", "priors.toml"))
    panel = works(cases / "bhmmm.csv", "mix.toml")
    assert len(after.priors) >= 10
    assert after.model(panel).priors == before.model(panel).priors


def test_an_existing_file_stays(run, refuses, cases):
    Path("mix.toml").write_text("mine")
    said = refuses("init", "media-mix", cases / "bhmmm.csv")
    assert "'mix.toml' exists" in said
    assert "--force" in said
    assert Path("mix.toml").read_text() == "mine"
    assert run("init", "media-mix", cases / "bhmmm.csv", "--force").exit_code == 0
    assert read_config("mix.toml").data["target"] == "Sales"


def test_output_and_input_that_cannot_be(refuses):
    weekly(sales=level, tv=money).to_csv("data.csv", index=False)
    Path("file").write_text("")
    assert "not a folder" in refuses("init", "media-mix", "data.csv", "--out", "file/mix.toml")
    assert "'mix.toml' is a folder" in refuses_folder(refuses)
    assert "did you mean 'data.csv'" in refuses("init", "media-mix", "dta.csv", "--out", "other.toml")
    Path("twice.csv").write_text("week,tv,tv\n2024-01-01,1,2\n")
    assert "'tv' stands 2 times" in refuses("init", "media-mix", "twice.csv", "--out", "other.toml")
    assert not Path("other.toml").exists()


def refuses_folder(refuses):
    Path("mix.toml").mkdir()
    return refuses("init", "media-mix", "data.csv", "--force")


def test_media_and_spend_are_paired_by_what_is_left_of_their_names():
    frame = weekly(
        revenue=level,
        tvSpend=money,
        TVGrps=money,
        paid_search_cost=money,
        paid_search_clicks=money,
        paid_search_impressions=money,
        radio=money,
        newsletter_sends=money,
        total_spend=money,
        cost_per_click=level,
        competitor_spend=money,
        competitor_sales=level,
    )
    found = guess(frame)
    assert found.target == "revenue"
    assert found.channels == (
        GuessedChannel("tv", "TVGrps", "tvSpend", "video"),
        GuessedChannel("paid_search", "paid_search_impressions", "paid_search_cost", "search"),
        GuessedChannel("radio", "radio", None, "audio"),
    )
    # Nobody paid for the newsletter, whose sends are therefore no channel with a return.
    assert found.controls == ("competitor_spend", "competitor_sales", "newsletter_sends")
    assert found.left_out == {
        "paid_search_clicks": "another measure of paid_search",
        "total_spend": "a total of channels, by its name",
        "cost_per_click": "a ratio, by its name",
    }


def test_impressions_alone_are_channels():
    found = guess(weekly(orders=level, facebook_impressions=money, email_clicks=money))
    assert [(one.name, one.media, one.spend) for one in found.channels] == [
        ("facebook", "facebook_impressions", None),
        ("email", "email_clicks", None),
    ]


def test_letters_at_the_end_of_names_say_what_is_measured():
    found = guess(weekly(revenue=level, tv_S=money, facebook_I=money, facebook_S=money))
    assert found.channels == (
        GuessedChannel("tv", "tv_S", None, "video"),
        GuessedChannel("facebook", "facebook_I", "facebook_S", "social"),
    )


def test_without_names_columns_that_pause_are_media():
    found = guess(weekly(kpi=level, alpha=money, beta=money, gamma=level))
    assert [one.media for one in found.channels] == ["alpha", "beta"]
    assert found.controls == ("gamma",)


def test_values_tell_what_names_do_not():
    frame = weekly(
        sales=level,
        tv=money,
        promo=lambda rng, weeks: (rng.random(weeks) < 0.2).astype(int),
        constant=lambda rng, weeks: np.full(weeks, 3.0),
        wave=lambda rng, weeks: np.cos(2 * np.pi * 7 * (np.arange(weeks) + 4) / 365.25),
        gaps=lambda rng, weeks: np.where(np.arange(weeks) == 4, np.nan, rng.random(weeks)),
        price=level,
        noteworthy=lambda rng, weeks: ["fine"] * weeks,
    )
    frame["tv_gross"] = 1.19 * frame["tv"]
    frame["price_with_tax"] = 1.19 * frame["price"]
    frame["stores"] = np.repeat([12.0, 40.0], 60)
    frame["inhabitants"] = np.repeat([1200.0, 4000.0], 60)
    frame["row"] = np.arange(len(frame))
    found = guess(frame)
    assert (found.time, found.geo, found.target) == ("week", "region", "sales")
    assert found.events == ("promo",)
    assert found.controls == ("price",)
    assert found.population == "inhabitants"
    reasons = {
        "constant": "same in every row",
        "wave": "function of the date",
        "gaps": "2 cells without a number",
        "noteworthy": "text such as 'fine'",
        "price_with_tax": "nearly the same as price",
        "stores": "same on all dates of a geo",
        "row": "row numbers",
    }
    assert {name: reason for name, reason in found.left_out.items() if reasons.get(name, "?") not in reason} == {}
    assert set(found.left_out) == {*reasons}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Channel0_impression", ["Channel0", "impression"]),
        ("TVSpend", ["TV", "Spend"]),
        ("x1", ["x1"]),
        ("Werbung für Köln", ["Werbung", "für", "Köln"]),
        ("__", []),
    ],
)
def test_words_of_names(name, parts):
    assert words(name) == parts


def test_dates_and_geos_by_their_values():
    frame = weekly(sales=level, tv=money).rename(columns={"week": "when", "region": "sector"})
    frame["month"] = pd.to_datetime(frame["when"]).dt.strftime("%Y-%m-01")
    # A date column by name goes before one by place; one that repeats in a geo is told by no geo.
    assert (guess(frame.drop(columns="month")).time, guess(frame.drop(columns="month")).geo) == ("when", "sector")
    numbers = frame.drop(columns="month").assign(when=lambda t: t["when"].str.replace("-", "").astype(int))
    assert guess(numbers).time == "when"
    stamps = frame.drop(columns="month").assign(when=lambda t: pd.to_datetime(t["when"]))
    assert (guess(stamps).time, guess(stamps).geo) == ("when", "sector")


def test_a_table_that_cannot_be_fitted_yet_gets_a_config_and_a_word(run):
    frame = weekly(sales=level, tv=money)
    frame.drop(index=[5, 6]).to_csv("gaps.csv", index=False)
    result = run("init", "media-mix", "gaps.csv")
    assert result.exit_code == 0
    assert "cannot be fitted yet" in result.stderr
    assert "lacks 2 of the 60 weeks" in result.stderr
    Path("mix.toml").write_text(
        Path("mix.toml").read_text().replace('# missing = "error"', 'missing = "impute-zero-spend"')
    )
    assert works("gaps.csv", "mix.toml").inside.sum() == 120


def test_a_table_of_which_nothing_is_known(run):
    pd.DataFrame({"a": ["x", "y"], "b": [1.0, -2.0]}).to_csv("data.csv", index=False)
    result = run("init", "media-mix", "data.csv")
    assert result.exit_code == 0
    assert "there is no channel" in result.stderr
    for word in ("? fill in time", "? fill in target", "? add them"):
        assert word in result.stdout
    text = Path("mix.toml").read_text()
    assert 'time = "FILL IN"' in text
    assert '# media = "tv_spend"' in text


def test_windows_fit_the_calendar_and_the_shortest_geo(run):
    short = weekly(weeks=9, sales=level, tv=money, search=money)
    short.to_csv("short.csv", index=False)
    result = run("init", "media-mix", "short.csv")
    assert result.exit_code == 0
    tables = tomllib.loads(Path("mix.toml").read_text())
    # The preset for video is longer than nine weeks, that for search is not.
    assert tables["channels"]["tv"]["l_max"] == 9
    assert "l_max" not in tables["channels"]["search"]
    assert (tables["model"]["trend"], tables["model"]["seasonality"]) == ("none", 0)
    assert result.stderr == ""
    months = pd.DataFrame({"month": pd.date_range("2020-01-01", periods=30, freq="MS"), "tv": np.arange(30) % 7 * 10.0})
    months.assign(sales=np.arange(30) % 5 + 4).to_csv("months.csv", index=False)
    assert run("init", "media-mix", "months.csv", "--force").stderr == ""
    channel = tomllib.loads(Path("mix.toml").read_text())["channels"]["tv"]
    assert (channel["l_max"], "kind" in channel) == (4, False)


HOSTILE = [
    'tv "prime" spend',
    "back\\slash_spend",
    "tab\there_spend",
    "two\nlines_spend",
    "é_spend",
    "a.b_spend",
    "=_spend",
]


def test_any_name_survives(run):
    frame = weekly(sales=level, **dict.fromkeys(HOSTILE, money))
    frame = frame.rename(columns={"region": 'the "region"'})
    frame['the "region"'] = frame['the "region"'].map({"A": "007", "B": "7"})
    frame.to_csv("data.csv", index=False)
    result = run("init", "media-mix", "data.csv")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    panel = works("data.csv", "mix.toml")
    assert isinstance(panel, Panel)
    assert panel.geos == ("007", "7")
    config = read_config("mix.toml")
    assert [one.media for one in config.channels] == HOSTILE
    np.testing.assert_array_equal(panel.media[0, :, 3], frame["two\nlines_spend"][:60])


@pytest.mark.parametrize("command", [("init",), ("init", "media-mix"), ("init", "country-mix")])
def test_help(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
