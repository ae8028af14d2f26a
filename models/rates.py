"""Rates of units given the draws of a tree's hyperparameters, in blocks of units that fit the memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import DataError
from pelton.engine.placement import cores
from pelton.engine.precision import using
from pelton.kernels.beta_binomial import draw_rates

# Rates are stored in the tree up to this size, and worked on in blocks of this many draws x units.
STORE_BYTES = 128 * 2**20
BLOCK = 2**20
LEAST_BLOCKS = 8
FLOAT32_TRIALS = 10**5
# Past this many draws x units, summaries use every so-manieth draw of the hyperparameters, at least THINNED_DRAWS.
SUMMARY_ELEMENTS = 4 * 10**8
THINNED_DRAWS = 400


@dataclass(frozen=True)
class Hyperparameters:
    """Draws of what the rates depend on, flattened over chains, and how each unit reads them.

    Attributes:
        logit_mean, log_concentration: [draw] or [draw, level].
        level: index of each unit's region or segment [unit], or None.
        coefficient: [draw, covariate], with covariates [unit, covariate]; None without covariates.
        successes, trials: [unit].
    """

    logit_mean: np.ndarray
    log_concentration: np.ndarray
    level: np.ndarray | None
    coefficient: np.ndarray | None
    covariates: np.ndarray | None
    successes: np.ndarray
    trials: np.ndarray

    @classmethod
    def of(cls, tree: xr.DataTree) -> "Hyperparameters":
        """Reads a PartialPooling tree.

        Raises:
            DataError: the tree is not one of PartialPooling.
        """
        if "parquet" in tree.attrs:
            raise DataError(
                f"the units of this tree are in {tree.attrs['parquet']!r} and not in memory; "
                "pelton.write_unit_summary(tree, model, path) reads them again and writes their rates"
            )
        missing = [
            f"{group}/{name}"
            for group, name in (
                ("posterior", "logit_mu"),
                ("posterior", "log_kappa"),
                ("observed_data", "successes"),
                ("constant_data", "trials"),
            )
            if group not in tree.children or name not in tree[group].data_vars
        ]
        if missing:
            raise DataError(f"this tree is not one of PartialPooling: it lacks {', '.join(missing)}")
        posterior, constant = tree["posterior"], tree["constant_data"]

        def flat(name: str) -> np.ndarray:
            values = np.asarray(posterior[name], dtype=np.float64)
            return values.reshape(-1, *values.shape[2:])

        level = next(
            (np.asarray(constant[name]) for name in ("group_index", "segment_index") if name in constant), None
        )
        has_covariates = "standardized_coefficient" in posterior
        return cls(
            flat("logit_mu"),
            flat("log_kappa"),
            level,
            flat("standardized_coefficient") if has_covariates else None,
            np.asarray(constant["standardized_covariates"]) if has_covariates else None,
            np.asarray(tree["observed_data"]["successes"]),
            np.asarray(constant["trials"]),
        )

    @property
    def draws(self) -> int:
        return len(self.logit_mean)

    @property
    def units(self) -> int:
        return len(self.successes)

    def take(self, draws: slice) -> "Hyperparameters":
        """Some of the draws."""
        return replace(
            self,
            logit_mean=self.logit_mean[draws],
            log_concentration=self.log_concentration[draws],
            coefficient=None if self.coefficient is None else self.coefficient[draws],
        )

    def logs(self, units: Any) -> tuple[np.ndarray, np.ndarray]:
        """(logit mean, log concentration), each [draw, unit] or [draw, 1] where units share it."""
        mean, concentration = self.logit_mean, self.log_concentration
        if self.level is None:
            mean, concentration = mean[:, None], concentration[:, None]
        else:
            mean, concentration = mean[:, self.level[units]], concentration[:, self.level[units]]
        if self.coefficient is not None and self.covariates is not None:
            mean = mean + self.coefficient @ self.covariates[units].T
        return mean, concentration

    def shapes(self, units: Any) -> tuple[np.ndarray, np.ndarray]:
        """alpha and beta of the units' population, each [draw, unit] or [draw, 1]."""
        mean, concentration = self.logs(units)
        # log sigmoid(x) = -log(1 + exp(-x)), in the form that does not overflow.
        return (
            np.exp(concentration - np.logaddexp(0.0, -mean)),
            np.exp(concentration - np.logaddexp(0.0, mean)),
        )


