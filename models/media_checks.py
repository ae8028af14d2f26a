"""Whether a media mix can be trusted: shrinkage, stability, recovery of a truth, failure indicators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.special
import xarray as xr

from pelton.engine.arguments import central
from pelton.engine.errors import ArgumentError, DataError
from pelton.models.attribution import roas
from pelton.models.response import Response, description

# A between-geo standard deviation (of a logarithm or logit) past which geos are worlds of their own.
LARGE_SD = 0.3
# Below the first the hierarchy does nothing for a geo, above the second the geo says nothing for itself.
OWN, GROUP = 0.2, 0.8
# Share of weeks in which media may be credited with more than the target.
MOST_BEYOND = 0.05
_PER_MEDIA = ("half_saturation", "tanh_scale")
_ON_UNIT_INTERVAL = ("alpha", "power", "car")


def _draws(tree: xr.DataTree, name: str, group: str = "posterior") -> np.ndarray:
    """Values [draw, geo, column] or [draw, column]."""
    values = tree[group][name]
    rest = [dim for dim in values.dims if dim not in ("chain", "draw")]
    return np.asarray(values.transpose("chain", "draw", *rest)).reshape(-1, *(values.sizes[dim] for dim in rest))


def _labels(tree: xr.DataTree, dim: str) -> list[str]:
    return [str(label) for label in np.asarray(tree["posterior"].to_dataset()[dim])]


def _described(tree: xr.DataTree) -> dict[str, list[dict[str, Any]]]:
    """Each parameter with a value per geo and channel: what the model says of the channels that have it."""
    found: dict[str, list[dict[str, Any]]] = {}
    about = description(tree)
    for channel in about["channels"]:
        for part in ("adstock", "saturation"):
            for variable in channel[part]["parameters"].values():
                found.setdefault(variable, []).append(channel)
    effect = str(about.get("effect", "coef"))
    return found | {"coef" if effect == "coefficient" else effect: about["channels"]}


def _unbounded(name: str, having: Sequence[Mapping[str, Any]], positive: bool) -> Callable[[np.ndarray], np.ndarray]:
    """To the scale on which geos are pooled: the logit of a share, the log of a positive number, else the identity."""
    if name in _ON_UNIT_INTERVAL:
        return scipy.special.logit
    if name == "theta":
        last = np.array([channel["adstock"]["l_max"] - 1 for channel in having])
        return lambda values: scipy.special.logit(values / last)
    return np.log if positive else lambda values: values


def _scaled(tree: xr.DataTree, name: str, values: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """A parameter [draw, geo, channel] for media and target as the model scaled them."""
    constant: Any = tree["constant_data"]
    media = np.asarray(constant["media_scale"].sel(channel=list(channels)).transpose("geo", "channel"))
    if name in _PER_MEDIA:
        return values / media
    if name == "rate":
        return values * media
    if name != "coef":
        return values
    power = np.zeros(values.shape)
    for at, channel in enumerate(description(tree)["channels"]):
        if channel["saturation"]["name"] == "root":
            power[..., at] = _cell(tree, "power", channel["name"])
    # The root alone passes the media's scale on to the coefficient.
    return values * media**power / np.asarray(constant["target_scale"])[:, None]


def _cell(tree: xr.DataTree, name: str, channel: str) -> np.ndarray:
    """One channel's draws of a parameter [draw, geo]."""
    values = tree["posterior"][name]
    dim = next(str(d) for d in values.dims if d == "channel" or str(d).endswith("_channel"))
    chosen = values.sel({dim: channel}).transpose("chain", "draw", "geo")
    return np.asarray(chosen).reshape(-1, chosen.sizes["geo"])


