"""The config file: what it says reaches the panel and the model, and each mistake has its own message."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pelton
from pelton.engine.errors import ArgumentError, DataError, DataWarning, UnknownNameError
from pelton.models import adstock, saturation
from pelton.models.baseline import PiecewiseTrend
from pelton.models.media_config import parse_config, read_config
from tests.models.media_configs import WHOLE

DATA = '[data]\ntime = "week"\ntarget = "sales"\n'
TV = "[channels.tv]\n"
SMALL = DATA + TV


def table(weeks=30, geos=("AT", "NA"), seed=1):
    """Country NA is a name, and no missing value."""
    rng = np.random.default_rng(seed)
    frames = []
    for number, geo in enumerate(geos):
        tv = np.where(rng.random(weeks) < 0.4, 0.0, rng.gamma(3.0, 30.0, weeks))
        clicks = rng.gamma(5.0, 100.0, weeks).round()
        frames.append(
            pd.DataFrame(
                {
                    "week": pd.date_range("2024-01-01", periods=weeks, freq="W-MON").strftime("%Y-%m-%d"),
                    "country": geo,
                    "sales": 900 + 2.0 * tv + 0.1 * clicks + rng.normal(0, 40, weeks),
                    "clicks": clicks,
                    "search_cost": 0.5 * clicks,
                    "tv": tv,
                    "price": rng.normal(10, 1, weeks),
                    "holiday": (np.arange(weeks) % 10 == 3).astype(int),
                    "people": 1000.0 * (number + 1),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def parse(text, path="mix.toml"):
    return parse_config(text, Path(path))


def test_the_whole_file_reaches_panel_and_model(tmp_path):
    (tmp_path / "mix.toml").write_text(WHOLE)
    lifts = "channel,geo,x,delta_x,delta_y,sigma\ntv,NA,50,20,30,10\nsearch,,300,100,8,4\n"
    (tmp_path / "lifts.csv").write_text(lifts)
    config = read_config(tmp_path / "mix.toml")
    frame = table()
    panel = config.panel(frame)
    assert panel.channels == ("search", "tv")
    assert panel.geos == ("AT", "NA")
    assert (panel.control_names, panel.event_names) == (("price",), ("holiday",))
    # The table's cells, geo after geo.
    for values, column in (
        (panel.media[..., 0], "clicks"),
        (panel.spend[..., 0], "search_cost"),
        (panel.media[..., 1], "tv"),
        (panel.spend[..., 1], "tv"),
        (panel.target, "sales"),
        (panel.controls[..., 0], "price"),
    ):
        np.testing.assert_array_equal(values.ravel(), frame[column])
    assert panel.population is not None
    np.testing.assert_array_equal(panel.population, [1000, 2000])
    model = config.model(panel)
    assert model.pooling == {
        "adstock": "pooled",
        "saturation": "hierarchical",
        "effect": "hierarchical",
        "baseline": "hierarchical",
    }
    assert model.likelihood == "student_t"
    assert model.centring == 0.5
    said = model.describe()
    assert [channel["adstock"]["name"] for channel in said["channels"]] == ["geometric", "delayed"]
    assert said["channels"][1]["adstock"] | {"parameters": {}} == {
        "name": "delayed",
        "l_max": 8,
        "normalize": False,
        "parameters": {},
    }
    assert [channel["saturation"]["name"] for channel in said["channels"]] == ["hill", "tanh"]
    assert (said["effect"], said["trend"]) == ("roi", "piecewise")
    assert model.structure.trend == PiecewiseTrend(changepoints=2)
    assert model.base.kinds.count("seasonality") == 2
    assert model.priors["alpha"] == "Beta(2, 6)"
    assert model.priors["half_saturation"] == "LogNormal(0.1, 0.3)"
    assert model.lift_tests is not None
    np.testing.assert_array_equal(model.lift_tests.lift, [30, 8])
    np.testing.assert_array_equal(model.lift_tests.media[0], [0, 50])
    assert config.sampling == {
        "sampler": "numpyro-nuts",
        "chains": 2,
        "warmup": 30,
        "draws": 40,
        "seed": 7,
        "target_accept": 0.9,
        "max_tree_depth": 8,
        "precision": "float64",
        "groups": ["log_likelihood"],
    }


def test_what_is_left_out_has_the_defaults_of_the_model():
    config = parse(SMALL)
    frame = table(geos=("AT",))[["week", "sales", "tv"]]
    model = config.model(config.panel(frame))
    plain = pelton.MediaMix(pelton.Panel.from_frame(frame, time="week", target="sales", media=["tv"]))
    assert model.describe() == plain.describe()
    assert model.priors == plain.priors
    assert model.structure == plain.structure
    assert config.sampling == {}
    assert config.type == "media_mix"


@pytest.mark.parametrize("kind", sorted(adstock.KINDS))
def test_a_kind_stands_for_its_presets(kind):
    channel = parse(f'{SMALL}kind = "{kind}"\n').channels[0]
    assert channel.adstock_object() == adstock.for_kind(kind)
    assert channel.saturation_object() == saturation.for_kind(kind)


def test_what_is_said_goes_before_the_kind():
    def channel(lines):
        return parse(f'{SMALL}kind = "video"\n{lines}').channels[0]

    assert channel("l_max = 5\n").adstock_object() == adstock.for_kind("video", l_max=5)
    assert channel('l_max = "endless"\n').adstock_object().l_max is None
    delayed = channel('adstock = "delayed"\n').adstock_object()
    assert delayed == adstock.Delayed(l_max=adstock.KINDS["video"].l_max)
    assert channel('saturation = "root"\n').saturation_object() == saturation.Root()
    assert channel("normalize = false\n").adstock_object().normalize is False


def test_presets_are_for_weeks():
    days = pd.DataFrame({"week": pd.date_range("2024-01-01", periods=40), "tv": np.arange(40.0) % 7})
    days["sales"] = 5 + days["tv"] + np.arange(40) % 3
    config = parse(f'{SMALL}kind = "social"\n')
    with pytest.warns(DataWarning, match=r"for weeks, but the table has days: leave out the kind of 'tv'"):
        config.model(config.panel(days))


def test_the_country_mix_says_what_it_has_no_use_for():
    frame = table()
    config = parse(
        SMALL.replace("[channels", 'geo = "country"\n[channels') + 'kind = "video"\n[priors]\nalpha = "Beta(1, 3)"\n'
    )
    words = r"do not apply: \[channels.tv\] kind, \[priors\] alpha$"
    with pytest.warns(DataWarning, match=words):
        model = config.model(config.panel(frame), "country_mix")
    assert type(model).__name__ == "CountryMix"
    plain = parse(SMALL + '[model]\ntype = "country_mix"\n')
    assert plain.type == "country_mix"
    assert plain.media_mix_settings == ()


def test_columns_say_which_key_names_them():
    config = parse(WHOLE)
    assert config.numbers == {
        "sales": "[data] target",
        "clicks": "[channels.search] media",
        "search_cost": "[channels.search] spend",
        "tv": "[channels.tv] media",
        "price": "[data] controls",
        "holiday": "[data] events",
        "people": "[data] population",
    }
    assert config.labels == {"week": "[data] time", "country": "[data] geo"}
    with pytest.raises(
        UnknownNameError, match=r"column at \[channels.search\] spend of 'mix.toml': 'search_cost'; did"
    ):
        config.panel(table().rename(columns={"search_cost": "search_costs"}))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[data", ArgumentError, ["'mix.toml' is no valid TOML", "']'"]),
        ("[data]\ntime = week\n", ArgumentError, ["no valid TOML", "line 2", "quotes"]),
        ("", ArgumentError, ["[data] lacks time"]),
        ('[data]\ntime = "week"\n' + TV, ArgumentError, ["[data] lacks target"]),
        (DATA, ArgumentError, ["there is no channel", "[channels.tv]"]),
        (DATA + "[channels]\n", ArgumentError, ["there is no channel"]),
        ("data = 3\n", ArgumentError, ["data is 3, a whole number", "[data]"]),
        (DATA + "[channels]\ntv = 5\n", ArgumentError, ["[channels] tv is 5, a whole number", "[channels.tv]"]),
        (SMALL + "[sampel]\n", UnknownNameError, ["table in 'mix.toml': 'sampel'", "'sampling'"]),
        ("sales = 3\n" + SMALL, UnknownNameError, ["table in 'mix.toml': 'sales'"]),
        (DATA + 'contrls = ["a"]\n' + TV, UnknownNameError, ["key of [data] in 'mix.toml': 'contrls'", "'controls'"]),
        (SMALL + 'satuation = "hill"\n', UnknownNameError, ["key of [channels.tv]", "'satuation'", "'saturation'"]),
        (SMALL + "[model]\nseasonalty = 2\n", UnknownNameError, ["key of [model]", "'seasonality'"]),
        (DATA + 'controls = "price"\n' + TV, ArgumentError, ['[data] controls is "price", text', "a list of texts"]),
        (DATA + "controls = [1]\n" + TV, ArgumentError, ["[data] controls is [1], a list"]),
        (DATA + 'geo = ""\n' + TV, ArgumentError, ["[data] geo", "not empty"]),
        (DATA + "geo = 2024-01-01\n" + TV, ArgumentError, ["[data] geo is 2024-01-01, a date or time"]),
        (SMALL + "l_max = 2.5\n", ArgumentError, ["[channels.tv] l_max is 2.5, a number", "endless"]),
        (SMALL + "l_max = 0\n", ArgumentError, ["'mix.toml': [channels.tv]", "l_max is 0"]),
        (SMALL + 'adstock = "delayed"\nl_max = "endless"\n', ArgumentError, ["[channels.tv]", "only the geometric"]),
        (SMALL + 'normalize = "yes"\n', ArgumentError, ['normalize is "yes", text', "true or false"]),
        (SMALL + 'adstock = "geometrc"\n', UnknownNameError, ["adstock at [channels.tv] adstock", "'geometric'"]),
        (SMALL + 'saturation = "hil"\n', UnknownNameError, ["saturation at [channels.tv] saturation", "'hill'"]),
        (SMALL + 'kind = "tv"\n', UnknownNameError, ["kind of channel at [channels.tv] kind", "video"]),
        (DATA + 'missing = "fill"\n' + TV, UnknownNameError, ["choice at [data] missing", "impute-zero-spend"]),
        (DATA + 'frequency = "W-MO"\n' + TV, UnknownNameError, ["[data] frequency", "'W-MON'"]),
        (SMALL + "[model]\nseasonality = true\n", ArgumentError, ["seasonality is true, a truth value", "whole"]),
        (SMALL + '[model]\npooling = "hierarchic"\n', UnknownNameError, ["[model] pooling", "'hierarchical'"]),
        (SMALL + '[model]\npooling = {adstok = "pooled"}\n', UnknownNameError, ["block", "'adstok'", "'adstock'"]),
        (SMALL + '[model]\npooling = {adstock = "pool"}\n', UnknownNameError, ["[model] pooling", "'pooled'"]),
        (SMALL + '[model]\ntrend = "linea"\n', UnknownNameError, ["[model] trend", "'linear'", "none"]),
        (SMALL + "[model]\ntrend = {changepoints = 2}\n", ArgumentError, ["[model] trend", "with a name"]),
        (
            SMALL + '[model]\ntrend = {name = "linear", knots = 2}\n',
            UnknownNameError,
            ["key of [model] trend", "'knots'"],
        ),
        (
            SMALL + '[model]\ntrend = {name = "piecewise", changepoints = 0}\n',
            ArgumentError,
            ["[model] trend", "changepoints", "at least 1, not 0"],
        ),
        (SMALL + '[model]\neffect = "roas"\n', UnknownNameError, ["effect at [model] effect", "'roas'"]),
        (SMALL + '[model]\ncentring = "all"\n', ArgumentError, ['centring is "all", text', "auto"]),
        (SMALL + '[model]\ntype = "mediamix"\n', UnknownNameError, ["type of model", "'media_mix'"]),
        (SMALL + "[priors]\nalpha = 0.5\n", ArgumentError, ["[priors] alpha is 0.5, a number", "Beta(1, 3)"]),
        (SMALL + '[priors]\nalpha = "Beta(1)"\n', ArgumentError, ["'mix.toml': [priors] alpha", "'Beta(1)'"]),
        (SMALL + '[priors]\nalpha = "Bta(1, 3)"\n', UnknownNameError, ["[priors] alpha", "'Bta'", "'Beta'"]),
        (SMALL + "[sampling]\nchains = 2.0\n", ArgumentError, ["[sampling] chains is 2.0, a number", "whole"]),
        (SMALL + '[sampling]\nsampler = "nuts2"\n', UnknownNameError, ["sampler at [sampling] sampler", "nuts"]),
        (SMALL + '[sampling]\nprecision = "float16"\n', UnknownNameError, ["precision", "'float32'"]),
        (
            SMALL + '[sampling]\ngroups = ["loglik"]\n',
            UnknownNameError,
            ["group at [sampling] groups", "log_likelihood"],
        ),
    ],
)
def test_each_mistake_names_its_place_and_what_would_do(text, error, words):
    with pytest.raises(error) as caught:
        parse(text)
    for word in words:
        assert word in str(caught.value)


def test_priors_that_no_parameter_has():
    config = parse(SMALL + '[priors]\n"alpha[radio]" = "Beta(1, 3)"\n')
    panel = config.panel(table(geos=("AT",)))
    with pytest.raises(UnknownNameError, match=r"prior 'alpha\[radio\]'; did you mean 'alpha\[tv\]'"):
        config.model(panel)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "mix.toml").write_text(SMALL)
    with pytest.raises(ArgumentError, match=r"no config .*mx.toml'; did you mean .*mix.toml'.*pelton init media-mix"):
        read_config(tmp_path / "mx.toml")
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[data]\ntime = "K\xf6ln"\n')
    with pytest.raises(ArgumentError, match="not UTF-8 at byte 16"):
        read_config(tmp_path / "latin.toml")
    (tmp_path / "mark.toml").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert read_config(tmp_path / "mark.toml").channels[0].name == "tv"


def test_lift_tests_that_cannot_be_read(tmp_path):
    config = parse(SMALL + '[lift_tests]\nfile = "lifts.csv"\n', tmp_path / "mix.toml")
    panel = config.panel(table(geos=("AT",)))
    with pytest.raises(DataError, match=r"\[lift_tests\] file .*lifts.csv' does not exist; .*beside the config"):
        config.model(panel)
    for text, words in (("", "cannot be read as CSV"), ("channel,x\ntv,1\n", "no column 'delta_x'")):
        (tmp_path / "lifts.csv").write_text(text)
        with pytest.raises(DataError, match=words):
            config.model(panel)


def test_channels_keep_their_order_and_may_have_any_name():
    config = parse(DATA + '[channels."TV \\"late\\" / é"]\nmedia = "b"\n[channels.a]\n[channels."1.5"]\nmedia = "c"\n')
    assert [(one.name, one.media) for one in config.channels] == [('TV "late" / é', "b"), ("a", "a"), ("1.5", "c")]
