"""The pictures of a fit, from its tree or its unit table; each has a title that says what was found."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from scipy import stats

from pelton.models.decisions import PredictiveCheck
from pelton.models.rates import Hyperparameters
from pelton.models.single_rate import RatePosterior
from pelton.report.axes import beside, log_axis, padded, percent_axis, rows_axis
from pelton.report.canvas import (
    LIGHT,
    WIDTH,
    Names,
    Picture,
    Words,
    finish,
    new_figure,
    place_labels,
    styled,
)
from pelton.report.wording import Amounts, Rates, count, probability, shorten, significant, visible

# Past this many units, single points hide one another and the picture counts them in hexagons.
MANY_UNITS = 400
# Units of a crowd that are told apart on pointing at them: those that pooling moves most.
MOST_TOLD = 500
ALL_ROWS = 30
MAX_ROWS = 40
JOINT_POINTS = 800
INTERVAL = (3, 97)
CAMPAIGN_TIMES = (10, 100, 1_000)
_DOT: dict[str, Any] = {
    "color": LIGHT["pooled"],
    "alpha": 0.8,
    "edgecolor": LIGHT["paper"],
    "lw": 0.8,
    "zorder": 3,
}


def _fading(colour: str) -> LinearSegmentedColormap:
    """From a breath of the colour to all of it: on any paper, fuller is more."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return LinearSegmentedColormap.from_list("fading", [(red, green, blue, 0.22), (red, green, blue, 1.0)])


def _mean_rate(tree: xr.DataTree) -> float | None:
    """Posterior mean of the one population's mean rate, in per cent; None with groups or segments."""
    logit = Hyperparameters.of(tree).logit_mean
    return 100 * float(np.mean(1 / (1 + np.exp(-logit)))) if logit.ndim == 1 else None


def _noun(units: pd.DataFrame) -> str:
    return str(units.index.name or "unit")


def _unit_words(units: pd.DataFrame) -> list[str]:
    """Each unit with its rates, for those who point at it."""
    write = Rates(units["sd"])
    records: Any = units.to_dict("records")
    return [
        f"{shorten(visible(name), 60)}\npooled {write(row['mean'])}, 94% interval "
        f"{write.interval(row['q03'], row['q97'])}"
        f"\nraw {write(row['raw'])}: {row['successes']:,.0f} of {row['trials']:,.0f}"
        for name, row in zip(units.index, records, strict=True)
    ]


@styled
def shrinkage(units: pd.DataFrame, tree: xr.DataTree) -> Picture:
    """Raw against pooled rates, and how far pooling moves them by the units' trials.

    Args:
        units: of `decisions.unit_table`.
        tree: of PartialPooling.
    """
    rows = np.flatnonzero(units["trials"].to_numpy() > 0)
    shown = units.iloc[rows]
    raw, pooled = 100 * shown["raw"].to_numpy(), 100 * shown["mean"].to_numpy()
    trials = shown["trials"].to_numpy()
    write = Rates(units["sd"])
    moved = pooled - raw
    most = np.argsort(-np.abs(moved), kind="stable")[: 3 if len(rows) > MANY_UNITS else 8]
    names = Names(20, _noun(units))
    many = len(rows) > MANY_UNITS
    by_trials = bool(trials.max() > 1.05 * trials.min())
    mean = _mean_rate(tree)
    if mean is not None and not min(raw.min(), pooled.min()) <= mean <= max(raw.max(), pooled.max()):
        mean = None
    figure, words = new_figure(WIDTH, 5.0), Words()
    grid = figure.subplots(1, 1 + by_trials, squeeze=False)[0]
    _against_raw(grid[0], raw, pooled, trials, mean, words)
    told = np.argsort(-np.abs(moved), kind="stable")[:MOST_TOLD]
    said = _unit_words(shown.iloc[told])
    words(grid[0], raw[told], pooled[told], said)
    if by_trials:
        words(grid[1], trials[told], moved[told], said)
    x, y, axes = (trials, moved, grid[1]) if by_trials else (raw, pooled, grid[0])
    if by_trials:
        _moves(axes, trials, moved, words)
    labels = [names(shown.index[i], int(rows[i])) for i in most]
    if by_trials or not many:
        ends = np.linspace(0 if by_trials else raw, y, 12).ravel()
        dots, stems = list(zip(x, y, strict=True)), list(zip(np.tile(x, 12), ends, strict=True))
        points = [(x[i], y[i], label) for i, label in zip(most, labels, strict=True)]
        place_labels(axes, points, [] if many else dots, [] if many else stems)
    furthest = names.called(shown.index[most[0]], int(rows[most[0]]))
    distance = np.abs(moved) / 100
    hardly = f"Pooling hardly moves these rates ({furthest} most): each unit has many trials of its own"
    title = (
        hardly
        if not float(write.number(distance.max()))
        else (
            f"Pooling moves a rate by {write.number(np.median(distance))} percentage points in the median and by "
            f"{write.number(distance.max())} at most ({furthest})"
        )
    )
    finish(figure, title)
    reading = (
        "Left: on the dashed diagonal a unit keeps its own raw rate"
        + (", on the dotted line it has the population's mean" if mean is not None else "")
        + (
            "; the fuller a hexagon's colour, the more units lie there."
            if many
            else "; each short line shows how far pooling moved a unit, and bigger points have more trials."
        )
    )
    if by_trials:
        reading += " Right: the same move by the unit's trials; with many trials a unit speaks for itself."
    else:
        reading = reading.replace("Left: on", "On")
    return Picture("shrinkage", "Raw and pooled rates", title, reading, figure, names, words=words)


