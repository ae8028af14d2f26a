"""Models of the same data compared by leave-one-out cross-validation."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.errors import ArgumentError, ConvergenceWarning, DataError
from pelton.models import media_groups, predictive

MODELS_AT_LEAST = 2


def compare_loo(trees: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Models of the same data ranked by expected log predictive density, by Pareto-smoothed leave-one-out.

    Of rates, what is left out is a unit: its count has a beta-binomial density given the population, its rate
    integrated out. Of a media mix it is one week of one geo. The pointwise log-likelihoods are worked out where a tree
    does not hold them.

    Args:
        trees: name of the model -> its tree, all of PartialPooling, or all of MediaMix.

    Returns:
        ArviZ's table, a row a model, the best first: elpd (in nats), p, elpd_diff, weight, se, dse ...

    Raises:
        ArgumentError: fewer than two trees, a tree of another kind of model, one of a fixed prior (nothing is learnt
            from the units that are left in), or log-likelihoods that would not fit the memory.
        DataError: two trees have other observations, so that their densities cannot be compared.

    Warns:
        ConvergenceWarning: a model has observations whose Pareto k is too high for its estimate to be trusted there.

    Source: Vehtari, Gelman & Gabry 2017; Vehtari et al. 2024 for the threshold min(1 - 1/log10(draws), 0.7).

    >>> import pelton
    >>> stores = pelton.simulate_stores(40)
    >>> counts = (stores["conversions"], stores["impressions"])
    >>> trees = {
    ...     name: pelton.sample(pelton.PartialPooling(*counts, prior=prior))
    ...     for name, prior in (("gamma", pelton.GammaShapes(0.5, 0.5)), ("bda", pelton.Bda()))
    ... }
    >>> sorted(compare_loo(trees).index)
    ['bda', 'gamma']
    """
    import arviz as az

    if len(trees) < MODELS_AT_LEAST:
        raise ArgumentError(f"a comparison needs at least two trees, not {len(trees)}")
    estimates, first = {}, None
    for name, tree in trees.items():
        cells = _cells(tree, name)
        if not np.ptp(np.asarray(cells["log_likelihood"]["y"]), axis=(0, 1)).any():
            raise ArgumentError(
                f"tree {name!r} has a fixed prior: its draws do not vary, and leaving a unit out changes nothing; "
                "compare models that learn their population"
            )
        first = (name, cells) if first is None else first
        _check_same(first[0], first[1], name, cells)
        with warnings.catch_warnings():
            # ArviZ warns without saying where.
            warnings.simplefilter("ignore", UserWarning)
            estimates[name] = az.loo(cells, pointwise=True)
        k = estimates[name].pareto_k
        high = np.flatnonzero(np.asarray(k) > estimates[name].good_k)
        if len(high):
            worst = high[np.argsort(-np.asarray(k)[high])][:5]
            where = ", ".join(f"{k['cell'].values[i]} ({float(k[i]):.2f})" for i in worst)
            remedy = (
                "these weeks decide much on their own: look at them, or take a student_t likelihood"
                if _is_media(tree)
                else "these units decide much of the population on their own: look at them, or hold units out instead "
                "(pelton.held_out)"
            )
            warnings.warn(
                f"leave-one-out of {name!r}: Pareto k is above {estimates[name].good_k:.2f} in {len(high)} of {k.size} "
                f"observations ({where}{' ...' if len(high) > 5 else ''}); {remedy}",
                ConvergenceWarning,
                stacklevel=2,
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return az.compare(estimates, round_to="none")


def _is_media(tree: xr.DataTree) -> bool:
    return "target" in tree["observed_data"].data_vars


def _log_likelihood(tree: xr.DataTree, name: str, variable: str) -> Any:
    """The group's variable, of the tree or worked out beside it."""
    if "log_likelihood" in tree.children:
        return tree["log_likelihood"][variable]
    parts = {group: tree[group].to_dataset() for group in ("posterior", "observed_data", "constant_data")}
    bare = xr.DataTree.from_dict(parts)
    bare.attrs.update(tree.attrs)
    seed = int(tree.attrs.get("seed", 0))
    if variable == "target":
        media_groups.add_group(bare, "log_likelihood", None, seed)
    else:
        predictive.add_group(bare, "log_likelihood", None, seed)
    return bare["log_likelihood"][variable]


def _cells(tree: xr.DataTree, name: str) -> xr.DataTree:
    """The tree with its log-likelihoods along one dimension of labelled observations, and what was observed there."""
    if "observed_data" not in tree.children or not {"target", "successes"} & set(tree["observed_data"].data_vars):
        raise ArgumentError(f"tree {name!r} is of neither PartialPooling nor MediaMix; ArviZ's loo takes any tree")
    if _is_media(tree):
        terms = _log_likelihood(tree, name, "target").transpose("chain", "draw", "geo", "time")
        values = np.asarray(terms)
        seen = np.isfinite(values).all(axis=(0, 1))
        days = np.datetime_as_string(terms["time"].values, "D")
        labels = [f"{terms['geo'].values[geo]} {days[time]}" for geo, time in np.argwhere(seen)]
        observed = np.asarray(tree["observed_data"]["target"].transpose("geo", "time"))[seen]
        values = values[:, :, seen]
    else:
        terms = _log_likelihood(tree, name, "successes").transpose("chain", "draw", "unit")
        trials = np.asarray(tree["constant_data"]["trials"])
        successes = np.asarray(tree["observed_data"]["successes"])
        # A unit without trials says nothing, and has nothing to leave out.
        seen = trials > 0
        values = np.asarray(terms)[:, :, seen]
        labels = [str(unit) for unit in np.asarray(tree["observed_data"]["unit"])[seen]]
        # The share tells 5 of 10 from 5 of 20.
        observed = (successes / np.maximum(trials, 1))[seen]
    return xr.DataTree.from_dict(
        {
            "posterior": tree["posterior"].to_dataset(),
            "log_likelihood": xr.Dataset({"y": xr.DataArray(values, {"cell": labels}, ("chain", "draw", "cell"))}),
            "observed_data": xr.Dataset({"y": xr.DataArray(observed, {"cell": labels}, "cell")}),
        }
    )


def _check_same(one: str, cells: xr.DataTree, other: str, more: xr.DataTree) -> None:
    """Refuses trees of other observations; the message names one of them."""
    values, others = (tree["observed_data"].to_dataset()["y"].to_series() for tree in (cells, more))
    values, others = (dict(zip(map(str, found.index), found, strict=True)) for found in (values, others))
    apart = sorted(values.keys() ^ others.keys())
    if apart:
        raise DataError(
            f"trees {one!r} and {other!r} were fitted to other observations ({apart[0]} is in one of them alone, "
            f"{len(apart)} in all); compare fits of the same data"
        )
    changed = [key for key, value in values.items() if not np.isclose(value, others[key], rtol=1e-6, atol=0)]
    if changed:
        key = changed[0]
        raise DataError(
            f"trees {one!r} and {other!r} were fitted to other observations: {key} is {values[key]:.6g} in one and "
            f"{others[key]:.6g} in the other ({len(changed)} in all); compare fits of the same data"
        )