def _offsets(tree: xr.DataTree, name: str, having: Sequence[Mapping[str, Any]], unpooled: xr.DataTree | None) -> Any:
    """Deviations from the population [draw, geo, channel], its variance [draw, channel], the unpooled fit's deviations.

    The last is None without an unpooled tree; all is None where the parameter is not hierarchical.
    """
    values, channels = _draws(tree, name), [str(channel["name"]) for channel in having]
    alone = None if unpooled is None else _draws(unpooled, name)
    if description(tree)["kind"] == "country_mix":
        if name == "car":
            a, b = (_draws(tree, f"car_{shape}")[:, None] for shape in ("alpha", "beta"))
            centre = scipy.special.psi(a) - scipy.special.psi(b)
            variance = np.broadcast_to(
                scipy.special.polygamma(1, a) + scipy.special.polygamma(1, b), (len(a), len(channels))
            )
        else:
            rate = _draws(tree, f"{name}_lam")[:, None]
            # log X of an exponential X has mean -gamma - log rate and variance pi^2 / 6.
            centre, variance = -np.euler_gamma - np.log(rate), np.full((len(rate), len(channels)), np.pi**2 / 6)
        to = _unbounded(name, having, True)
        return to(values) - centre[:, None], variance, None if alone is None else to(alone) - centre.mean()
    effect = "coefficient" if name == "coef" else name
    if f"{effect}_sd" not in tree["posterior"].to_dataset().data_vars:
        return None
    population, sd = _draws(tree, f"{effect}_population"), _draws(tree, f"{effect}_sd")
    values = _scaled(tree, name, values, channels)
    to = _unbounded(name, having, bool((values > 0).all() and (population > 0).all()))
    centre = to(population)
    if alone is not None:
        assert unpooled is not None
        alone = to(_scaled(unpooled, name, alone, channels)) - centre.mean(axis=0)
    return to(values) - centre[:, None], sd**2, alone


def media_shrinkage(tree: xr.DataTree, unpooled: xr.DataTree | None = None) -> pd.DataFrame:
    """How far each geo's parameter is drawn to its group: from 0 (its own data decide) to 1 (the group decides).

    On the log or logit scale, from the hierarchical fit alone, the pooling factor of one unit:

        w[g,c] = Var(eta[g,c] - location[c]) / E(sd[c]^2), at most 1

    Where a geo's data say nothing, its deviation from the group varies as the group does, and w is 1; where they say
    all, it hardly varies. With an unpooled fit of the same data, how much of its deviation is gone:

        w[g,c] = 1 - |E eta[g,c] - E location[c]| / |E eta_unpooled[g,c] - E location[c]|, from 0 to 1

    which is NaN where the unpooled estimate is within a tenth of its standard deviation of the group's: there is then
    nothing to be drawn.

    Args:
        tree: of the hierarchical fit.
        unpooled: a fit of each geo by itself.

    Returns:
        Rows (geo, channel), one column a hierarchical parameter; NaN where a channel lacks the parameter. Without
        columns where nothing is hierarchical.

    Source: Gelman & Pardoe 2006 (Bayesian measures of explained variance and pooling, Technometrics 48): their pooling
    factor of a batch, 1 - V(E eta) / E(V eta), taken for one unit.
    """
    geos = _labels(tree, "geo")
    channels = [str(one["name"]) for one in description(tree)["channels"]]
    table = pd.DataFrame(index=pd.MultiIndex.from_product([geos, channels], names=["geo", "channel"]))
    for name, having in _described(tree).items():
        found = _offsets(tree, name, having, unpooled)
        if found is None:
            continue
        apart, variance, alone = found
        if alone is None:
            weight = np.minimum(apart.var(axis=0) / variance.mean(axis=0), 1.0)
        else:
            distance = np.abs(alone.mean(axis=0))
            known = distance > 0.1 * alone.std(axis=0)
            kept = np.abs(apart.mean(axis=0)) / np.where(known, distance, 1.0)
            weight = np.where(known, np.clip(1.0 - kept, 0.0, 1.0), np.nan)
        whole = np.full((len(geos), len(channels)), np.nan)
        whole[:, [channels.index(one["name"]) for one in having]] = weight
        table[name] = whole.ravel()
    return table


def stability(trees: Mapping[str, xr.DataTree], probability: float = 0.94) -> pd.DataFrame:
    """ROAS by geo and channel under several models of the same data, and how far they are apart.

    Args:
        trees: name of the model -> its tree, at least two.
        probability: of the central intervals.

    Returns:
        Rows (geo, channel); for each model (mean, low, high), and under "all" the ratio of the largest mean to the
        smallest and whether all intervals overlap.

    Raises:
        ArgumentError: fewer than two trees.
        DataError: trees of other geos or channels.
    """
    if len(trees) < 2:
        raise ArgumentError(f"stability compares at least two trees, not {len(trees)}")
    low, high = central(probability)
    columns: dict[tuple[str, str], np.ndarray] = {}
    index: Any = None
    for name, tree in trees.items():
        draws = roas(tree).transpose("geo", "channel", "chain", "draw")
        labels = pd.MultiIndex.from_product([draws["geo"].values, draws["channel"].values], names=["geo", "channel"])
        if index is not None and not labels.equals(index):
            raise DataError(f"tree {name!r} has other geos or channels than the first; fit all to one panel")
        index = labels
        flat = np.asarray(draws).reshape(len(labels), -1)
        columns[name, "mean"] = flat.mean(axis=1)
        columns[name, "low"], columns[name, "high"] = np.quantile(flat, [low, high], axis=1)
    means = np.stack([columns[name, "mean"] for name in trees])
    lows, highs = (np.stack([columns[name, end] for name in trees]) for end in ("low", "high"))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["all", "ratio"] = means.max(axis=0) / means.min(axis=0)
    columns["all", "overlap"] = lows.max(axis=0) <= highs.min(axis=0)
    return pd.DataFrame(columns, index=index)