def _build_draw() -> Callable:
    """(key data, successes, trials, alpha, beta) -> rates [draw, unit]."""

    def program(key_data: Any, successes: Any, trials: Any, alpha: Any, beta: Any) -> Any:
        shape = (alpha.shape[0], successes.shape[0])
        alpha, beta = (jnp.broadcast_to(shapes, shape) for shapes in (alpha, beta))
        return draw_rates(jax.random.wrap_key_data(key_data), successes, trials, alpha, beta)

    return program


def _draw_block(known: Hyperparameters, seed: int, block: int, units: np.ndarray, width: int) -> np.ndarray:
    """Rates [draw, unit] of at most `width` units; the same seed, block and units give the same rates.

    They are drawn in float32 where it resolves every rate's distribution, which is no narrower than 1/n.
    """
    # The last block is filled up, so that all blocks share a compiled program.
    filled = np.concatenate([units, np.repeat(units[-1:], width - len(units))])
    precision = "float32" if known.trials.max(initial=0) <= FLOAT32_TRIALS else "float64"
    mixed = np.random.SeedSequence((seed, block)).generate_state(2)
    counts = (known.successes[filled], known.trials[filled])
    with using(precision):
        args = tuple(jnp.asarray(array) for array in (mixed, *counts, *known.shapes(filled)))
        args = (args[0], *(arg.astype(precision) for arg in args[1:]))
        drawn = Compiler()(Request(_build_draw, (), args))(*args)
    return np.asarray(drawn)[:, : len(units)]


def rate_seed(tree: xr.DataTree) -> int:
    return int(tree.attrs.get("rate_seed", tree.attrs.get("seed", 0)))


