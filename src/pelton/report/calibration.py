"""The picture of held-out predictions: how often the intervals of each width held the counts."""

import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy import stats

from pelton.models.decisions import HeldOut
from pelton.report.axes import percent_axis
from pelton.report.canvas import LIGHT, WIDTH, Picture, finish, new_figure, styled

BAND = 0.94


@styled
def calibration(held: HeldOut) -> Picture:
    """Coverage of central intervals of every width against their probability, and the PIT's histogram.

    The band is what a calibrated model would show in 94% of such samples: the binomial interval of so many units.
    """
    pit = held.table["pit"].to_numpy()
    units = len(pit)
    nominal = np.linspace(0.0, 1.0, 101)
    distance = np.sort(2 * np.abs(pit - 0.5))
    observed = np.searchsorted(distance, nominal, side="right") / units
    low, high = (stats.binom(units, nominal).ppf(p) / units for p in ((1 - BAND) / 2, (1 + BAND) / 2))

    figure = new_figure(WIDTH, 4.0)
    left, right = figure.subplots(1, 2)
    left.fill_between(
        100 * nominal, 100 * low, 100 * high, color=LIGHT["pooled"], alpha=0.2, lw=0, label="calibrated, 94%"
    )
    left.plot([0, 100], [0, 100], color=LIGHT["ink"], lw=1, ls="--", label="exact")
    left.plot(100 * nominal, 100 * observed, color=LIGHT["pooled"], lw=2, drawstyle="steps-post", label="held out")
    shares = [(p, 100 * share) for p, share in sorted(held.coverage.items())]
    left.plot([100 * p for p, _ in shares], [share for _, share in shares], "D", color=LIGHT["raw"], ms=6)
    percent_axis(left.xaxis, "probability of the interval (%)")
    percent_axis(left.yaxis, "units inside it (%)")
    left.set(title="coverage", xlim=(0, 100), ylim=(0, 100))
    left.legend(loc="upper left")

    bins = max(5, min(20, units // 10))
    expected = units / bins
    ends = stats.binom(units, 1 / bins).ppf([(1 - BAND) / 2, (1 + BAND) / 2])
    right.axhspan(*ends, color=LIGHT["pooled"], alpha=0.2, lw=0)
    right.axhline(expected, color=LIGHT["ink"], lw=1, ls="--")
    right.hist(pit, bins=np.linspace(0, 1, bins + 1), histtype="step", color=LIGHT["pooled"], lw=2)
    right.set(
        title="where the counts fell in their predictions", xlabel="probability of a smaller count", ylabel="units"
    )
    right.set(xlim=(0, 1), ylim=(0, None))
    right.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))

    far = [p for p, share in held.coverage.items() if abs(share - p) > 2 * held.standard_error[p]]
    said = ", ".join(f"{share:.0f}% in {100 * p:.0f}%" for p, share in shares)
    title = (
        "Predictions of unseen units are too sure or too wide" if far else "Predictions of unseen units hold"
    ) + f": {said}"
    finish(figure, title)
    reading = (
        f"Each of {units} units was predicted by a fit that had not seen it. Left: the line should stay in the band "
        "around the dashed diagonal; below it the intervals are too narrow, above it too wide. Right: bars of even "
        "height; a heap at the ends means too narrow, in the middle too wide."
    )
    return Picture("calibration", "Held-out prediction", title, reading, figure)