def recovery(tree: xr.DataTree, truth: Mapping[str, xr.DataArray], probability: float = 0.94) -> pd.DataFrame:
    """Estimates beside a known truth, as simulated data have it.

    Args:
        tree: of the fit.
        truth: variable -> true values with its dims; "roas" stands for the return of `pelton.roas`.
        probability: of the central intervals.

    Returns:
        Rows (variable, cell): truth, mean, sd, low, high, covered, z = (mean - truth) / sd. The share covered is
        `table["covered"].mean()`. A return that is not defined (nothing was spent) has <NA>.

    Raises:
        DataError: a variable that the tree does not have, or a cell of it without a true value.
    """
    low, high = central(probability)
    rows = []
    for name, values in truth.items():
        if name != "roas" and name not in tree["posterior"].to_dataset():
            raise DataError(f"the tree has no variable {name!r} to compare with the truth")
        draws = roas(tree) if name == "roas" else tree["posterior"].to_dataset()[name]
        dims = [str(dim) for dim in draws.dims if dim not in ("chain", "draw")]
        true = values.transpose(*dims).reindex({dim: draws[dim] for dim in dims})
        flat = np.asarray(draws.transpose("chain", "draw", *dims)).reshape(-1, int(np.prod(true.shape)))
        labels = [true[dim].values for dim in dims]
        cells = [", ".join(map(str, cell)) for cell in pd.MultiIndex.from_product(labels)] if dims else [""]
        bottom, top = np.quantile(flat, [low, high], axis=0)
        at, defined = np.asarray(true, float).ravel(), ~np.isnan(flat).any(axis=0)
        lacking = [cell for cell, known in zip(cells, ~np.isnan(at) | ~defined, strict=True) if not known]
        if lacking:
            raise DataError(f"the truth of {name!r} has no value for {lacking[0] or name!r} ({len(lacking)} in all)")
        covered = pd.array((at >= bottom) & (at <= top), "boolean")
        covered[~defined] = pd.NA
        rows.append(
            pd.DataFrame(
                {
                    "variable": name,
                    "cell": cells,
                    "truth": at,
                    "mean": flat.mean(axis=0),
                    "sd": flat.std(axis=0, ddof=1),
                    "low": bottom,
                    "high": top,
                    "covered": covered,
                    "z": (flat.mean(axis=0) - at) / flat.std(axis=0, ddof=1),
                }
            )
        )
    return pd.concat(rows).set_index(["variable", "cell"])


def failure_indicators(tree: xr.DataTree) -> list[str]:
    """What speaks against trusting a fit, in sentences; empty where nothing does.

    Draws that did not converge; between-geo standard deviations above 0.3 (geos are worlds of their own, and pooling
    helps little); parameters whose shrinkage is below 0.2 or above 0.8 in most geos; parameters that the data hardly
    narrowed down, given a prior group (see `prior_dominated`); a baseline that is probably negative; media credited
    with more than the target, over all observed weeks or in more than a twentieth of them.
    """
    found = []
    if not int(tree.attrs.get("converged", 1)):
        found.append(f"The draws did not converge: {str(tree.attrs['status']).removeprefix('NOT CONVERGED: ')}")
    found += _spread_geos(tree) + _extreme_shrinkage(tree)
    if "prior" in tree.children:
        narrowed = prior_dominated(tree)
        for name in dict.fromkeys(narrowed.index.get_level_values("parameter")):
            cells = [f"{geo} {channel}" for geo, channel in narrowed.loc[name].index]
            more = f" and {len(cells) - 6} more" if len(cells) > 6 else ""
            found.append(f"The data add little on {name} of {', '.join(cells[:6])}{more}: the prior decides there.")
    return found + _implausible_totals(tree)


