"""The picture of the sampling: traces and ranks of the chains, with R-hat and effective sample sizes."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from pelton.engine.diagnostics import MAX_RHAT, table
from pelton.report.canvas import CHAINS, LIGHT, WIDTH, Names, Picture, finish, new_figure, styled

TRACE_POINTS = 500
MARKERS = ("o", "s", "^", "D", "v", "P")


def _traced(tree: xr.DataTree, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Draws [chain, draw] of the two hyperparameters, and of the variable that mixed worst."""
    posterior = tree["posterior"].to_dataset()
    prefix = "population_" if "population_logit_mu" in posterior else ""
    found: dict[str, np.ndarray] = {}
    largest = rows["rhat"].to_numpy()
    worst = str(rows.index[int(np.nanargmax(largest))]) if np.isfinite(largest).any() else ""
    for name in (f"{prefix}logit_mu", f"{prefix}log_kappa"):
        values = np.asarray(posterior[name], dtype=np.float64)
        if values.ndim == 2:
            found[name] = values
            continue
        labels = [label for label in rows.index if str(label).startswith(f"{name}[")]
        rhats = rows.loc[labels, "rhat"].to_numpy()
        at = int(np.nanargmax(rhats)) if np.isfinite(rhats).any() else 0
        found[labels[at]] = values.reshape(*values.shape[:2], -1)[:, :, at]
    if worst and float(np.nanmax(largest)) > MAX_RHAT and worst not in found:
        variable = worst.partition("[")[0]
        labels = [label for label in rows.index if label == worst or str(label).startswith(f"{variable}[")]
        values = np.asarray(posterior[variable], dtype=np.float64)
        # The hyperparameters under their other names say nothing new.
        if values.ndim > 2:
            found[worst] = values.reshape(*values.shape[:2], -1)[:, :, labels.index(worst)]
    return found


def mixed_worst(tree: xr.DataTree, rows: pd.DataFrame, number: int) -> dict[str, np.ndarray]:
    """Draws [chain, draw] of the scalars with the largest R-hats, no two of one variable while there are others."""
    posterior = tree["posterior"].to_dataset()
    rhats = rows["rhat"].to_numpy()
    order = [str(rows.index[at]) for at in np.argsort(-np.nan_to_num(rhats), kind="stable") if np.isfinite(rhats[at])]
    variables = [label.partition("[")[0] for label in order]
    first = [label for at, label in enumerate(order) if variables[at] not in variables[:at]]
    found: dict[str, np.ndarray] = {}
    for label in [*first, *(label for label in order if label not in first)][:number]:
        variable = label.partition("[")[0]
        values = np.asarray(posterior[variable], dtype=np.float64)
        labels = [name for name in rows.index if name == variable or str(name).startswith(f"{variable}[")]
        found[label] = values.reshape(*values.shape[:2], -1)[:, :, labels.index(label)]
    return found


