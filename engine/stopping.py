"""When a run has enough draws: a target that is looked at now and then."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pelton.engine.diagnostics import table
from pelton.engine.errors import ArgumentError
from pelton.engine.posterior import Posterior
from pelton.engine.results import dataset

# Draws a chain at the first look, and how many times as many at each further one: looking often makes it likelier to
# look at a lucky moment.
FIRST_LOOK, GROWTH = 100, 1.5


def checks(draws: int) -> tuple[int, ...]:
    """Draws a chain at which a run of at most so many is looked at.

    >>> checks(1000)
    (100, 150, 225, 338, 507, 761, 1000)
    """
    ends, end = [], FIRST_LOOK
    while end < draws:
        ends.append(end)
        end = int(np.ceil(end * GROWTH))
    return (*ends, draws)


@dataclass(frozen=True)
class Target:
    """Stop once every sampled scalar has an effective sample size and an R-hat as good as these.

    A run is looked at after 100 draws a chain, then after half as many again each time. That it stops depends on its
    draws, which at so few looks biases what they say by less than their Monte Carlo error (docs/calibration.md).

    Args:
        ess: bulk and tail effective sample size of each scalar, at least.
        rhat: rank-normalised split R-hat of each, at most.

    Raises:
        ArgumentError: ess is not positive or rhat not above 1.

    >>> import pelton
    >>> model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    >>> tree = pelton.sample(model, sampler="nuts", draws=4000, stop_at=pelton.Target(ess=800))
    >>> tree["posterior"].sizes["draw"] < 4000 and tree.attrs["least_ess_bulk"] >= 800
    True
    """

    ess: float = 400.0
    rhat: float = 1.01

    def __post_init__(self) -> None:
        if not self.ess > 0:
            raise ArgumentError(f"ess of a Target is above 0, not {self.ess!r}; 400 is usual")
        if not self.rhat > 1:
            raise ArgumentError(f"rhat of a Target is above 1, not {self.rhat!r}; 1.01 is usual")

    def reached(self, posterior: Posterior, values: Mapping[str, np.ndarray], starts: int) -> bool:
        """Whether variables [chain, draw, ...] of chains of so many different starts are as good as this."""
        leading = ("chain", "draw", *((posterior.batch_dim,) if posterior.batch is not None else ()))
        variables = dataset(values, posterior.dims, posterior.coords, leading)
        tree = xr.DataTree.from_dict({"posterior": variables})
        tree.attrs["starts"] = starts
        rows = table(tree, errors=False).dropna(subset=["ess_bulk"])
        if rows.empty:
            return False
        least = rows[["ess_bulk", "ess_tail"]].to_numpy().min()
        # One chain has no R-hat.
        return bool(least >= self.ess and not np.any(rows["rhat"].to_numpy() > self.rhat))