def prior_dominated(tree: xr.DataTree, least: float = 0.1) -> pd.DataFrame:
    """Parameters whose posterior is nearly as wide as their prior.

        contraction = 1 - (interquartile range of the posterior / of the prior)^2

    on the log or logit scale: 0 where the data say nothing, 1 where they say all. Quartiles, since priors of
    hierarchical parameters have long tails.

    Args:
        tree: with the prior group; parameters that it lacks are not judged.
        least: parameters with a smaller contraction are returned.

    Returns:
        Rows (parameter, geo, channel): contraction.

    Raises:
        ArgumentError: the tree has no prior group.

    Source: Schad, Betancourt & Vasishth 2021 (Toward a principled Bayesian workflow), section on posterior contraction,
    with quartiles in place of variances.
    """
    if "prior" not in tree.children:
        raise ArgumentError("the tree has no prior group to compare with; sample with groups=('prior',)")
    geos = _labels(tree, "geo")
    rows = {}
    present = tree["prior"].to_dataset().data_vars
    for name, having in _described(tree).items():
        if name not in present:
            continue
        drawn = [_draws(tree, name, group) for group in ("posterior", "prior")]
        to = _unbounded(name, having, all(bool((values > 0).all()) for values in drawn))
        after, before = (np.subtract(*np.quantile(to(values), [0.75, 0.25], axis=0)) for values in drawn)
        contraction = 1 - (after / before) ** 2
        for geo, column in np.argwhere(contraction < least):
            rows[name, geos[geo], str(having[column]["name"])] = contraction[geo, column]
    index = pd.MultiIndex.from_tuples(list(rows), names=["parameter", "geo", "channel"])
    return pd.DataFrame({"contraction": list(rows.values())}, index=index, dtype=float)


def _spread_geos(tree: xr.DataTree) -> list[str]:
    found = []
    posterior = tree["posterior"].to_dataset()
    for name in map(str, posterior.data_vars):
        if not name.endswith("_sd"):
            continue
        median = np.median(_draws(tree, name), axis=0)
        labels = [str(label) for label in posterior[name][posterior[name].dims[-1]].values]
        large = [f"{label} {value:.2f}" for label, value in zip(labels, median, strict=True) if value > LARGE_SD]
        if large:
            found.append(f"Geos differ much in {name.removesuffix('_sd')}: between-geo sd {', '.join(large)}.")
    return found


def _extreme_shrinkage(tree: xr.DataTree) -> list[str]:
    found = []
    table = media_shrinkage(tree)
    for name in table.columns:
        middle: Any = table[name].groupby(level="channel", sort=False).median()
        own = [str(channel) for channel, value in middle.items() if value < OWN]
        group = [str(channel) for channel, value in middle.items() if value > GROUP]
        if own:
            found.append(f"The group says little on {name} of {', '.join(own)}: geos decide for themselves.")
        if group:
            found.append(
                f"Most geos' data say little on {name} of {', '.join(group)}: the group's value stands for them."
            )
    return found


def _implausible_totals(tree: xr.DataTree) -> list[str]:
    """What the totals of baseline and media say that cannot well be."""
    found = []
    known = Response.of(tree)
    totals = known.baseline_totals.sum(axis=-1), known.summed[1].sum(axis=-1)
    media, observed = known.summed[0].sum(axis=-1), np.isfinite(known.target)
    for geo, name in enumerate(known.geos):
        if (totals[0][:, geo] < 0).mean() > 0.5:
            found.append(f"The baseline of {name} is probably negative: media are credited with more than there is.")
        elif (totals[1][:, geo] < 0).mean() > 0.5:
            found.append(f"Media of {name} probably lower the target: look at the signs of controls and effects.")
        brought, target = media[geo, observed[geo]], known.target[geo, observed[geo]]
        beyond = int((brought > target).sum())
        if brought.sum() > target.sum() > 0:
            found.append(
                f"Media of {name} are credited with {brought.sum():,.4g}, more than the whole target of "
                f"{target.sum():,.4g} in the observed weeks."
            )
        elif beyond > MOST_BEYOND * len(target):
            found.append(f"Media of {name} are credited with more than the target in {beyond} of {len(target)} weeks.")
    return found