def _against_raw(axes: Any, raw: Any, pooled: Any, trials: Any, mean: float | None, words: Words) -> None:
    """Each unit at its raw and its pooled rate, beside the diagonal that no pooling would leave it on."""
    ends = padded(min(raw.min(), pooled.min()), max(raw.max(), pooled.max()))
    axes.plot(ends, ends, color=LIGHT["muted"], ls=(0, (5, 3)), lw=1.2)
    if mean is not None:
        axes.axhline(mean, color=LIGHT["muted"], ls=":", lw=1.4)
    if len(raw) > MANY_UNITS:
        drawn = _hexagons(axes, raw, pooled, words, extent=(*ends, *ends))
        label = "units in a hexagon (log scale)"
        bar = axes.figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.7, label=label)
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.vlines(raw, raw, pooled, color=LIGHT["raw"], lw=1.3, alpha=0.75)
        axes.scatter(raw, pooled, s=_area(trials, trials.max()), **_DOT)
        _size_legend(axes, trials)
    axes.set(xlim=ends, ylim=ends, aspect="equal", title="pooled against raw")
    percent_axis(axes.xaxis, "raw rate: successes / trials (%)")
    percent_axis(axes.yaxis, "pooled rate: posterior mean (%)")


def _moves(axes: Any, trials: Any, moved: Any, words: Words) -> None:
    """How far each unit moves, by its trials."""
    axes.axhline(0, color=LIGHT["muted"], lw=1.2)
    if len(trials) > MANY_UNITS:
        _hexagons(axes, trials, moved, words, xscale="log")
    else:
        axes.vlines(trials, 0, moved, color=LIGHT["raw"], lw=1.3, alpha=0.75)
        axes.scatter(trials, moved, s=36, **_DOT)
    log_axis(axes.xaxis, trials.min(), trials.max(), "trials of the unit (log scale)")
    percent_axis(axes.yaxis, "pooled less raw rate (percentage points)")
    axes.set(
        xlim=(trials.min() / 1.3, trials.max() * 1.3),
        ylim=padded(min(moved.min(), 0), max(moved.max(), 0)),
        title="how far pooling moves a unit",
    )


def _area(trials: Any, largest: float) -> Any:
    """Areas of points: readable at one trial, not overwhelming at the most."""
    return 14 + 120 * np.sqrt(np.maximum(trials, 1) / largest)


def _hexagons(axes: Any, x: np.ndarray, y: np.ndarray, words: Words, **settings: Any) -> Any:
    drawn = axes.hexbin(
        x,
        y,
        gridsize=38,
        mincnt=1,
        norm=LogNorm(vmin=1),
        cmap=_fading(LIGHT["pooled"]),
        linewidths=0.2,
        **settings,
    )
    across, along = _centres(drawn, settings.get("xscale") == "log")
    words(axes, across, along, [count(int(units), "unit") + " hereabouts" for units in drawn.get_array()])
    return drawn