def block_width(draws: int, units: int) -> int:
    """Units in a block: few enough for the memory, and for the cores to share out the blocks."""
    return max(1, min(BLOCK // draws, -(-units // LEAST_BLOCKS)))


def rate_blocks(tree: xr.DataTree) -> Iterator[tuple[slice, np.ndarray]]:
    """The rates, theta_i ~ Beta(alpha + k_i, beta + n_i - k_i), a block of units at a time.

    The draws of a tree are always the same ones, so that every table made of them agrees with every other.

    Yields:
        (units, rates [chains * draws, units of the block])
    """
    yield from blocks(Hyperparameters.of(tree), rate_seed(tree))


def blocks(known: Hyperparameters, seed: int, units: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """As `rate_blocks`, of hyperparameters at hand; of some units alone where `units` lists their positions."""
    units = np.arange(known.units) if units is None else units
    width = block_width(known.draws, len(units))
    starts = range(0, len(units), width)

    def draw(start: int) -> tuple[slice, np.ndarray]:
        chosen = units[start : start + width]
        return slice(start, start + len(chosen)), _draw_block(known, seed, start // width, chosen, width)

    with ThreadPoolExecutor(cores()) as pool:
        # A few blocks ahead and no more: the consumer may be the slower side, and blocks are large.
        ahead = deque(pool.submit(draw, start) for start in starts[: cores() + 1])
        for start in [*starts[cores() + 1 :], *[None] * len(ahead)]:
            done = ahead.popleft().result()
            if start is not None:
                ahead.append(pool.submit(draw, start))
            yield done


def rates_of(tree: xr.DataTree, units: Sequence[int]) -> np.ndarray:
    """The tree's rates [chains * draws, unit] of a few units, by their positions."""
    known, seed = Hyperparameters.of(tree), rate_seed(tree)
    width = block_width(known.draws, known.units)
    columns = []
    for unit in units:
        start = unit // width * width
        block = np.arange(start, min(start + width, known.units))
        columns.append(_draw_block(known, seed, start // width, block, width)[:, unit - start])
    return np.stack(columns, axis=1)


def fits(tree: xr.DataTree) -> bool:
    """Whether all rates fit the memory set aside for them."""
    known = Hyperparameters.of(tree)
    return known.draws * known.units * 4 <= STORE_BYTES


def all_rates(tree: xr.DataTree) -> np.ndarray:
    """Rates [chain, draw, unit]."""
    sizes = tree["posterior"].sizes
    blocks = [rates for _, rates in rate_blocks(tree)]
    return np.concatenate(blocks, axis=1).reshape(sizes["chain"], sizes["draw"], -1)


def unit_summary(
    tree: xr.DataTree, quantiles: Sequence[float] = (0.03, 0.5, 0.97), threshold: float | None = None
) -> pd.DataFrame:
    """Mean, standard deviation and quantiles of each unit's rate, and P(rate > raw), streamed over blocks.

    Units with the same counts in the same population have the same posterior, and share the work. The mean and the sd
    are averages of the conjugate moments over the hyperparameters' draws; quantiles and probabilities are those of
    draws of the rates. Past 400 million draws x distinct units every so-manieth draw serves, and the table's
    `attrs["draws"]` says how many.

    Args:
        tree: of PartialPooling.
        quantiles: probabilities between 0 and 1.
        threshold: adds the column P(rate > threshold).

    Returns:
        One row a unit, in the data's order: successes, trials, raw, mean, sd, q03 and so on, p_above_raw.

    >>> import pelton
    >>> tree = pelton.sample(pelton.PartialPooling([9, 22], [138, 72]))
    >>> list(unit_summary(tree).columns)
    ['successes', 'trials', 'raw', 'mean', 'sd', 'q03', 'q50', 'q97', 'p_above_raw']
    """
    known = Hyperparameters.of(tree)
    first, pattern = _patterns(known)
    step = max(1, known.draws * len(first) // SUMMARY_ELEMENTS)
    step = min(step, max(1, known.draws // THINNED_DRAWS))
    known = known.take(slice(None, None, step))
    columns: dict[str, np.ndarray] = {
        name: np.empty(len(first))
        for name in ("mean", "sd", *(f"q{100 * q:02.0f}" for q in quantiles), "p_above_raw", "p_above")
    }
    for at, drawn in blocks(known, rate_seed(tree), first):
        k, n = known.successes[first[at]], known.trials[first[at]]
        alpha, beta = known.shapes(first[at])
        a, b = alpha + k, beta + (n - k)
        mean = a / (a + b)
        columns["mean"][at] = mean.mean(axis=0)
        columns["sd"][at] = np.sqrt((mean * (1 - mean) / (a + b + 1)).mean(axis=0) + mean.var(axis=0))
        for q, values in zip(quantiles, np.quantile(drawn, quantiles, axis=0), strict=True):
            columns[f"q{100 * q:02.0f}"][at] = values
        raw = np.divide(k, n, out=np.full(len(k), np.nan), where=n > 0)
        columns["p_above_raw"][at] = np.where(n > 0, (drawn > raw).mean(axis=0), np.nan)
        if threshold is not None:
            columns["p_above"][at] = (drawn > threshold).mean(axis=0)
    if threshold is None:
        del columns["p_above"]
    k, n = known.successes, known.trials
    raw = np.divide(k, n, out=np.full(len(k), np.nan), where=n > 0)
    table = pd.DataFrame(
        {"successes": k, "trials": n, "raw": raw} | {name: values[pattern] for name, values in columns.items()},
        index=pd.Index(np.asarray(tree["observed_data"]["unit"]), name=tree.attrs.get("unit_name", "unit")),
    )
    table.attrs["draws"] = known.draws
    return table


def _patterns(known: Hyperparameters) -> tuple[np.ndarray, np.ndarray]:
    """First unit of each distinct posterior, and which of them each unit has [unit]."""
    if known.coefficient is not None:
        every = np.arange(known.units)
        return every, every
    level = np.zeros(known.units, np.int64) if known.level is None else known.level
    frame = pd.DataFrame({"k": known.successes, "n": known.trials, "level": level})
    pattern = frame.groupby(["k", "n", "level"], sort=False).ngroup().to_numpy()
    first = np.full(pattern.max() + 1, known.units)
    np.minimum.at(first, pattern, np.arange(known.units))
    return first, pattern
