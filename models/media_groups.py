"""The further groups of a media mix tree: prior, prior and posterior predictive, pointwise log-likelihood."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import xarray as xr
from numpyro.infer import Predictive

from pelton.engine.precision import using
from pelton.models.media_model import media_mix
from pelton.models.response import Response

EXTRA_GROUPS = ("prior", "prior_predictive", "posterior_predictive", "log_likelihood")
PRIOR_DRAWS = 1000


def add_group(tree: xr.DataTree, name: str, model: Any, seed: int) -> None:
    """Adds one of EXTRA_GROUPS to the tree, in the units of the data; weeks without an observed target are NaN.

    The prior is drawn afresh, 1,000 times; the predictive groups add the noise of each draw to its prediction.
    """
    if name == "prior":
        tree[name] = xr.DataTree(_prior(tree, model, seed))
        return
    source = tree
    if name == "prior_predictive":
        prior = tree["prior"].to_dataset() if "prior" in tree.children else _prior(tree, model, seed)
        source = xr.DataTree.from_dict(
            {group: tree[group].to_dataset() for group in ("observed_data", "constant_data")} | {"posterior": prior}
        )
        source.attrs.update(tree.attrs)
    posterior = source["posterior"].to_dataset()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    mean = Response.of(source).prediction().reshape(chains, draws, *tree["observed_data"]["target"].shape)
    sigma = np.asarray(posterior["sigma"].transpose("chain", "draw", "geo"))[..., None]
    nu = None if "nu" not in posterior else np.asarray(posterior["nu"])[..., None, None]
    target = np.asarray(tree["observed_data"]["target"].transpose("geo", "time"))
    family: Any = scipy.stats.norm(mean, sigma) if nu is None else scipy.stats.t(nu, mean, sigma)
    if name == "log_likelihood":
        values = family.logpdf(target)
    else:
        rng = np.random.default_rng([seed, len(name)])
        values = np.where(np.isnan(target), np.nan, family.rvs(size=mean.shape, random_state=rng))
    coords = {"geo": tree["observed_data"]["geo"], "time": tree["observed_data"]["time"]}
    coords |= {"chain": posterior["chain"], "draw": posterior["draw"]}
    tree[name] = xr.DataTree(xr.Dataset({"target": (("chain", "draw", "geo", "time"), values)}, coords=coords))


def _prior(tree: xr.DataTree, model: Any, seed: int) -> xr.Dataset:
    posterior = tree["posterior"].to_dataset()
    names = [str(name) for name in posterior.data_vars]
    with using("float64"):
        predictive = Predictive(media_mix, num_samples=PRIOR_DRAWS, return_sites=names)
        drawn = predictive(jax.random.key(seed), model.structure, jax.tree.map(jnp.asarray, model.data))
        values = {name: np.asarray(drawn[name])[None] for name in names}
    coords = {name: coord for name, coord in posterior.coords.items() if name not in ("chain", "draw")}
    return xr.Dataset(
        {name: (posterior[name].dims, values[name]) for name in names},
        coords={**coords, "chain": [0], "draw": np.arange(PRIOR_DRAWS)},
    )
