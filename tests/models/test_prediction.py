"""Predictions of units against the beta-binomial, and of weeks to come against plain loops."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import pelton
from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from tests.models import media_trees as oracle

TRIALS = 40


@pytest.fixture(scope="module")
def regions():
    """A fit with regions and a covariate, its draws few: what is tested is arithmetic."""
    rng = np.random.default_rng(2)
    n = rng.integers(50, 200, 24)
    frame = pd.DataFrame(
        {"k": rng.binomial(n, 0.3), "n": n, "shop": [f"s{i}" for i in range(24)], "land": ["x", "y", "z"] * 8}
    )
    frame["size"] = rng.normal(5, 2, 24)
    model = pelton.PartialPooling.from_frame(
        frame, successes="k", trials="n", unit="shop", groups="land", covariates=["size"]
    )
    with np.errstate(all="ignore"), pytest.warns(pelton.errors.ConvergenceWarning):
        return frame, pelton.sample(model, chains=2, warmup=50, draws=100, progress=False)


def mixture(tree, land, size, frame, k=0, n=0):
    """Mean and sd of the prediction: a mixture of beta-binomials over the draws, in plain NumPy."""
    posterior = tree["posterior"]
    slope = np.asarray(posterior["coefficient"]).ravel() * (size - frame["size"].mean())
    logit = np.asarray(posterior["logit_mu"].sel(group=land)).ravel() + slope
    kappa = np.exp(np.asarray(posterior["log_kappa"].sel(group=land)).ravel())
    mu = 1 / (1 + np.exp(-logit))
    each = stats.betabinom(TRIALS, mu * kappa + k, (1 - mu) * kappa + n - k)
    return each.mean().mean(), np.sqrt(each.var().mean() + each.mean().var())


def test_predictions_are_the_mixture_of_beta_binomials(regions):
    frame, tree = regions
    row = frame.iloc[4]
    table = pelton.predict_rates(
        tree,
        [TRIALS, TRIALS],
        unit=["s4", "new"],
        groups=[None, "z"],
        covariates=pd.DataFrame({"size": [row["size"], 7.0]}),
    )
    for name, (land, size, k, n) in {
        "s4": (row["land"], row["size"], row["k"], row["n"]),
        "new": ("z", 7.0, 0, 0),
    }.items():
        mean, sd = mixture(tree, land, size, frame, k, n)
        # 200 draws of the parameters are shared; theta and the count are drawn once for each.
        assert abs(table.loc[name, "successes"] - mean) < 5 * sd / np.sqrt(200)
    assert table["known"].tolist() == [True, False]


def test_predictions_refuse(regions):
    frame, tree = regions
    sizes = pd.DataFrame({"size": [frame["size"].iloc[0]]})
    with pytest.raises(ArgumentError, match="say which group"):
        pelton.predict_rates(tree, [3], unit=["new"], covariates=sizes)
    with pytest.raises(DataError, match="no group 'w'"):
        pelton.predict_rates(tree, [3], unit=["new"], groups=["w"], covariates=sizes)
    with pytest.raises(DataError, match="was fitted in group 'x'"):
        pelton.predict_rates(tree, [3], unit=["s0"], groups=["y"], covariates=sizes)
    with pytest.raises(DataError, match="was fitted with size"):
        pelton.predict_rates(tree, [3], unit=["s0"], covariates=[[1.0]])
    with pytest.raises(ArgumentError, match="need their covariates"):
        pelton.predict_rates(tree, [3], unit=["new"], groups=["x"])
    for trials in ([-1], [1.5], [float("nan")], []):
        with pytest.raises(DataError, match="trials"):
            pelton.predict_rates(tree, trials)


@pytest.fixture(scope="module")
def weeks():
    """A short fit of two geos, and the weeks after it."""
    data = pelton.simulate_media(geos=2, weeks=[60, 50], channels=2, seed=4)
    frame, named = data.frame, dict(data.columns)
    frame["market"] = frame[named["geo"]]
    last = frame.groupby("market")["date"].transform("max")
    past = frame[frame["date"] <= last - pd.Timedelta(weeks=5)]
    model = pelton.MediaMix(
        pelton.Panel.from_frame(past, **named),
        adstock=pelton.adstock.Geometric(l_max=6),
        trend="piecewise",
        seasonality=1,
    )
    with pytest.warns(pelton.errors.ConvergenceWarning):
        tree = pelton.sample(model, chains=1, warmup=20, draws=25, progress=False)
    return tree, frame.drop(index=past.index), past, named


def test_forecasts_are_the_model_in_plain_loops(weeks):
    tree, plan, past, named = weeks
    found = pelton.forecast(tree, plan)
    posterior, constant = tree["posterior"], tree["constant_data"]
    dates = np.asarray(constant["time"].values, "M8[D]")
    geo = str(constant["geo"].values[0])
    rows = plan[plan["market"] == geo]
    whole = pd.concat([past[past["market"] == geo], rows])
    t = np.arange(len(whole))
    scale = len(dates) - 1
    u = t / scale - 0.5
    terms = [str(term) for term in constant["term"].values]
    knots = np.linspace(-0.5, 0.5, 7)[1:-1]
    days = (np.asarray(whole["date"], "M8[D]") - np.datetime64("1970-01-01")).astype(float)
    columns = {"intercept": np.ones(len(t)), "trend": u}
    columns |= {f"trend_change_{j + 1}": np.maximum(u - knot, 0) for j, knot in enumerate(knots)}
    columns |= {"seasonality[sin_1]": np.sin(2 * np.pi * days / 365.25)}
    columns |= {"seasonality[cos_1]": np.cos(2 * np.pi * days / 365.25)}
    for name in named.get("controls", ()):
        columns[f"control[{name}]"] = (whole[name] - past[name].mean()) / past[name].std(ddof=0)
    for name in named.get("events", ()):
        columns[f"event[{name}]"] = whole[name]
    assert set(columns) == set(terms)
    assert len(dates) == len(whole) - len(rows)
    draws = posterior.sizes["draw"]
    mean = np.zeros((draws, len(t)))
    for d in range(draws):
        at = {"chain": 0, "draw": d, "geo": 0}
        for term in terms:
            mean[d] += float(posterior["baseline_coefficient"].isel(at).sel(term=term)) * np.asarray(columns[term])
        for c, name in enumerate(named["media"]):
            values = {
                key: float(posterior[key].isel(at).isel({posterior[key].dims[-1]: c}))
                for key in ("alpha", "half_saturation", "slope", "coef")
            }
            weights = values["alpha"] ** np.arange(6)
            weights /= weights.sum()
            x = np.convolve(np.asarray(whole[name], float), weights)[: len(t)]
            power = x ** values["slope"]
            mean[d] += values["coef"] * power / (power + values["half_saturation"] ** values["slope"])
    np.testing.assert_allclose(found.loc[geo, "mean"], mean[:, -len(rows) :].mean(axis=0), rtol=1e-8)
    np.testing.assert_allclose(found.loc[geo, "low"], np.quantile(mean[:, -len(rows) :], 0.03, axis=0), rtol=1e-8)
    # Noise comes on top: single weeks are less certain than their expectations.
    assert (found["noise_high"] - found["noise_low"]).sum() > (found["high"] - found["low"]).sum()


def test_forecasts_refuse(weeks):
    tree, plan, past, named = weeks
    with pytest.raises(DataError, match="fitted up to"):
        pelton.forecast(tree, past)
    with pytest.raises(DataError, match="lacks"):
        pelton.forecast(tree, plan.drop(index=plan.index[1]))
    with pytest.raises(DataError, match="twice"):
        pelton.forecast(tree, pd.concat([plan, plan.iloc[:1]]))
    with pytest.raises(DataError, match="negative"):
        pelton.forecast(tree, plan.assign(**{named["media"][0]: -1.0}))
    with pytest.raises(UnknownNameError, match="'market_9'"):
        pelton.forecast(tree, plan.assign(market="market_9"))
    with pytest.raises(UnknownNameError, match=named["media"][0]):
        pelton.forecast(tree, plan.drop(columns=named["media"][0]))
    with pytest.raises(DataError, match="dates are"):
        pelton.forecast(tree, plan.assign(date=plan["date"] + pd.Timedelta(days=1)))
    with pytest.raises(ArgumentError, match="cannot be carried on"):
        pelton.forecast(oracle.media_tree(), oracle_plan())


def oracle_plan():
    tree = oracle.media_tree()
    names = [*tree["constant_data"]["channel"].values, "price", "holiday"]
    last = np.asarray(tree["constant_data"]["time"].values)[-1]
    return pd.DataFrame({"week": [last + np.timedelta64(7, "D")], "country": "DE"} | dict.fromkeys(names, 1.0))