def _centres(drawn: Any, logarithmic: bool) -> np.ndarray:
    """Where hexagons lie: versions of matplotlib move one outline, by logarithms too, or draw each in its place."""
    outlines = np.array([path.vertices[:6] for path in drawn.get_paths()])
    places = np.array(drawn.get_offsets(), dtype=float)
    if logarithmic:
        outlines[..., 0] = np.log10(outlines[..., 0])
    across, along = (outlines.mean(axis=1) + places).T
    return np.array([10**across if logarithmic else across, along])


def _size_legend(axes: Any, trials: np.ndarray) -> None:
    """Which size of point stands for how many trials."""
    sizes = np.unique([trials.min(), int(np.median(trials)), trials.max()])
    marks = np.sqrt(_area(sizes, trials.max()))
    look: dict[str, Any] = {"ls": "", "marker": "o", "color": LIGHT["pooled"], "mec": LIGHT["paper"]}
    handles = [
        Line2D([], [], ms=mark, label=count(int(size), "trial"), **look)
        for size, mark in zip(sizes, marks, strict=True)
    ]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.4)


@styled
def intervals(units: pd.DataFrame, tree: xr.DataTree, top: int = 10) -> Picture:
    """The highest rates with their 94% intervals, in order; all units where they are few."""
    order = np.argsort(-units["mean"].to_numpy(), kind="stable")
    number = len(units) if len(units) <= ALL_ROWS else min(max(top, 10), MAX_ROWS)
    order = order[:number]
    shown = units.iloc[order]
    names = Names(noun=_noun(units))
    write = Rates(shown["sd"])
    figure = new_figure(WIDTH, 1.7 + 0.27 * number)
    axes = figure.add_subplot()
    y = np.arange(number)
    low, high = 100 * shown["q03"].to_numpy(), 100 * shown["q97"].to_numpy()
    axes.hlines(y, low, high, color=LIGHT["pooled"], lw=2.2)
    axes.plot(100 * shown["mean"], y, "o", color=LIGHT["pooled"], ms=6.5, label="pooled rate, 94% interval")
    axes.plot(100 * shown["raw"], y, "D", mfc="none", mec=LIGHT["raw"], mew=1.4, ms=5.5, label="raw rate")
    ends = padded(np.nanmin([*low, *100 * shown["raw"]]), np.nanmax([*high, *100 * shown["raw"]]), 0.04)
    mean = _mean_rate(tree)
    # A population mean far off would press all units into a corner.
    if mean is not None and ends[0] - (ends[1] - ends[0]) < mean < ends[1] + (ends[1] - ends[0]):
        ends = min(ends[0], mean), max(ends[1], mean)
        axes.axvline(mean, color=LIGHT["muted"], ls=":", lw=1.4, label="population mean", zorder=0)
    rows_axis(axes, [names(name, int(row)) for name, row in zip(shown.index, order, strict=True)])
    percent_axis(axes.xaxis, "rate (%)")
    axes.set_xlim(*ends)
    if top < len(units):
        column = shown["p_top"].to_numpy()
        axes.text(1.02, -0.75, f"P(top {top})", transform=axes.get_yaxis_transform(), va="bottom", fontsize=9)
        for row, value in enumerate(column):
            beside(axes, row, probability(float(value)))
    figure.legend(loc="outside lower center", ncols=3)
    leader = shown.iloc[0]
    name = names.called(shown.index[0], int(order[0]))
    shared = int((shown["mean"] == leader["mean"]).sum())
    if shared > 1:
        title = f"{name} and {count(shared - 1, 'other')} share the highest pooled rate, {write(leader['mean'])}"
    elif len(units) == 1:
        title = f"{name}: {write(leader['mean'])}, 94% interval {write.interval(leader['q03'], leader['q97'])}"
    else:
        title = (
            f"{name} has the highest pooled rate, {write(leader['mean'])}; it is truly the best with probability "
            f"{probability(float(leader['p_best']))}"
        )
    finish(figure, title)
    what = "All units" if number == len(units) else f"The {number} units with the highest pooled rates"
    reading = (
        f"{what}, highest first. The true rate lies on the line with 94% probability; a diamond far from its dot is a "
        "raw rate that pooling does not believe."
    )
    if top < len(units):
        reading += f" P(top {top}) is the probability that a unit is among the {top} best of all {len(units):,}."
    words = Words("y")
    chances = [f"\nP(top {top}) {probability(float(value))}" if top < len(units) else "" for value in shown["p_top"]]
    words(axes, 100 * shown["mean"], y, map("".join, zip(_unit_words(shown), chances, strict=True)))
    return Picture("intervals", "Highest rates", title, reading, figure, names, words=words)


