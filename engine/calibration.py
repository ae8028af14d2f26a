"""Simulation-based calibration: whether a model, its data's simulator and a sampler agree with one another."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from pelton.engine.arguments import seed_of, whole
from pelton.engine.errors import ArgumentError, ConvergenceWarning, UnknownNameError
from pelton.engine.posterior import Model, Posterior
from pelton.engine.progress import progress as progress_bar
from pelton.engine.run import sample

type Values = Mapping[str, np.ndarray]

# Fits of which the ranks speak at the least, and posterior draws that a truth is ranked among.
LEAST_SETS = 20
RANKED_AMONG = 99
BAND = 0.99
_SIMULATIONS = 2000


@dataclass(frozen=True)
class Calibration:
    """Ranks of true values among posterior draws.

    Attributes:
        ranks: number of draws below the truth, 0 to `draws`, with a row a data set and a column a quantity.
        draws: that each truth was ranked among.
        converged: whether each fit's diagnostics had nothing against it.
        seed: of the randomness with which ties and steps are broken.
    """

    ranks: pd.DataFrame
    draws: int
    converged: np.ndarray
    seed: int

    def pit(self) -> pd.DataFrame:
        """Ranks as numbers between 0 and 1, uniform where all is calibrated: (rank + u) / (draws + 1), u uniform."""
        source = np.random.default_rng([self.seed, 1])
        return (self.ranks + source.random(self.ranks.shape)) / (self.draws + 1)

    def table(self) -> pd.DataFrame:
        """What the ranks of each quantity say.

        Returns:
            A row a quantity: `mean` of the pit (0.5), `low` and `high`, the shares of pits in the lowest and the
            highest tenth (0.1), the `p_value` of a Kolmogorov-Smirnov test of uniformity, and whether the ECDF of the
            pit stays in the `band` that uniform ones leave in one of a hundred cases (Säilynoja et al. 2022).
        """
        from arviz_stats.ecdf_utils import ecdf_pit

        rows = {}
        for name, pit in self.pit().items():
            values = pit.to_numpy()
            _, ecdf, low, high = ecdf_pit(values, BAND, _SIMULATIONS, rng=np.random.default_rng([self.seed, 2]))
            rows[name] = {
                "mean": values.mean(),
                "low": np.mean(values < 0.1),
                "high": np.mean(values > 0.9),
                "p_value": scipy.stats.kstest(values, "uniform").pvalue,
                "band": bool(np.all((low <= ecdf) & (ecdf <= high))),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")

    @property
    def problems(self) -> tuple[str, ...]:
        """Quantities whose ranks are not uniform, in words, at one in a hundred over all of them (Bonferroni)."""
        rows = self.table()
        failed = rows[rows["p_value"] < (1 - BAND) / len(rows)]
        return tuple(
            f"the ranks of {name} are not uniform (p = {row['p_value']:.1g}; {row['low']:.0%} in the lowest tenth, "
            f"{row['high']:.0%} in the highest): the sampler, the density or the simulator is wrong"
            for name, row in failed.iterrows()
        )


def calibrate(
    simulate: Callable[[np.random.Generator], tuple[Model | Posterior, Values]],
    *,
    sets: int = 100,
    quantities: Mapping[str, Callable[[Values, Any], float]] | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **settings: Any,
) -> Calibration:
    """Ranks of the truth among posterior draws, over data sets simulated from the prior.

    For parameters drawn from the prior and data drawn given them, the truth is exchangeable with posterior draws, and
    its rank among them uniform (Talts et al. 2018, arXiv 1804.06788). Ranks are taken among 99 draws, evenly spaced
    over all chains; a fit of a smaller effective sample size than that makes them less uniform than they are. Functions
    of parameters and data, the log-likelihood above all, notice errors that no parameter shows (Modrák et al. 2023,
    arXiv 2211.02383).

    Args:
        simulate: draws a truth and data, and returns the model of the data, and the true values by the names of its
            variables; they must have the variables' shapes. Data of one shape compile once.
        sets: how many data sets.
        quantities: by name, functions of values by name and the model, evaluated at the truth and at draws. `values` at
            the truth are those that `simulate` returned, at a draw those of the same variables.
        seed: of truths, data, and draws.
        progress: whether to show a progress bar; None shows it on a terminal.
        **settings: of `pelton.sample`.

    Raises:
        ArgumentError: too few sets, or a true value has another shape than its variable.
        UnknownNameError: a true value is of no variable.

    >>> import numpyro, numpyro.distributions as dist
    >>> import pelton
    >>> def normal(y):
    ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> def simulate(source):
    ...     mean = source.normal()
    ...     return pelton.from_numpyro(normal, source.normal(mean, 1.0, size=8)), {"mean": mean}
    >>> found = calibrate(simulate, sets=30, chains=2, warmup=200, draws=300)
    >>> found.ranks.shape, found.problems
    ((30, 1), ())
    """
    whole("sets", sets, LEAST_SETS)
    seed = seed_of(seed)
    if "store" in settings:
        raise ArgumentError("the fits of a calibration are not kept; leave store out")
    rows, converged = [], []
    with progress_bar("calibrating", sets, progress) as report:
        for number in range(sets):
            source = np.random.default_rng([seed, 0, number])
            model, truth = simulate(source)
            truth = {name: np.asarray(value, dtype=float) for name, value in truth.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                tree = sample(model, seed=int(source.integers(2**62)), progress=False, **settings)
            converged.append(bool(tree.attrs["converged"]))
            rows.append(_ranks(tree, truth, quantities or {}, model, source))
            report(1, f"{converged.count(False)} not converged" if not all(converged) else "")
    return Calibration(pd.DataFrame(rows).rename_axis("set"), RANKED_AMONG, np.array(converged), seed)


def _ranks(
    tree: xr.DataTree,
    truth: Values,
    quantities: Mapping[str, Callable[[Values, Any], float]],
    model: Any,
    source: np.random.Generator,
) -> dict[str, int]:
    """Ranks of every true scalar and of every quantity; ties are broken at random."""
    posterior = tree["posterior"].to_dataset()
    draws: dict[str, np.ndarray] = {}
    for name, value in truth.items():
        if name not in posterior.data_vars:
            raise UnknownNameError("variable", name, [str(known) for known in posterior.data_vars])
        found = np.asarray(posterior[name])
        if found.shape[2:] != value.shape:
            raise ArgumentError(f"the true {name!r} has the shape {value.shape} and the variable {found.shape[2:]}")
        flat = found.reshape(-1, *value.shape)
        if len(flat) < RANKED_AMONG:
            raise ArgumentError(f"{len(flat)} draws are too few to rank a truth among {RANKED_AMONG}; take more draws")
        draws[name] = flat[np.linspace(0, len(flat) - 1, RANKED_AMONG).round().astype(int)]
    ranks = {}
    for name, value in truth.items():
        axes = [np.asarray(posterior[dim]) for dim in posterior[name].dims[2:]]
        for index in np.ndindex(value.shape):
            suffix = ", ".join(str(axis[i]) for axis, i in zip(axes, index, strict=True))
            label = f"{name}[{suffix}]" if suffix else name
            ranks[label] = _rank(draws[name][(slice(None), *index)], float(value[index]), source)
    for name, function in quantities.items():
        at = np.array(
            [function({key: values[row] for key, values in draws.items()}, model) for row in range(RANKED_AMONG)]
        )
        ranks[name] = _rank(at, float(function(truth, model)), source)
    return ranks


def _rank(draws: np.ndarray, truth: float, source: np.random.Generator) -> int:
    return int(np.sum(draws < truth) + source.integers(np.sum(draws == truth) + 1))
