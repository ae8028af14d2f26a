"""pelton on the suite's models, by the same protocol as its rivals: from the data to the draws, by its public names."""

import time
import warnings
from typing import Any

import jax.monitoring  # noqa: F401  (before the launcher listens for what JAX compiles)
import numpy as np
import pandas as pd

import pelton

PACKAGES = ["pelton", "jax", "jaxlib", "numpyro", "blackjax", "arviz", "numpy", "scipy", "pymc", "pymc-marketing"]


def _table(data: dict[str, np.ndarray]) -> pd.DataFrame:
    """The table whose columns stand among the data."""
    return pd.DataFrame({name.split(".", 1)[1]: values for name, values in data.items() if name.startswith("table.")})


def _rates(job: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import numpyro.distributions as dist

    prior = {
        "gamma": pelton.GammaShapes(0.5, 0.5),
        "mean_concentration": pelton.MeanConcentration(mean=dist.Beta(2, 2), concentration=dist.Pareto(1.0, 1.5)),
        "bda": pelton.Bda(),
    }[job["settings"]["prior"]]
    return pelton.PartialPooling(data["successes"], data["trials"], prior=prior)


def _eight_schools(effect: Any, error: Any) -> None:
    """mean ~ Normal(0, 5), between ~ HalfCauchy(5), truth ~ Normal(mean, between), by offsets."""
    import numpyro
    import numpyro.distributions as dist

    mean: Any = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    between: Any = numpyro.sample("between", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(effect)):
        offset: Any = numpyro.sample("offset", dist.Normal(0.0, 1.0))
        truth: Any = numpyro.deterministic("truth", mean + between * offset)
        numpyro.sample("effect", dist.Normal(truth, error), obs=effect)


def _radon(county: Any, floor: Any, log_radon: Any, offsets: Any) -> None:
    """Intercepts by county about a common mean, by offsets."""
    import numpyro
    import numpyro.distributions as dist

    mean: Any = numpyro.sample("mean", dist.Normal(0.0, 3.0))
    spread: Any = numpyro.sample("spread", dist.HalfNormal(1.0))
    slope: Any = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    noise: Any = numpyro.sample("noise", dist.HalfNormal(2.0))
    offset: Any = numpyro.sample("offset", dist.Normal(offsets, 1.0))
    mu = (mean + spread * offset)[county] + slope * floor
    numpyro.sample("log_radon", dist.Normal(mu, noise), obs=log_radon)


def _media_mix(job: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    columns = job["settings"]["columns"]
    table = _table(data)
    table[columns["time"]] = pd.to_datetime(table[columns["time"]])
    panel = pelton.Panel.from_frame(table, **columns)
    delayed = {name: pelton.adstock.Delayed() for name in job["settings"]["delayed"]}
    return pelton.MediaMix(panel, adstock=delayed, trend="linear", seasonality=2)


def _media_draws(tree: Any, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The quantities in scaled units."""
    posterior = tree["posterior"]
    found = {
        name: posterior[name].values
        for name in ("alpha", "slope", "contribution", "contribution_population", "contribution_sd")
    }
    if "theta" in posterior:
        found["theta"] = posterior["theta"].values
    found["half_saturation"] = posterior["half_saturation"].values / data["media_scale"]
    found["intercept"] = posterior["baseline_coefficient"].values[..., 0] / data["target_scale"]
    found["sigma"] = posterior["sigma"].values / data["target_scale"]
    return found


def _countries(data: dict[str, np.ndarray]) -> Any:
    from pelton.models.countries import country_mix

    tables = []
    for at in range(int(data["countries"])):
        media, sales = data[f"media_{at}"], data[f"sales_{at}"]
        # Each country's last week is the same.
        dates = pd.date_range(end="2020-01-05", periods=len(sales), freq="W-SUN")
        table = pd.DataFrame({f"channel_{channel}": media[:, channel] for channel in range(media.shape[1])})
        tables.append(table.assign(date=dates, geo=f"{at}", sales=sales))
    names = [f"channel_{channel}" for channel in range(data["media_0"].shape[1])]
    frame = pd.concat(tables)
    return country_mix(pelton.Panel.from_frame(frame, time="date", geo="geo", target="sales", media=names))


def _country_draws(tree: Any) -> dict[str, np.ndarray]:
    """Every parameter by its name in the plain model."""
    posterior = tree["posterior"]
    found = {name: posterior[name].values for name in ("coef_lam", "sat_lam", "base_lam", "car_alpha", "car_beta")}
    for geo in posterior["geo"].values:
        for name in ("base", "noise"):
            found[f"{name}_{geo}"] = posterior[name].sel(geo=geo).values
        for at, channel in enumerate(posterior["channel"].values):
            for name in ("coef", "sat", "car"):
                found[f"{name}_{geo}_{at}"] = posterior[name].sel(geo=geo, channel=channel).values
    return found


def _source(job: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    match job["model"]:
        case "rates":
            found = _rates(job, data)
        case "eight_schools":
            found = pelton.from_numpyro(_eight_schools, data["effect"], data["error"])
        case "radon":
            offsets = np.zeros(int(data["counties"]))
            found = pelton.from_numpyro(_radon, data["county"], data["floor"], data["log_radon"], offsets)
        case "media_mix":
            found = _media_mix(job, data)
        case "countries":
            found = _countries(data)
        case "meridian":
            from pelton.benchmarks import meridian_model

            found = pelton.from_numpyro(meridian_model.model, meridian_model.scaled(_table(data)))
        case "pymc_marketing":
            found = _pymc_marketing(data)
        case other:
            raise ValueError(f"no model {other!r} here")
    return found


def _pymc_marketing(data: dict[str, np.ndarray]) -> Any:
    """The rival's own model, built by the rival's own file, as a Posterior of pelton's."""
    from pelton.benchmarks.rivals.pymc_marketing import run as rival

    mmm, table, target = rival.build(data)
    mmm.build_model(table, target)
    return pelton.from_pymc(mmm.model)


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """`pelton.sample` with its defaults but for the settings of the job."""
    chosen = {name: job["settings"][name] for name in ("sampler", "target_accept") if name in job["settings"]}
    settings = {name: job[name] for name in ("chains", "warmup", "draws", "seed")} | chosen
    if job.get("device"):
        settings["device"] = job["device"]
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree: Any = pelton.sample(_source(job, data), progress=False, **settings)
    posterior, attrs = tree["posterior"], tree.attrs
    match job["model"]:
        case "rates":
            alpha, beta = (posterior[name].values for name in ("alpha", "beta"))
            draws = {"logit_mu": np.log(alpha / beta), "log_kappa": np.log(alpha + beta)}
        case "media_mix":
            draws = _media_draws(tree, data)
        case "countries":
            draws = _country_draws(tree)
        case _:
            draws = {name: posterior[name].values for name in job["quantities"]}
    stats = tree["sample_stats"]
    # Of a PyMC model, as of its rival there, what is not sampling counts as compiling: PyTensor's rewriting is.
    running = float(attrs["seconds_warmup"]) + float(attrs["seconds_sampling"])
    compiling = time.perf_counter() - began - running if job["model"] == "pymc_marketing" else None
    return {
        "draws": draws,
        "compiling": compiling,
        "warmup": float(attrs["seconds_warmup"]),
        "sampling": float(attrs["seconds_sampling"]),
        "gradients": int(stats["n_steps"].sum()) if "n_steps" in stats else None,
        "divergences": int(stats["diverging"].sum()) if "diverging" in stats else None,
        "notes": [f"sampler {attrs['sampler']}, {attrs['precision']}"],
    }