@styled
def budget(units: pd.DataFrame, total: float) -> Picture:
    """Who gains and who loses when a budget is split by pooled rather than raw rates."""
    change = units["budget_change"].to_numpy()
    number = min(len(units), 20)
    largest = np.argsort(-np.abs(change), kind="stable")[:number]
    order = largest[np.argsort(-change[largest], kind="stable")]
    shown = units.iloc[order]
    names = Names(noun=_noun(units))
    amount, whole = Amounts(change), Amounts([total])
    figure = new_figure(WIDTH, 1.6 + 0.3 * number)
    axes = figure.add_subplot()
    y = np.arange(number)
    values = shown["budget_change"].to_numpy()
    scale, unit = _thousands(float(np.abs(units[["budget_change_low", "budget_change_high"]].to_numpy()).max()))
    gains = values >= 0
    for mask, colour, label in ((gains, "pooled", "gets more"), (~gains, "raw", "gets less")):
        if mask.any():
            axes.barh(
                y[mask], values[mask] / scale, color=LIGHT[colour], alpha=0.55, height=0.62, label=label,
                edgecolor=LIGHT[colour],
            )  # fmt: skip
    low, high = shown["budget_change_low"] / scale, shown["budget_change_high"] / scale
    axes.hlines(y, low, high, color=LIGHT["ink"], lw=1.5)
    axes.plot([], [], color=LIGHT["ink"], lw=1.5, label="94% interval")
    axes.axvline(0, color=LIGHT["ink"], lw=0.9)
    rows_axis(axes, [names(name, int(row)) for name, row in zip(shown.index, order, strict=True)])
    for row, value in enumerate(values):
        beside(axes, row, amount(float(value), sign=True))
    axes.set_xlabel(f"change of the unit's budget, pooled less raw{unit}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))
    figure.legend(loc="outside lower center", ncols=3)
    moved = float(change[change > 0].sum())
    title = (
        f"Pooling moves {whole(moved)} of {whole(total)} between units ({100 * moved / total:.2g}%): most to "
        f"{names.called(shown.index[0], int(order[0]))}, most from {names.called(shown.index[-1], int(order[-1]))}"
    )
    finish(figure, title)
    what = "All units" if number == len(units) else f"The {number} units that change most"
    reading = (
        f"{what}. The budget is split in proportion to the rates. Bars to the right get more than their raw rates "
        "would give them; where the interval crosses zero, the data do not say which way the change should go."
    )
    words, records = Words("y"), shown.to_dict("records")
    words(
        axes,
        values / scale,
        y,
        [
            f"{said}\nbudget {amount(row['budget_pooled'])}, {amount(row['budget_change'], sign=True)} "
            f"({amount(row['budget_change_low'], sign=True)} to {amount(row['budget_change_high'], sign=True)})"
            for said, row in zip(_unit_words(shown), records, strict=True)
        ],
    )
    return Picture("budget", "Budget by pooled rather than raw rates", title, reading, figure, names, words=words)


def _thousands(largest: float) -> tuple[float, str]:
    """A divisor that keeps tick labels short, and what to say of it."""
    if largest >= 2e6:
        return 1e6, " (millions)"
    return (1e3, " (thousands)") if largest >= 2e3 else (1.0, "")


@styled
def population(tree: xr.DataTree) -> Picture:
    """The population's mean and concentration, each and jointly; with groups or segments, those of each."""
    known = Hyperparameters.of(tree)
    mu, kappa = 100 / (1 + np.exp(-known.logit_mean)), np.exp(known.log_concentration)
    if known.logit_mean.ndim == 2:
        return _levels(tree, mu, kappa)
    write = Rates([mu.std() / 100])
    figure = new_figure(WIDTH, 3.7)
    left, middle, right = figure.subplots(1, 3)
    low, high = (float(end) for end in np.quantile(kappa, [0.001, 0.999]))
    kappa_bins = np.geomspace(low, high, 36) if high > low else np.geomspace(0.9 * low, 1.1 * low, 36)
    for axes, values, bins in ((left, mu, 36), (middle, kappa, kappa_bins)):
        axes.hist(values, bins=bins, color=LIGHT["pooled"], alpha=0.35, histtype="stepfilled")
        low, high = np.percentile(values, INTERVAL)
        top = axes.get_ylim()[1]
        axes.hlines(-0.03 * top, low, high, color=LIGHT["pooled"], lw=4)
        axes.axvline(np.median(values), color=LIGHT["pooled"], lw=1.6)
        axes.set(yticks=[], ylim=(-0.07 * top, top))
        axes.spines["left"].set_visible(False)
    percent_axis(left.xaxis, "mean rate μ (%)")
    log_axis(middle.xaxis, kappa_bins[0], kappa_bins[-1], "concentration κ (trials)")
    step = max(1, len(mu) // JOINT_POINTS)
    right.plot(mu[::step], kappa[::step], ".", color=LIGHT["pooled"], alpha=0.35, ms=4, mew=0)
    percent_axis(right.xaxis, "mean rate μ (%)")
    right.xaxis.set_major_locator(MaxNLocator(nbins=5))
    left.xaxis.set_major_locator(MaxNLocator(nbins=5))
    log_axis(right.yaxis, kappa.min(), kappa.max(), "concentration κ (trials)")
    for axes, heading in ((left, "mean"), (middle, "concentration"), (right, "both")):
        axes.set_title(heading)
    low, high = np.percentile(mu / 100, INTERVAL)
    title = (
        f"The population's mean rate is {write(mu.mean() / 100)} (94% interval {write.interval(low, high)}); knowing "
        f"the population is worth about {significant(float(np.median(kappa)), 2)} trials of a unit's own"
    )
    finish(figure, title)
    reading = (
        "μ is the mean of the rates' population and κ says how alike its units are: it weighs like so many trials "
        "against each unit's own. The thick line below each histogram is the 94% interval, the upright line the "
        "median; each dot is a draw."
    )
    return Picture("population", "The population", title, reading, figure)


def _levels(tree: xr.DataTree, mu: np.ndarray, kappa: np.ndarray) -> Picture:
    """Mean and concentration of each group or segment."""
    dimension = str(tree["posterior"]["logit_mu"].dims[-1])
    labels = np.asarray(tree["posterior"][dimension])
    means: Any = mu.mean(axis=0)
    medians: Any = np.median(kappa, axis=0)
    write = Rates(mu.std(axis=0) / 100)
    names = Names(noun=dimension)
    order = np.argsort(-means, kind="stable")
    first, last = order[0], order[-1]
    lowest = f"{write(means[last] / 100)} ({names.called(labels[last], int(last))})"
    highest = f"{write(means[first] / 100)} ({names.called(labels[first], int(first))})"
    title = f"Mean rates of {count(len(order), dimension)} run from {lowest} to {highest}"
    if len(order) <= MAX_ROWS:
        figure = new_figure(WIDTH, 1.5 + 0.28 * len(order))
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, values, centre in ((left, mu, means), (right, kappa, medians)):
            ends = np.percentile(values[:, order], INTERVAL, axis=0)
            axes.hlines(np.arange(len(order)), *ends, color=LIGHT["pooled"], lw=2.2)
            axes.plot(centre[order], np.arange(len(order)), "o", color=LIGHT["pooled"], ms=6)
            rows_axis(axes, [names(labels[i], int(i)) for i in order])
        percent_axis(left.xaxis, "mean rate μ (%)")
        ends = np.percentile(kappa, INTERVAL, axis=0)
        log_axis(right.xaxis, ends.min(), ends.max(), "concentration κ (trials)")
        reading = f"One row a {dimension}, 94% intervals. A high κ says that the units within are alike."
    else:
        figure = new_figure(WIDTH, 5.4)
        axes = figure.add_subplot()
        axes.plot(means, medians, ".", color=LIGHT["pooled"], alpha=0.5, ms=5)
        percent_axis(axes.xaxis, "mean rate μ, posterior mean (%)")
        log_axis(axes.yaxis, medians.min(), medians.max(), "concentration κ, posterior median (trials)")
        reading = f"One dot a {dimension}. A high κ says that the units within are alike."
    finish(figure, title)
    return Picture("population", f"The {dimension}s", title, reading, figure, names)


@styled
def predictive(check: PredictiveCheck) -> Picture:
    """Whether data made up by the fitted model look like those observed, by mean and spread of raw rates."""
    with_prior = check.prior_mean is not None and check.prior_sd is not None
    figure = new_figure(WIDTH, 5.4 if with_prior else 3.3)
    grid = figure.subplots(1 + with_prior, 2, squeeze=False)
    rows = [("posterior", check.posterior_mean, check.posterior_sd)]
    if check.prior_mean is not None and check.prior_sd is not None:
        rows.append(("prior", check.prior_mean, check.prior_sd))
    for row, (kind, means, sds) in enumerate(rows):
        colour = LIGHT["pooled"] if kind == "posterior" else LIGHT["prior"]
        when = "after the data" if kind == "posterior" else "before the data, from the prior"
        for column, (values, observed, what) in enumerate(
            ((means, check.observed_mean, "mean"), (sds, check.observed_sd, "standard deviation"))
        ):
            axes = grid[row, column]
            # A strange replicate or two must not squeeze the rest into one bar.
            low, high = np.percentile(100 * values, [0.2, 99.8])
            low, high = padded(min(low, 100 * observed), max(high, 100 * observed), 0.03)
            low, high = max(low, 0.0), min(high, 100.0)
            look: dict[str, Any] = {
                "color": colour,
                "edgecolor": colour,
                "alpha": 0.4,
                "histtype": "stepfilled",
            }
            axes.hist(
                100 * values,
                bins=np.linspace(low, high, min(40, max(12, len(values) // 20)) + 1),
                label=f"replicated ({kind})",
                **look,
            )
            axes.axvline(100 * observed, color=LIGHT["raw"], lw=2.2, ls="--", label="observed")
            percent_axis(axes.xaxis, f"{what} of the units' raw rates (percentage points)" if column else
                          f"{what} of the units' raw rates (%)")  # fmt: skip
            axes.set(yticks=[], title=f"{what}, {when}")
            axes.spines["left"].set_visible(False)
    found = [axes.get_legend_handles_labels() for axes in grid[:, 0]]
    handles = {label: handle for row in found for handle, label in zip(*row, strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    if min(check.p_mean, check.p_sd) >= 0.05:
        title = "The model makes data like these: observed mean and spread lie among the replicated ones"
    else:
        wrong = " and ".join(what for what, p in (("mean", check.p_mean), ("spread", check.p_sd)) if p < 0.05)
        title = f"The model does not make data like these: the observed {wrong} is unusual among them"
    finish(figure, title)
    reading = (
        "Each histogram is of made-up data sets with the same units and trials; the dashed line is the data set at "
        "hand. A dashed line outside its upper histogram would say that the model does not fit (tail probabilities "
        f"{check.p_mean:.2f} for the mean, {check.p_sd:.2f} for the spread)."
    )
    if with_prior:
        reading += " The lower histograms show what the prior alone expected."
    return Picture("predictive", "Predictive check", title, reading, figure)


@styled
def rate_picture(posterior: RatePosterior, times: tuple[int, ...] = CAMPAIGN_TIMES) -> Picture:
    """Prior, likelihood and posterior of one rate, for the counts given and for the same rate of more trials.

    Args:
        posterior: of `rate_posterior`.
        times: how many times the trials, with the same share of successes, the further panels have.
    """
    alpha, beta = posterior.prior.alpha, posterior.prior.beta
    panels = [posterior, *(posterior.at(posterior.trials * n) for n in times)]
    likelihoods: list[Any] = [stats.beta(p.successes + 1, p.trials - p.successes + 1) for p in panels]
    prior: Any = stats.beta(alpha, beta)
    limits, shared = _rate_limits(prior, panels, likelihoods)
    rows = -(-len(panels) // 2)
    figure = new_figure(WIDTH, 0.9 + 2.5 * rows)
    grid = figure.subplots(rows, 2, squeeze=False, sharex=shared).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    write = Rates([p.summary()["sd"] for p in panels])
    for axes, one, likelihood, (low, high) in zip(grid, panels, likelihoods, limits, strict=False):
        curves = (prior, likelihood, one.distribution)
        # Points where any curve has its mass, so that no narrow peak is cut, and over the whole width.
        x = np.concatenate([np.linspace(low, high, 400), *(c.ppf(np.linspace(0.0005, 0.9995, 300)) for c in curves)])
        x = np.unique(np.clip(x, max(low, 1e-9), min(high, 1 - 1e-9)))
        axes.plot(100 * x, prior.pdf(x), color=LIGHT["prior"], ls=(0, (5, 2)), lw=1.8, label="prior")
        words = "likelihood (scaled to area 1)"
        axes.plot(100 * x, likelihood.pdf(x), color=LIGHT["raw"], ls=":", lw=2.2, label=words)
        axes.fill_between(100 * x, one.distribution.pdf(x), color=LIGHT["pooled"], alpha=0.18, lw=0)
        axes.plot(100 * x, one.distribution.pdf(x), color=LIGHT["pooled"], lw=2, label="posterior")
        # A density may be infinite at 0 or 1; the height is that of the curves where they have their mass.
        middle = np.linspace(0.01, 0.99, 300)
        top = max(float(np.max(c.pdf(c.ppf(middle)))) for c in curves)
        axes.set(ylim=(0, 1.08 * top), yticks=[], xlim=(100 * low, 100 * high), ylabel="density")
        axes.spines["left"].set_visible(False)
        found = one.summary()
        axes.set_title(
            f"{one.successes:,} of {one.trials:,}: posterior mean {write(found['mean'])}\n94% interval "
            f"{write.interval(found['low'], found['high'])}"
        )
    for axes in grid[max(0, len(panels) - 2) if shared else 0 : len(panels)]:
        percent_axis(axes.xaxis, "rate (%)")
        axes.tick_params(labelbottom=True)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    title = (
        f"{posterior.successes:,} of {posterior.trials:,} moves the rate from {write(prior.mean())} to "
        f"{write(posterior.summary()['mean'])}, not to {write(posterior.successes / posterior.trials)}"
    )
    finish(figure, title)
    reading = (
        "The posterior lies between prior and likelihood, nearer to the one that knows more. The prior weighs like "
        f"{significant(alpha + beta)} trials, so that many trials with the same share win over it."
    )
    return Picture("rate", "Prior, likelihood and posterior", title, reading, figure)


def _rate_limits(
    prior: Any, panels: list[RatePosterior], likelihoods: list[Any]
) -> tuple[list[tuple[float, float]], bool]:
    """Limits of each panel's rates, and whether they are the same for all.

    One scale shows the posterior narrowing; where the narrowest would be a mere line, each panel has its own.
    """
    ends = [0.0005, 0.9995]
    own = [
        (min(one[0], other[0]), max(one[1], other[1]))
        for one, other in (
            (panel.distribution.ppf(ends), likelihood.ppf([0.01, 0.99]))
            for panel, likelihood in zip(panels, likelihoods, strict=True)
        )
    ]
    spread = [*own, tuple(prior.ppf(ends))]
    low, high = min(low for low, _ in spread), max(high for _, high in spread)
    if min(high - low for low, high in own) > (high - low) / 40:
        return [(low, high)] * len(panels), True
    return [(max(low, a - 0.3 * (b - a)), min(high, b + 0.3 * (b - a))) for a, b in own], False
