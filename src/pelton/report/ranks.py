"""The picture of a calibration: how far the distribution of ranks is from a uniform one."""

import numpy as np

from pelton.engine.calibration import BAND, Calibration
from pelton.report.canvas import LIGHT, WIDTH, Picture, finish, new_figure, styled
from pelton.report.wording import shorten, visible

# Panels of the picture; more quantities than that are in the table alone.
MOST = 12
COLUMNS = 3


@styled
def rank_picture(found: Calibration) -> Picture:
    """The ECDF of each quantity's pit less the uniform one, with the band that holds 99% of uniform ones.

    Args:
        found: of `pelton.calibrate`. Of more than twelve quantities those with the smallest p-values are shown.

    >>> import numpy as np, pandas as pd
    >>> ranks = pd.DataFrame({"mean": np.random.default_rng(0).integers(0, 100, 200)})
    >>> rank_picture(Calibration(ranks, 99, np.ones(200, bool), 0)).title
    'Ranks of the truth are uniform: 1 quantity over 200 data sets'
    """
    from arviz_stats.ecdf_utils import ecdf_pit

    table, pit = found.table(), found.pit()
    names = list(table.sort_values("p_value").index[:MOST]) if len(table) > MOST else list(table.index)
    rows = -(-len(names) // COLUMNS)
    figure = new_figure(WIDTH, 0.9 + 1.9 * rows)
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, name in zip(axes, names, strict=False):
        source = np.random.default_rng([found.seed, 2])
        at, ecdf, low, high = ecdf_pit(pit[name].to_numpy(), BAND, 2000, rng=source)
        held = bool(table.loc[name, "band"])
        axis.fill_between(at, low - at, high - at, step="post", color=LIGHT["pooled"], alpha=0.2, lw=0)
        axis.axhline(0.0, color=LIGHT["ink"], lw=0.8, ls="--")
        axis.step(at, ecdf - at, where="post", color=LIGHT["pooled"] if held else LIGHT["raw"], lw=1.6)
        mark = "" if held else " (outside)"
        axis.set_title(shorten(visible(name), 24) + mark, fontsize=9)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(names) - COLUMNS) : len(names)]:
        axis.set_xlabel("rank of the truth, scaled to 0 to 1")
        axis.tick_params(labelbottom=True)
    for row in range(rows):
        axes[row * COLUMNS].set_ylabel("ECDF less uniform")
    sets, count = len(found.ranks), len(table)
    noun = "quantity" if count == 1 else "quantities"
    title = (
        f"Ranks of the truth are not uniform for {len(found.problems)} of {count} {noun}"
        if found.problems
        else f"Ranks of the truth are uniform: {count} {noun} over {sets} data sets"
    )
    finish(figure, title)
    reading = (
        "Lines in the band are what calibrated draws give in 99 of 100 cases. A line that is high on the left and low "
        "on the right means a posterior too narrow, the other way round too wide; all above or all below means biased."
    )
    return Picture("ranks", "Calibration", title, reading, figure)
