"""Whether draws converged: R-hat, effective sample sizes, divergences and the like, with the remedy in words."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.convergence import LEAST_DRAWS, nested_rhat, summary
from pelton.engine.errors import ConvergenceWarning
from pelton.engine.precision import using

# Vehtari et al. 2021: R-hat below 1.01 and a hundred effective draws a chain.
MAX_RHAT = 1.01
MIN_ESS_PER_CHAIN = 100
MIN_ESS = 400
# Betancourt 2016: below 0.3 the momentum resampling explores the energy too slowly.
MIN_BFMI = 0.3
BFMI_DRAWS = 100
MAX_SATURATED = 0.05
# Draws (chains times draws times parameters) from which compiled programs judge sooner than ArviZ: on two CPU cores
# compiling takes 1.5 s, 0.5 s with the cache on disk, and a draw 0.2 to 0.45 microseconds less, by
# `python -m pelton.benchmarks.convergence`.
COMPILED_FROM = 4_000_000
# Numbers that are judged together at the most: a quarter of a gigabyte.
PIECE = 2**25


@runtime_checkable
class Judgement(Protocol):
    """Whether draws can be trusted."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences that say what is wrong and what to do; empty where nothing is."""
        ...

    def attrs(self) -> dict[str, Any]:
        """Attributes of the tree, among them `converged` (0 or 1) and `status` (in words)."""
        ...


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a run's convergence.

    Attributes:
        worst_rhat, least_ess_bulk, least_ess_tail: over the variables that were sampled, each with its name.
        divergences: transitions whose energy error passed the limit.
        saturated: share of transitions cut by the tree-depth limit.
        least_bfmi: smallest energy Bayesian fraction of missing information over chains.
        problems: sentences that say what is wrong and what to do; empty where nothing is.
    """

    worst_rhat: float
    worst_rhat_of: str
    least_ess_bulk: float
    least_ess_bulk_of: str
    least_ess_tail: float
    least_ess_tail_of: str
    divergences: int
    saturated: float
    least_bfmi: float
    problems: tuple[str, ...] = field(default=())

    @property
    def converged(self) -> bool:
        """Whether nothing speaks against the draws."""
        return not self.problems

    def attrs(self) -> dict[str, Any]:
        """The diagnosis as attributes of a tree."""
        return {
            "converged": int(self.converged),
            "status": "converged" if self.converged else not_converged(self.problems),
            "worst_rhat": self.worst_rhat,
            "least_ess_bulk": self.least_ess_bulk,
            "least_ess_tail": self.least_ess_tail,
            "divergences": self.divergences,
        }


def not_converged(problems: Sequence[str]) -> str:
    """The status of draws with problems, as the command line and the report read it."""
    return "NOT CONVERGED: " + " | ".join(problems)


def table(tree: xr.DataTree, errors: bool = True) -> pd.DataFrame:
    """R-hat, bulk and tail ESS and the Monte Carlo errors of every sampled scalar of the posterior group.

    Rates and other conjugate draws are left out: given the hyperparameters they are independent. Of many chains that
    share their starts (attribute `starts`: chain c began at the c-th modulo their number) R-hat is the nested one,
    which judges chains of few draws too.

    Args:
        tree: with a posterior group.
        errors: whether to work out the Monte Carlo errors too.

    Returns:
        One row a scalar: mean, sd, mcse_mean, mcse_sd, ess_bulk, ess_tail, rhat. Constants have NaN.
    """
    starts = int(tree.attrs.get("starts", 0))
    pieces = [_judged(labels, draws, errors, starts) for labels, draws in _pieces(tree["posterior"].to_dataset())]
    return pd.concat(pieces) if pieces else _judged([], np.zeros((2, 4, 0)), errors, 0)


def _pieces(posterior: xr.Dataset) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and draws [chain, draw, parameter] of the sampled scalars, so many together as fit.

    Of variables that are on disk no more is read at once.
    """
    labels: list[str] = []
    columns: list[np.ndarray] = []
    for name in posterior.data_vars:
        variable = posterior[name]
        if variable.attrs.get("conjugate") is not None:
            continue
        step = max(1, PIECE // max(1, variable[:, :, :1].size)) if variable.ndim > 2 else 1
        for start in range(0, variable.shape[2], step) if variable.ndim > 2 else (0,):
            part = variable[:, :, start : start + step] if variable.ndim > 2 else variable
            values = np.asarray(part, dtype=np.float64).reshape(*part.shape[:2], -1)
            if columns and sum(column.size for column in columns) + values.size > PIECE:
                yield labels, np.concatenate(columns, axis=2)
                labels, columns = [], []
            columns.append(values)
            axes = [np.asarray(part[dim]) for dim in part.dims[2:]]
            for index in np.ndindex(*part.shape[2:]):
                suffix = ", ".join(str(axis[i]) for axis, i in zip(axes, index, strict=True))
                labels.append(f"{name}[{suffix}]" if suffix else str(name))
    if columns:
        yield labels, np.concatenate(columns, axis=2)


def _judged(labels: list[str], draws: np.ndarray, errors: bool, starts: int) -> pd.DataFrame:
    """The rows of some scalars; where chains share so many starts, with nested R-hat."""
    varies = draws.max(axis=(0, 1)) > draws.min(axis=(0, 1))
    found = {name: np.full(draws.shape[2], np.nan) for name in ("mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "rhat")}
    if varies.any() and draws.shape[1] >= LEAST_DRAWS:
        moving = draws if varies.all() else draws[:, :, varies]
        # ArviZ ranks infinite draws, the programs give NaN.
        compiled = moving.size >= COMPILED_FROM and np.isfinite(moving).all()
        judged = _by_programs(moving, errors) if compiled else _by_arviz(moving, errors)
        if starts and starts < len(moving):
            with using("float64"):
                judged["rhat"] = np.asarray(nested_rhat(moving, np.arange(len(moving)) % starts))
        for name, values in judged.items():
            found[name][varies] = values
    # Infinite draws have neither mean nor sd.
    with np.errstate(invalid="ignore"):
        mean = draws.mean(axis=(0, 1))
        sd = draws.std(axis=(0, 1), ddof=1) if draws[:, :, :1].size > 1 else np.full(draws.shape[2], np.nan)
    return pd.DataFrame({"mean": mean, "sd": sd, **found}, index=pd.Index(labels, name="variable"))


def _by_arviz(draws: np.ndarray, errors: bool) -> dict[str, np.ndarray]:
    """ArviZ's figures of draws [chain, draw, parameter], a parameter at a time."""
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    draws = np.moveaxis(draws, 2, 0)
    # One after another: ArviZ sets Python's filters of warnings aside now and then, which are those of all threads.
    judged = {
        "ess_bulk": array_stats.ess(draws, method="bulk"),
        "ess_tail": array_stats.ess(draws, method="tail", prob=(0.05, 0.95)),
        "rhat": array_stats.rhat(draws, method="rank"),
    }
    if errors:
        judged["mcse_mean"] = array_stats.mcse(draws, method="mean")
        judged["mcse_sd"] = array_stats.mcse(draws, method="sd")
    return {name: np.asarray(values) for name, values in judged.items()}


def _by_programs(draws: np.ndarray, errors: bool) -> dict[str, np.ndarray]:
    """The same figures from compiled programs, in float64 whatever the run's precision."""
    with using("float64"):
        judged = summary(draws, errors=errors)
    wanted = ("ess_bulk", "ess_tail", "rhat", *(("mcse_mean", "mcse_sd") if errors else ()))
    return {name: np.asarray(judged[name]) for name in wanted}


def diagnose(tree: xr.DataTree) -> Diagnosis:
    """Checks a tree's posterior and sample_stats groups against the usual limits.

    Args:
        tree: of a sampler, with the groups posterior and sample_stats.

    Returns:
        The worst figures with the variables that they belong to, and each problem with its remedy.

    Source: Vehtari et al. 2021 for R-hat and the effective sizes; Betancourt 2016 for the energy.

    >>> import pelton
    >>> tree = pelton.sample(pelton.PartialPooling([9, 22, 31], [138, 72, 157]))
    >>> diagnose(tree).problems
    ()
    """
    rows = table(tree, errors=False).dropna(subset=["ess_bulk"])
    stats = tree["sample_stats"].to_dataset()
    chains, draws = stats["lp"].shape[:2]
    diverging = int(np.sum(np.asarray(stats["diverging"])))
    saturated = float(np.mean(stats["reached_max_tree_depth"])) if "reached_max_tree_depth" in stats else 0.0
    bfmi = _bfmi(stats)
    if rows.empty:
        problems: tuple[str, ...] = ()
        if "n_steps" in stats and draws < LEAST_DRAWS:
            problems = (f"{draws} draws a chain cannot be judged; take at least {MIN_ESS_PER_CHAIN}",)
        elif "n_steps" in stats:
            problems = ("no variable moved: the density may be constant or every proposal rejected",)
        return Diagnosis(np.nan, "", np.nan, "", np.nan, "", diverging, saturated, bfmi, problems)
    columns = {name: rows[name].to_numpy() for name in ("rhat", "ess_bulk", "ess_tail")}
    at = {
        # One chain has no R-hat.
        "rhat": int(np.nanargmax(columns["rhat"])) if chains > 1 else 0,
        "bulk": int(np.argmin(columns["ess_bulk"])),
        "tail": int(np.argmin(columns["ess_tail"])),
    }
    worst = {
        kind: (float(columns[column][at[kind]]), str(rows.index[at[kind]]))
        for kind, column in (("rhat", "rhat"), ("bulk", "ess_bulk"), ("tail", "ess_tail"))
    }
    found: list[str] = []
    if worst["rhat"][0] > MAX_RHAT:
        found.append(
            f"R-hat is {worst['rhat'][0]:.3f} for {worst['rhat'][1]} (at most {MAX_RHAT}): the chains disagree; run a "
            "longer warm-up, or look at the traces for separate modes"
        )
    if chains == 1 and _has_trajectories(stats):
        found.append("one chain cannot show whether it has found all of the posterior: run at least two")
    # What is asked of a chain is for its own mean to be known; where R-hat is of groups of chains, the sum is enough.
    nested = 0 < int(tree.attrs.get("starts", 0)) < chains
    least = MIN_ESS if nested else min(MIN_ESS_PER_CHAIN * chains, chains * draws)
    for kind in ("bulk", "tail"):
        if worst[kind][0] < least:
            found.append(
                f"the {kind} effective sample size is {worst[kind][0]:.0f} for {worst[kind][1]} (at least {least}): "
                "take more draws"
            )
            break
    if diverging and not _has_trajectories(stats):
        found.append(
            "the posterior does not fit the grid: more than a millionth of it lies in the outermost cells; use the "
            "sampler 'nuts'"
        )
    elif diverging:
        found.append(
            f"{diverging} divergent transitions of {chains * draws}: part of the posterior was not reached; raise "
            "target_accept towards 0.99, or reparameterise"
        )
    if saturated > MAX_SATURATED:
        found.append(
            f"{saturated:.0%} of the trajectories reached the largest tree depth: raise max_tree_depth, or rescale "
            "the model"
        )
    if bfmi < MIN_BFMI:
        found.append(
            f"the energy's Bayesian fraction of missing information is {bfmi:.2f} (at least {MIN_BFMI}): heavy tails; "
            "take more draws or reparameterise"
        )
    return Diagnosis(*worst["rhat"], *worst["bulk"], *worst["tail"], diverging, saturated, bfmi, tuple(found))


def _has_trajectories(stats: xr.Dataset) -> bool:
    """Whether the sampler takes steps of the dynamics, rather than proposing from a grid."""
    return "step_size" in stats and bool(np.any(np.asarray(stats["step_size"]) > 0))


def _bfmi(stats: xr.Dataset) -> float:
    """The smallest energy fraction over chains (and segments); 1 where no momentum is drawn afresh for each draw.

    Of chains too short for a fraction each, which would differ by chance alone, all together.
    """
    if "energy" not in stats or not _has_trajectories(stats):
        return 1.0
    energy = np.asarray(stats["energy"], dtype=np.float64)
    if energy.shape[1] < 3 or np.array_equal(energy, -np.asarray(stats["lp"], dtype=np.float64)):
        return 1.0
    over = (0, 1) if energy.shape[1] < BFMI_DRAWS else 1
    spread = np.var(energy, axis=over)
    moved = np.mean(np.diff(energy, axis=1) ** 2, axis=over)
    return float(np.min(np.where(spread > 0, moved / np.where(spread > 0, spread, 1.0), 1.0)))


def warn(judgement: Judgement) -> None:
    """One ConvergenceWarning a problem."""
    for problem in judgement.problems:
        warnings.warn(problem, ConvergenceWarning, stacklevel=4)