@styled
def traces(
    tree: xr.DataTree, rows: pd.DataFrame | None = None, variables: Mapping[str, np.ndarray] | None = None
) -> Picture:
    """The chains' traces and rank histograms, with R-hat and effective sample sizes.

    Args:
        tree: of PartialPooling; of any model where variables are given.
        rows: of `diagnostics.table`, where it is at hand.
        variables: draws [chain, draw] by their label in the rows, such as of `mixed_worst`; those of
            PartialPooling's population unless given.
    """
    rows = table(tree) if rows is None else rows
    variables = _traced(tree, rows) if variables is None else variables
    chains = next(iter(variables.values())).shape[0]
    figure = new_figure(WIDTH, 0.9 + 2.15 * len(variables))
    grid = figure.subplots(len(variables), 2, squeeze=False, width_ratios=[2.3, 1])
    diverging = np.asarray(tree["sample_stats"]["diverging"])
    diverging = diverging.reshape(*diverging.shape[:2], -1).any(axis=-1)
    step, names = 1, Names(34, "variable")
    for (name, values), (left, right) in zip(variables.items(), grid, strict=True):
        chosen = _apart(values, len(CHAINS))
        step = max(1, values.shape[1] // TRACE_POINTS)
        bins = min(20, max(2, values.size // (25 * chains)))
        ranks = (stats.rankdata(values).reshape(values.shape) - 0.5) / values.size
        for at, chain in enumerate(chosen):
            colour, drawn = LIGHT[CHAINS[at]], np.arange(0, values.shape[1], step)
            left.plot(drawn, values[chain, drawn], color=colour, lw=0.6, alpha=0.8)
            bad = np.flatnonzero(diverging[chain])
            if len(bad):
                left.plot(bad, values[chain, bad], "x", color=LIGHT["bad"], ms=4, mew=1)
            share, edges = np.histogram(ranks[chain], bins=bins, range=(0, 1))
            middle = (edges[:-1] + edges[1:]) / 2
            right.plot(
                middle, share * bins / values.shape[1], color=colour, lw=1.1, marker=MARKERS[at], ms=3,
                label=f"chain {chain}",
            )  # fmt: skip
        spread = 1.88 * np.sqrt(bins * (1 - 1 / bins) / values.shape[1])
        right.axhspan(max(0, 1 - spread), 1 + spread, color=LIGHT["muted"], alpha=0.15, lw=0)
        right.set(xlim=(0, 1), ylim=(0, None), xticks=[0, 0.5, 1], xticklabels=["lowest", "middle", "highest"])
        right.set(title="ranks of each chain's draws", ylabel="relative frequency")
        row = rows.loc[name]
        left.set(xlim=(0, values.shape[1] - 1 or 1), ylabel=_symbol(name))
        left.set_title(_said(names(name, list(rows.index).index(name), "variable"), row))
        Names.prepare(left._left_title)
    for axes in grid[:, 0]:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    grid[-1, 0].set_xlabel("draw" + (f" (one in {step} shown)" if step > 1 else ""))
    handles, labels = grid[0, 1].get_legend_handles_labels()
    if diverging.any():
        handles.append(Line2D([], [], ls="", marker="x", color=LIGHT["bad"], ms=5))
        labels.append("divergent transition")
    figure.legend(handles, labels, loc="outside lower center", ncols=7)
    mixed = "The chains agree and mix well" if tree.attrs.get("converged") else "These draws should not be trusted yet"
    rhats, sizes = rows["rhat"].to_numpy(), rows[["ess_bulk", "ess_tail"]].to_numpy()
    worst = "too few draws for R-hat"
    if np.isfinite(rhats).any():
        worst = f"largest R-hat {np.nanmax(rhats):.3f}, smallest effective sample {np.nanmin(sizes):,.0f}"
    title = f"{mixed}: {worst}"
    finish(figure, title)
    reading = (
        "Good chains look alike: one band of noise at the left, without drifts, steps or a chain that stays apart, "
        "and at the right lines that hover about 1 (within the grey band, mostly). "
        + (
            f"Shown are the {len(CHAINS)} of {chains} chains whose means lie furthest apart. "
            if chains > len(CHAINS)
            else ""
        )
        + f"R-hat should be below {MAX_RHAT}, effective sample sizes above 100 a chain."
    )
    return Picture("traces", "Sampling", title, reading, figure, names)


def _apart(values: np.ndarray, number: int) -> np.ndarray:
    """The chains to show: all, or those with the lowest and the highest means."""
    if len(values) <= number:
        return np.arange(len(values))
    order = np.argsort(values.mean(axis=1), kind="stable")
    return np.sort(np.concatenate([order[: number // 2], order[-(number - number // 2) :]]))


def _symbol(name: str) -> str:
    """A variable as the field writes it."""
    symbol = {"logit_mu": "logit μ", "log_kappa": "log κ"}.get(name.removeprefix("population_").partition("[")[0])
    return symbol or name.partition("[")[0]


def _said(name: str, row: pd.Series) -> str:
    if not np.isfinite(row["rhat"]):
        return name
    sizes = f"effective sample {row['ess_bulk']:,.0f} (tails {row['ess_tail']:,.0f})"
    return f"{name}: R-hat {row['rhat']:.3f}, {sizes}"
