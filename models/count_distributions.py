"""NumPyro distributions over the beta-binomial kernel: of one count, and of the histograms of many units' counts."""

from typing import Any, ClassVar, cast

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from pelton.engine.errors import DataError
from pelton.kernels.beta_binomial import CountTables, Exceedance, count_tables, log_likelihood, log_pmf

__all__ = ["BetaBinomial", "BetaBinomialHistogram", "count_histogram"]

# Past this many trials of a unit a histogram is longer than most tables of units.
MOST_TRIALS = 1_000_000


class BetaBinomial(dist.BetaBinomial):
    """k successes of n trials whose rate is Beta(a, b), with a log probability that holds in float32 and float64.

        log P(k) = log C(n, k) B(a + k, b + n - k) / B(a, b)

    By `pelton.kernels.beta_binomial.log_pmf`: to n = 1e9 and a + b = 1e18 within 1e-5 in float32 and 1e-13 in float64,
    where differences of log-gamma functions lose every digit. Draws, mean and variance are NumPyro's.

    Args:
        concentration1: a, positive.
        concentration0: b, positive.
        total_count: n.

    Source: Loader 2000, Fast and accurate computation of binomial probabilities; see the kernel.

    >>> print(f"{BetaBinomial(5e18, 5e18, 1000).log_prob(500):.3f}")
    -3.680
    """

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """log P(value), -inf outside 0 ... n."""
        trials, a, b = cast("Any", (self.total_count, self.concentration1, self.concentration0))
        return log_pmf(value, trials, a, b)


class BetaBinomialHistogram(dist.Distribution):
    """The counts of any number of units with one beta population, in the form of their histograms.

        log P = sum_i log B(a + k_i, b + n_i - k_i) / B(a, b),   a = mu kappa,  b = (1 - mu) kappa

    up to sum_i log C(n_i, k_i), which is free of the parameters. A gradient costs as many terms as the largest n, and
    no more for a hundred million units than for a hundred. The value is what `count_histogram` makes of the units; it
    cannot be drawn, so predictions are those of `BetaBinomial`.

    Args:
        logit_mean: logit of mu, scalar or [group].
        log_concentration: log of kappa, scalar or [group].
        length: of the histograms, `histogram.shape[-1]`.

    Source: Minka 2000; Sklar 2014, arXiv 1405.0099.

    >>> import numpyro
    >>> histogram = count_histogram([9, 22, 31], [138, 72, 157])
    >>> def model(histogram):
    ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.5))
    ...     size = numpyro.sample("size", dist.Normal(3.0, 2.0))
    ...     numpyro.sample("stores", BetaBinomialHistogram(mean, size, histogram.shape[-1]), obs=histogram)
    >>> print(f"{BetaBinomialHistogram(0.0, 2.0, histogram.shape[-1]).log_prob(histogram):.3f}")
    -165.886
    """

    arg_constraints: ClassVar[dict[str, Any]] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        "logit_mean": constraints.real,
        "log_concentration": constraints.real,
    }
    support = constraints.independent(constraints.nonnegative, 2)  # pyright: ignore
    pytree_data_fields = ("logit_mean", "log_concentration")

    def __init__(
        self, logit_mean: Any, log_concentration: Any, length: int, *, validate_args: bool | None = None
    ) -> None:
        promoted: Any = promote_shapes(logit_mean, log_concentration)
        self.logit_mean, self.log_concentration = promoted
        batch = jnp.broadcast_shapes(jnp.shape(logit_mean), jnp.shape(log_concentration))
        super().__init__(batch, (3, int(length)), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Not to be had: what units there are, and how many trials each has, is not known to it."""
        raise NotImplementedError("a BetaBinomialHistogram cannot be drawn; draw the units' counts by BetaBinomial")

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The log-likelihood of a histogram [..., 3, length]."""
        rows = jnp.asarray(value)
        successes, failures, trials = (rows[..., margin, :] for margin in range(3))
        tables = CountTables(
            successes[..., 0],
            failures[..., 0],
            *(Exceedance(margin[..., 1:]) for margin in (successes, failures, trials)),
        )
        return log_likelihood(self.logit_mean, self.log_concentration, tables)


def count_histogram(successes: Any, trials: Any, group: Any = None) -> np.ndarray:
    """What the likelihood of units with one beta population depends on.

    Args:
        successes, trials: counts [unit], 0 <= successes <= trials.
        group: index [unit] of each unit's population, 0 ... groups - 1; None for one population.

    Returns:
        float64 [3, length], or [group, 3, length]: for successes, failures and trials the total, and then the number
        of units with a count above 1, 2, .... Lengths are rounded up, so that similar data compile nothing new.

    Raises:
        DataError: the counts are none, or a unit has more than a million trials.

    >>> count_histogram([3, 0, 1], [4, 2, 5])[:, :4].tolist()
    [[4.0, 1.0, 1.0, 0.0], [7.0, 2.0, 1.0, 1.0], [11.0, 3.0, 2.0, 2.0]]
    """
    largest = np.max(np.asarray(trials), initial=0)
    if largest > MOST_TRIALS:
        raise DataError(f"a unit has {largest} trials, and histograms take at most {MOST_TRIALS}; use BetaBinomial")
    try:
        tables = count_tables(successes, trials, group, form="histogram")
    except ValueError as error:
        raise DataError(str(error)) from None
    totals = (tables.total_successes, tables.total_failures, tables.total_successes + tables.total_failures)
    margins = [cast("Exceedance", margin).above for margin in (tables.successes, tables.failures, tables.trials)]
    length = max(margin.shape[-1] for margin in margins)
    rows = []
    for total, above in zip(totals, margins, strict=True):
        padded = np.zeros((*above.shape[:-1], length))
        padded[..., : above.shape[-1]] = above
        rows.append(np.concatenate([np.asarray(total)[..., None], padded], axis=-1))
    return np.stack(rows, axis=-2)
