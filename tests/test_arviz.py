"""ArviZ's own plots work on the trees: names, dimensions and coordinates are as they expect."""

import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest

import pelton
from pelton.examples import load

GROUPS = ("prior", "prior_predictive", "posterior_predictive", "log_likelihood")


@pytest.fixture(scope="module")
def rates():
    frame = load("categories").iloc[:8]
    model = pelton.PartialPooling.from_frame(frame, successes="clicks", trials="impressions", unit="category")
    return pelton.sample(model, chains=2, warmup=100, draws=200, groups=GROUPS, progress=False)


@pytest.fixture(scope="module")
def mix():
    data = pelton.simulate_media(geos=2, weeks=30, channels=1, seed=1)
    model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns), pooling="pooled")
    with warnings.catch_warnings(action="ignore"):  # so few draws do not converge
        return pelton.sample(model, chains=2, warmup=30, draws=50, groups=GROUPS, progress=False)


# Plot, variables of the rates, variables of the media mix.
PLOTS = {
    "plot_trace_dist": (["mu", "kappa"], ["coef"]),
    "plot_forest": (["rate"], ["coef", "alpha"]),
    "plot_ridge": (["rate"], ["coef"]),
    "plot_rank": (["mu", "kappa"], ["coef"]),
    "plot_ess": (["mu", "kappa"], ["coef"]),
    "plot_autocorr": (["mu", "kappa"], ["coef"]),
    "plot_pair": (["mu", "kappa"], ["coef"]),
    "plot_parallel": (["mu", "kappa"], ["coef"]),
}


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("which", ["rates", "mix"])
def test_arviz_draws_it(request, which, name, tmp_path):
    tree = request.getfixturevalue(which)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="arviz|matplotlib|xarray")
        getattr(az, name)(tree, var_names=PLOTS[name][which == "mix"]).savefig(tmp_path / "it.png")
    plt.close("all")
    assert (tmp_path / "it.png").stat().st_size > 3000


@pytest.mark.parametrize("which", ["rates", "mix"])
def test_arviz_reads_energy_and_predictions(request, which, tmp_path):
    tree = request.getfixturevalue(which)
    plots = [az.plot_energy, az.plot_ppc_dist] if which == "mix" else [az.plot_ppc_dist]
    for plot in plots:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plot(tree).savefig(tmp_path / "it.png")
        plt.close("all")
    assert set(GROUPS) <= set(tree.children)


def test_summary_carries_the_names(rates, mix):
    table = az.summary(rates, var_names=["rate"])
    assert list(table.index) == [f"rate[{unit}]" for unit in load("categories")["category"].iloc[:8]]
    assert "coef[market_1, spotify_ads]" in az.summary(mix, var_names=["coef"]).index
    with warnings.catch_warnings(action="ignore"):  # so few draws have heavy tails
        assert np.isfinite(az.loo(rates).elpd)
