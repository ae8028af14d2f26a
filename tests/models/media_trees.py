"""Trees of media mixes with made-up posteriors, and their response in plain NumPy loops."""

import json

import numpy as np
import xarray as xr
from scipy import signal, stats

GEOS = ("DE", "PL", "SE")

# name: (adstock, l_max, normalize, saturation)
MIXED = {
    "tv": ("geometric", 8, True, "hill"),
    "radio": ("delayed", 6, True, "hill"),
    "search": ("geometric", None, True, "exponential"),
    "video": ("weibull_cdf", 5, False, "michaelis_menten"),
    "posters": ("geometric", 8, True, "hill"),
}
PARAMETERS = {
    "geometric": ("alpha",),
    "delayed": ("alpha", "theta"),
    "binomial": ("alpha",),
    "weibull_pdf": ("weibull_scale", "weibull_shape"),
    "weibull_cdf": ("weibull_scale", "weibull_shape"),
    "hill": ("half_saturation", "slope"),
    "exponential": ("rate",),
    "logistic": ("rate",),
    "michaelis_menten": ("half_saturation",),
    "tanh": ("tanh_scale",),
    "root": ("power",),
}


def draws_of(name, rng, shape, scale):
    """Posterior draws of a parameter [chain, draw, geo, channel], given the media's scale [geo, channel]."""
    spread = np.exp(0.15 * rng.normal(size=shape) + 0.2 * rng.normal(size=shape[2:]))
    return {
        "alpha": lambda: np.clip(0.5 * spread, 0.02, 0.93),
        "theta": lambda: np.clip(1.5 * spread, 0.0, 5.0),
        "weibull_scale": lambda: 2.0 * spread,
        "weibull_shape": lambda: 1.5 * spread,
        "half_saturation": lambda: 1.2 * scale * spread,
        "slope": lambda: 1.3 * spread,
        "rate": lambda: 0.7 / scale * spread,
        "tanh_scale": lambda: 1.5 * scale * spread,
        "power": lambda: np.clip(0.6 * spread, 0.1, 0.99),
    }[name]()


def media_tree(
    channels=None, geos=GEOS, weeks=40, chains=2, draws=20, seed=0, has_spend=False, likelihood="normal", noise=True
):
    """A tree of MediaMix to the letter of its contract: ragged geos, one of them without the last channel."""
    channels = MIXED if channels is None else channels
    names = list(channels)
    rng = np.random.default_rng(seed)
    G, T, C = len(geos), weeks, len(names)
    first = np.array([(3 * g) % max(1, T // 3) for g in range(G)])
    last = np.array([T - (4 * g) % max(1, T // 4) for g in range(G)])
    inside = (np.arange(T) >= first[:, None]) & (np.arange(T) < last[:, None])
    spend = rng.gamma(2.0, 40.0, (G, T, C)) * (rng.random((G, T, C)) < 0.7) * inside[..., None]
    spend[-1, :, -1] = 0.0
    media = spend * rng.uniform(5.0, 20.0, (G, 1, C)) if has_spend else spend.copy()
    active = np.where(media > 0, media, np.nan)
    scale = np.array(
        [[np.nanmean(active[g, :, c]) if (media[g, :, c] > 0).any() else 80.0 for c in range(C)] for g in range(G)]
    )
    coords = {"chain": np.arange(chains), "draw": np.arange(draws), "geo": list(geos), "channel": names}
    coords["time"] = np.datetime64("2023-01-01", "ns") + np.arange(T) * np.timedelta64(7, "D")
    posterior = {}
    members = {}
    for name, (adstock, _, _, saturation) in channels.items():
        for parameter in (*PARAMETERS[adstock], *PARAMETERS[saturation]):
            members.setdefault(parameter, []).append(name)
    for parameter, of in members.items():
        at = [names.index(name) for name in of]
        dim = "channel" if len(of) == C else f"{parameter}_channel"
        values = draws_of(parameter, rng, (chains, draws, G, len(of)), scale[:, at])
        posterior[parameter] = (("chain", "draw", "geo", dim), values)
        coords[dim] = of
    level = 500.0 * (1 + np.arange(G))
    shape = (chains, draws, G, C)
    posterior["coef"] = (
        ("chain", "draw", "geo", "channel"),
        0.3 * level[:, None] * np.exp(0.3 * rng.normal(size=shape)),
    )
    terms = ["intercept", "trend", "sin_1", "cos_1", "price", "holiday"]
    coords["term"] = terms
    time = np.arange(T) / T - 0.5
    design = np.stack(
        [
            np.broadcast_to(column, (G, T))
            for column in (
                np.ones(T),
                time,
                np.sin(2 * np.pi * np.arange(T) / 52),
                np.cos(2 * np.pi * np.arange(T) / 52),
                rng.normal(size=(G, T)),
                (np.arange(T) % 26 == 5) * 1.0,
            )
        ],
        axis=-1,
    )
    middle = level[:, None] * np.array([1.0, 0.1, 0.05, 0.05, -0.05, 0.2])
    baseline = middle + 0.02 * level[:, None] * rng.normal(size=(chains, draws, G, len(terms)))
    posterior["baseline_coefficient"] = (("chain", "draw", "geo", "term"), baseline)
    sigma = 0.05 * level * np.exp(0.1 * rng.normal(size=(chains, draws, G)))
    posterior["sigma"] = (("chain", "draw", "geo"), sigma)
    if likelihood == "student_t":
        posterior["nu"] = (("chain", "draw"), 4.0 + rng.random((chains, draws)))
    described = [
        {
            "name": name,
            "adstock": {
                "name": adstock,
                "l_max": l_max,
                "normalize": normalize,
                "parameters": {p: p for p in PARAMETERS[adstock]},
            },
            "saturation": {"name": saturation, "parameters": {p: p for p in PARAMETERS[saturation]}},
            "coef": "coef",
        }
        for name, (adstock, l_max, normalize, saturation) in channels.items()
    ]
    settings = {
        "kind": "media_mix",
        "target": "sales",
        "time": "week",
        "geo": "country",
        "frequency": "W-SUN",
        "period_days": 7.0,
        "has_spend": has_spend,
        "likelihood": likelihood,
        "pooling": dict.fromkeys(("adstock", "saturation", "effect", "baseline"), "hierarchical"),
        "channels": described,
    }
    constant = {
        "media": (("geo", "time", "channel"), media),
        "spend": (("geo", "time", "channel"), spend),
        "inside": (("geo", "time"), inside.astype(np.int8)),
        "baseline_design": (("geo", "time", "term"), design),
        "baseline_part": (("term",), ["intercept", "trend", "seasonality", "seasonality", "control", "event"]),
        "target_scale": (("geo",), level),
        "media_scale": (("geo", "channel"), scale),
    }
    tree = assemble(posterior, constant, coords, settings)
    target = contributions(tree).sum(-1).mean(0) + baseline_parts(tree).sum(-1).mean(0)
    target = target + noise * rng.normal(size=(G, T)) * 0.05 * level[:, None]
    # A masked week in the middle, beside those outside each geo's span.
    observed = inside.copy()
    observed[0, T // 2] = False
    target = np.where(observed, target, np.nan)
    tree["observed_data"] = xr.Dataset(
        {"target": (("geo", "time"), target)}, {"geo": coords["geo"], "time": coords["time"]}
    )
    return tree


def country_tree(chains=2, draws=20, seed=1, weeks=30):
    """A tree of country_mix: car, sat and base, 21 lags that are not normalised, exponential saturation."""
    rng = np.random.default_rng(seed)
    geos, names = ["Germany", "Austria"], ["TV", "Radio", "Banners"]
    G, T, C = 2, weeks, 3
    inside = np.ones((G, T), bool)
    inside[1, :12] = False
    media = rng.gamma(2.0, 500.0, (G, T, C)) * inside[..., None]
    shape = (chains, draws, G, C)
    coords = {
        "chain": np.arange(chains),
        "draw": np.arange(draws),
        "geo": geos,
        "channel": names,
        "term": ["intercept"],
    }
    coords["time"] = np.datetime64("2020-01-05", "ns") + np.arange(T) * np.timedelta64(7, "D")
    base = rng.gamma(50.0, 20.0, (chains, draws, G))
    posterior = {
        "car": (("chain", "draw", "geo", "channel"), rng.beta(4.0, 4.0, shape)),
        "sat": (("chain", "draw", "geo", "channel"), 1e-3 * np.exp(0.2 * rng.normal(size=shape))),
        "coef": (("chain", "draw", "geo", "channel"), rng.gamma(5.0, 100.0, shape)),
        "base": (("chain", "draw", "geo"), base),
        "baseline_coefficient": (("chain", "draw", "geo", "term"), base[..., None]),
        "noise": (("chain", "draw", "geo"), rng.gamma(50.0, 2.0, (chains, draws, G))),
    }
    posterior["sigma"] = posterior["noise"]
    settings = {
        "kind": "country_mix",
        "target": "Sales",
        "time": "Date",
        "geo": "Country",
        "frequency": "W-SUN",
        "period_days": 7.0,
        "has_spend": False,
        "likelihood": "normal",
        "pooling": dict.fromkeys(("adstock", "saturation", "effect", "baseline"), "hierarchical"),
        "channels": [
            {
                "name": name,
                "adstock": {"name": "geometric", "l_max": 21, "normalize": False, "parameters": {"alpha": "car"}},
                "saturation": {"name": "exponential", "parameters": {"rate": "sat"}},
                "coef": "coef",
            }
            for name in names
        ],
    }
    constant = {
        "media": (("geo", "time", "channel"), media),
        "spend": (("geo", "time", "channel"), media),
        "inside": (("geo", "time"), inside.astype(np.int8)),
        "baseline_design": (("geo", "time", "term"), np.ones((G, T, 1))),
        "baseline_part": (("term",), ["intercept"]),
        "target_scale": (("geo",), np.array([3000.0, 2000.0])),
        "media_scale": (("geo", "channel"), np.full((G, C), 1000.0)),
    }
    tree = assemble(posterior, constant, coords, settings)
    target = (contributions(tree).sum(-1) + baseline_parts(tree).sum(-1)).mean(0) + 100.0 * rng.normal(size=(G, T))
    tree["observed_data"] = xr.Dataset(
        {"target": (("geo", "time"), np.where(inside, target, np.nan))}, {"geo": geos, "time": coords["time"]}
    )
    return tree


def assemble(posterior, constant, coords, settings):
    """A tree of variables given as (dims, values), each dataset with the coordinates of its own dimensions."""

    def dataset(variables):
        used = {dim for dims, _ in variables.values() for dim in dims}
        return xr.Dataset(variables, {dim: label for dim, label in coords.items() if dim in used})

    tree = xr.DataTree.from_dict({"posterior": dataset(posterior), "constant_data": dataset(constant)})
    tree["observed_data"] = xr.Dataset()
    tree.attrs["media_mix"] = json.dumps(settings)
    tree.attrs["seed"] = 3
    return tree


def weights(adstock, l_max, normalize, values):
    """Adstock weights by lag, written from their formulas."""
    lag = np.arange(l_max)
    if adstock == "geometric":
        w = values["alpha"] ** lag
    elif adstock == "delayed":
        w = values["alpha"] ** ((lag - values["theta"]) ** 2)
    elif adstock == "binomial":
        w = (1 - lag / (l_max + 1)) ** (1 / values["alpha"] - 1)
    elif adstock == "weibull_pdf":
        density = stats.weibull_min(values["weibull_shape"], scale=values["weibull_scale"]).pdf(lag + 1)
        w = (density - density.min()) / (density.max() - density.min())
    elif adstock == "weibull_cdf":
        survival = np.exp(-((lag / values["weibull_scale"]) ** values["weibull_shape"]))
        w = np.cumprod(survival)
    else:
        raise KeyError(adstock)
    return w / w.sum() if normalize else w


def saturate(saturation, x, values):
    if saturation == "hill":
        with np.errstate(divide="ignore"):
            return np.where(x > 0, 1 / (1 + (values["half_saturation"] / x) ** values["slope"]), 0.0)
    if saturation == "exponential":
        return 1 - np.exp(-values["rate"] * x)
    if saturation == "logistic":
        return (1 - np.exp(-values["rate"] * x)) / (1 + np.exp(-values["rate"] * x))
    if saturation == "tanh":
        return np.tanh(x / values["tanh_scale"])
    if saturation == "michaelis_menten":
        return x / (x + values["half_saturation"])
    if saturation == "root":
        return x ** values["power"]
    raise KeyError(saturation)


def response(channel, series, values):
    """The saturated adstock [time] of one series, with one draw's parameters of one geo."""
    adstock, saturation = channel["adstock"], channel["saturation"]
    l_max, normalize = adstock["l_max"], adstock["normalize"]
    if l_max is None:
        alpha = values["alpha"]
        total = signal.lfilter([1 - alpha if normalize else 1.0], [1.0, -alpha], series)
    else:
        total = np.convolve(series, weights(adstock["name"], l_max, normalize, values))[: len(series)]
    return saturate(saturation["name"], total, values)


def parameters(tree, channel):
    """One channel's parameters [draw, geo], under the objects' names; draws counted chain by chain."""
    found = {}
    for kind in ("adstock", "saturation"):
        for name, variable in channel[kind]["parameters"].items():
            values = tree["posterior"][variable]
            column = list(np.asarray(values[values.dims[-1]])).index(channel["name"])
            chosen = values.values[..., column]
            found[name] = chosen.reshape(-1, chosen.shape[-1])
    return found


def contributions(tree, media=None):
    """What each channel adds [draw, geo, time, channel], one series at a time."""
    settings = json.loads(tree.attrs["media_mix"])
    media = np.asarray(tree["constant_data"]["media"]) if media is None else media
    coef = np.asarray(tree["posterior"]["coef"])
    coef = coef.reshape(-1, *coef.shape[2:])
    found = np.zeros((len(coef), *media.shape))
    for c, channel in enumerate(settings["channels"]):
        drawn = parameters(tree, channel)
        for d in range(len(coef)):
            for g in range(media.shape[0]):
                values = {name: array[d, g] for name, array in drawn.items()}
                found[d, g, :, c] = coef[d, g, c] * response(channel, media[g, :, c], values)
    return found


def baseline_parts(tree):
    """Each term of the baseline [draw, geo, time, term]."""
    design = np.asarray(tree["constant_data"]["baseline_design"])
    coefficient = np.asarray(tree["posterior"]["baseline_coefficient"])
    coefficient = coefficient.reshape(-1, *coefficient.shape[2:])
    return design[None] * coefficient[:, :, None, :]
