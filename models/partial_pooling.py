"""PartialPooling: rates of units that come from one population, or from regions, segments or a regression."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.errors import ArgumentError, DataError
from pelton.engine.hosts import Hosts
from pelton.engine.posterior import Posterior
from pelton.engine.sources.numpyro import from_numpyro
from pelton.kernels.beta_binomial import count_tables
from pelton.models import frames, predictive, rates
from pelton.models.counts import Counts, check_counts, design, labels
from pelton.models.parquet import BATCH_ROWS, ParquetUnits, Paths
from pelton.models.population import VARIABLES, pooled, populations, regression
from pelton.models.priors import Prior, check_mixed, checked_prior

if TYPE_CHECKING:
    from pelton.models.streamed import ParquetPooling

EXTRA_GROUPS = ("prior", "prior_predictive", "posterior_predictive", "log_likelihood")
# Above this ratio of dense table cells to units, regions' counts are cheaper unit by unit.
DENSE_TABLE_RATIO = 12
# A hierarchy of regions has a funnel where they hardly differ; small steps reach into it.
GROUPS_TARGET_ACCEPT = 0.98
LEAST_CENTRING = 0.3


@dataclass(frozen=True)
class PartialPooling:
    """Rates theta_i of units with k_i successes of n_i trials, each drawn towards its population.

        k_i ~ Binomial(n_i, theta_i),  theta_i ~ Beta(mu kappa, (1 - mu) kappa),  (mu, kappa) ~ prior

    The rates are integrated out: a sampler sees (logit mu, log kappa) alone, by histograms of the counts, and the
    rates are then drawn from theta_i | rest ~ Beta(mu kappa + k_i, (1 - mu) kappa + n_i - k_i).

    Args:
        successes, trials: whole numbers, one per unit, 0 <= successes <= trials. A unit without trials gets the
            population's distribution.
        unit: names, each once; 0, 1, ... when absent.
        prior: MeanConcentration, GammaShapes, Shapes, Bda or FixedBeta. By default the mean is uniform on (0, 1) and
            the concentration Pareto(1.5) above 1.
        covariates: numbers per unit (array or DataFrame) that move the logit of the mean,
            logit mu_i = logit mu + x_i' coefficient, x standardised, coefficients on that scale ~ Normal(0, 1).
        groups: a region per unit; each has a mean and a concentration, partially pooled across regions.
        segments: a question per unit; each is a hierarchy of its own, and all are fitted in one program.

    Raises:
        DataError: bad counts, names, covariates or groups; the message names row, unit and value.
        ArgumentError: options that exclude one another.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.3; Minka 2000 and Sklar 2014 (arXiv 1405.0099) for
    the histograms.

    >>> model = PartialPooling([93455, 78253], [487320, 241018], unit=["Comedy", "Drama"])
    >>> model
    PartialPooling(2 units, MeanConcentration(mean=Beta(1, 1), concentration=Pareto(1, 1.5)))
    """

    counts: Counts
    prior: Prior
    covariates: np.ndarray | None
    covariate_names: tuple[str, ...]
    group: np.ndarray | None
    group_names: tuple[Any, ...]
    segment: np.ndarray | None
    segment_names: tuple[Any, ...]

    def __init__(
        self,
        successes: Any,
        trials: Any,
        *,
        unit: Any = None,
        prior: Prior | None = None,
        covariates: Any = None,
        groups: Any = None,
        segments: Any = None,
        _names: tuple[str, str, str] = ("successes", "trials", "unit"),
    ):
        prior = checked_prior(prior)
        for name in _names:
            frames.check_name(name, "a column's name")
        counts = check_counts(
            successes, trials, unit, successes_name=_names[0], trials_name=_names[1], unit_name=_names[2]
        )
        size = len(counts)
        group, group_names = (None, ()) if groups is None else labels(groups, size, "groups")
        segment, segment_names = (None, ()) if segments is None else labels(segments, size, "segments")
        matrix, names = (None, ()) if covariates is None else design(covariates, size)
        for name in names:
            frames.check_name(name, "a covariate's name")
        if segment is not None and (group is not None or matrix is not None):
            raise ArgumentError("segments are hierarchies of their own and take neither groups nor covariates")
        if prior.fixed and (group is not None or matrix is not None):
            raise ArgumentError(
                "a FixedBeta prior leaves nothing to learn for groups or covariates; choose another prior"
            )
        k, n = counts.successes, counts.trials
        mixed = (k > 0) & (k < n)
        check_mixed(prior, bool(mixed.any()))
        if not prior.proper and segment is not None:
            without = sorted(set(range(len(segment_names))) - set(segment[mixed].tolist()))
            if without:
                raise DataError(
                    f"segment {segment_names[without[0]]!r} has no unit with both successes and failures, and with an "
                    "improper prior its posterior is improper too; choose MeanConcentration or GammaShapes"
                )
        for name, value in (
            ("counts", counts),
            ("prior", prior),
            ("covariates", matrix),
            ("covariate_names", names),
            ("group", group),
            ("group_names", group_names),
            ("segment", segment),
            ("segment_names", segment_names),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        successes: str,
        trials: str,
        unit: str | None = None,
        prior: Prior | None = None,
        covariates: Sequence[str] | None = None,
        groups: str | None = None,
        segments: str | None = None,
    ) -> "PartialPooling":
        """The model of a table with one row per unit.

        Args:
            frame: the table, of pandas, polars, pyarrow, xarray or another library that Narwhals reads.
            successes, trials, unit, groups, segments: names of columns.
            covariates: names of columns; none is as None.
            prior: as for PartialPooling.

        Raises:
            UnknownNameError: a column is not in the table; the message lists the nearest.
            DataError: it is no table, or as for PartialPooling.

        >>> import pandas as pd
        >>> frame = pd.DataFrame({"store": ["A", "B"], "visits": [100, 80], "sales": [12, 9]})
        >>> PartialPooling.from_frame(frame, successes="sales", trials="visits", unit="store").counts.units
        ('A', 'B')
        """

        table = frames.to_pandas(frame)

        def column(name: str | None) -> Any:
            return None if name is None else frames.column(table, name)

        covariates = [] if covariates is None else list(covariates)
        for name in covariates:
            column(name)
            frames.check_name(name, "a covariate's name")
        return cls(
            column(successes),
            column(trials),
            unit=column(unit),
            prior=prior,
            covariates=table[covariates] if covariates else None,
            groups=column(groups),
            segments=column(segments),
            _names=(successes, trials, unit or "unit"),
        )

    @classmethod
    def from_parquet(
        cls,
        path: Paths,
        *,
        successes: str,
        trials: str,
        unit: str | None = None,
        prior: Prior | None = None,
        batch_rows: int = BATCH_ROWS,
        check_names: bool = True,
        hosts: Hosts | None = None,
        covariates: Any = None,
        groups: Any = None,
        segments: Any = None,
    ) -> "ParquetPooling":
        """The model of units in Parquet files, read once in batches; histograms of the counts are all that is kept.

        `pelton.sample` takes it as any other. The tree has no arrays over units: observed_data and constant_data hold
        how many units there are of each number of successes and of trials. `pelton.write_unit_summary` reads the files
        again and writes the units' rates beside them.

        Args:
            path: a file, a pattern such as "stores/*.parquet", a folder, or a list of these.
            successes, trials, unit: names of columns; units are 0, 1, ... in the order of the files without a name.
            prior: as for PartialPooling.
            batch_rows: most rows in memory at a time.
            check_names: whether to refuse names that stand twice, which takes eight bytes a unit while it reads.
            hosts: of `pelton.Hosts.join`, each of which reads a share of the row groups; all get the same model.
            covariates, groups, segments: refused; `from_frame` takes them.

        Raises:
            UnknownNameError: a column is not in a file; the message lists the nearest.
            DataError: as for PartialPooling; of several files the message names the one. A file is changed meanwhile.
            ArgumentError: covariates, groups or segments are given.
            ResourceError: counts take more than 16 million different values.
            HostError: another of the hosts has failed or is gone.

        >>> import tempfile, pelton
        >>> folder = tempfile.TemporaryDirectory()
        >>> pelton.simulate_stores(500).to_parquet(f"{folder.name}/stores.parquet")
        >>> model = PartialPooling.from_parquet(
        ...     f"{folder.name}/*.parquet", successes="conversions", trials="impressions", unit="store"
        ... )
        >>> len(model.source), dict(pelton.sample(model)["constant_data"].sizes)
        (500, {'trials': 101})
        >>> folder.cleanup()
        """
        from pelton.models.streamed import read

        for name, value in (("covariates", covariates), ("groups", groups), ("segments", segments)):
            if value is not None:
                raise ArgumentError(
                    f"from_parquet fits one population and takes no {name}; from_frame takes them, of a table in memory"
                )
        source = ParquetUnits.of(path, successes, trials, unit, batch_rows)
        return read(source, prior, check_names=check_names, hosts=hosts)

    def __repr__(self) -> str:
        parts = [f"{len(self.counts)} units"]
        parts += [f"{len(self.group_names)} groups"] if self.group is not None else []
        parts += [f"{len(self.segment_names)} segments"] if self.segment is not None else []
        parts += [f"{len(self.covariate_names)} covariates"] if self.covariates is not None else []
        return f"PartialPooling({', '.join(parts)}, {self.prior})"

    def subset(self, units: np.ndarray) -> "PartialPooling":
        """The model of some of the units, by their positions."""

        def named(index: np.ndarray | None, names: tuple[Any, ...]) -> Any:
            return None if index is None else [names[i] for i in index[units]]

        counts = self.counts
        covariates = None
        if self.covariates is not None:
            covariates = pd.DataFrame(self.covariates[units], columns=list(self.covariate_names))
        return PartialPooling(
            counts.successes[units],
            counts.trials[units],
            unit=[counts.units[i] for i in units],
            prior=self.prior,
            covariates=covariates,
            groups=named(self.group, self.group_names),
            segments=named(self.segment, self.segment_names),
            _names=(counts.successes_name, counts.trials_name, counts.unit_name),
        )

    def predictor(self, tree: xr.DataTree, fitted: np.ndarray, new: np.ndarray) -> rates.Hyperparameters:
        """What the rates of new units depend on, given the tree of a fit to others.

        Args:
            tree: of `self.subset(fitted)`.
            fitted, new: positions of units.

        Raises:
            DataError: a new unit's group has no fitted unit.
        """
        known = rates.Hyperparameters.of(tree)
        level = covariates = None
        if self.group is not None:
            _, names = labels([self.group_names[i] for i in self.group[fitted]], len(fitted), "groups")
            where = {name: i for i, name in enumerate(names)}
            wanted = [self.group_names[i] for i in self.group[new]]
            missing = [name for name in wanted if name not in where]
            if missing:
                raise DataError(f"group {missing[0]!r} has no unit among those fitted; use fewer folds or merge groups")
            level = np.array([where[name] for name in wanted])
        if self.covariates is not None:
            seen = self.covariates[fitted]
            covariates = (self.covariates[new] - seen.mean(axis=0)) / seen.std(axis=0)
        nothing = np.zeros(len(new), np.int64)
        return replace(known, level=level, covariates=covariates, successes=nothing, trials=nothing)

    @cached_property
    def standardized(self) -> np.ndarray | None:
        """Covariates [unit, covariate] with mean 0 and standard deviation 1."""
        if self.covariates is None:
            return None
        return (self.covariates - self.covariates.mean(axis=0)) / self.covariates.std(axis=0)

    @property
    def extra_groups(self) -> tuple[str, ...]:
        """Groups of the tree that `pelton.sample(..., groups=)` may ask for; an improper prior has no draws."""
        return EXTRA_GROUPS if self.prior.proper else EXTRA_GROUPS[2:]

    def posterior(self) -> Posterior:
        """The log density of the hyperparameters, and what the tree is to hold beside their draws."""
        k, n = self.counts.successes, self.counts.trials
        shared = self.described()
        if self.segment is not None:
            built = populations(self.prior, k, n, self.segment, len(self.segment_names))
        elif self._plain:
            built = from_numpyro(pooled, self.prior, count_tables(k, n), keep=VARIABLES)
            shared["zero_rows"] = [np.ndim(leaf) > 0 for leaf in built.data]
        else:
            built = self._regression()
            # A unit without trials changes nothing; a region more would.
            shared["zero_rows"] = [
                np.shape(leaf)[:1] == k.shape and len(k) > len(self.group_names) for leaf in built.data
            ]
        fields = {
            name: getattr(built, name) for name in ("dimension", "logdensity", "constrain", "start", "data", "batch")
        }
        shared["dims"] = dict(built.dims) | shared["dims"]
        return Posterior(**fields, **shared)

    @property
    def _plain(self) -> bool:
        """Whether there is one population and nothing else."""
        return self.group is None and self.covariates is None and self.segment is None

    def described(self) -> dict[str, Any]:
        """The part of the posterior that is this model's own, whatever it is fitted together with."""
        return {
            "observed": {"successes": self.counts.successes},
            "constant": self._constant(),
            # Two smooth hyperparameters: quadrature gives independent draws, and knows no funnel.
            "sampler": "grid" if self.group is None and self.covariates is None else None,
            "target_accept": GROUPS_TARGET_ACCEPT if self.group is not None else None,
            "attrs": {"model": repr(self), "prior": repr(self.prior), "unit_name": self.counts.unit_name},
            "dims": self._dims(),
            "coords": self._coords(),
        }

    @property
    def batch_key(self) -> Hashable | None:
        """Models of one key can be fitted together, and cost about the same; None: only by what `posterior` gives."""
        if not self._plain or self.prior.fixed:
            return None
        return type(self), self.prior, int(self.counts.trials.max()).bit_length()

    def together(self, models: Sequence["PartialPooling"]) -> Posterior:
        """The batch of the posteriors of models with this one's key."""
        index = np.repeat(np.arange(len(models)), [len(one.counts) for one in models])
        k = np.concatenate([one.counts.successes for one in models])
        n = np.concatenate([one.counts.trials for one in models])
        built = populations(self.prior, k, n, index, len(models))
        return replace(built, sampler="grid", batch_dim="fit")

    def _regression(self) -> Posterior:
        k, n = self.counts.successes, self.counts.trials
        groups = len(self.group_names)
        names = [name for name in VARIABLES if groups] + [
            ("population_" if groups else "") + name for name in VARIABLES
        ]
        names += ["sd_logit_mu", "sd_log_kappa"] if groups else []
        names += ["standardized_coefficient"] if self.covariates is not None else []
        tables = None
        if self.covariates is None:
            assert self.group is not None
            tables = count_tables(k, n, self.group, groups)
            cells = sum(table[0].size for table in (tables.successes, tables.failures, tables.trials))
            tables = tables if cells <= DENSE_TABLE_RATIO * 3 * len(k) else None
        group = np.zeros(len(k), np.int64) if self.group is None else self.group
        units = None if tables is not None else (k.astype(np.float64), n.astype(np.float64), group)
        return from_numpyro(
            regression,
            self.prior,
            groups,
            self._centring() if groups else None,
            tables,
            units,
            self.standardized,
            keep=names,
        )

    def _centring(self) -> np.ndarray:
        """How far each region is centred [2, group], for the logit of its mean and the log of its concentration.

        The share tau^2 / (tau^2 + s_g^2), from 0 (not centred) where regions differ less than a region's data can tell
        to 1 (centred) where they differ by much more: s_g is the standard error of a moment estimate, tau^2 what the
        low end of its variance over regions exceeds s_g^2 by. It changes the coordinates alone, not the posterior.
        """
        assert self.group is not None
        groups = len(self.group_names)
        k, n = self.counts.successes, self.counts.trials

        def by_group(values: np.ndarray) -> np.ndarray:
            return np.bincount(self.group, weights=values, minlength=groups)  # pyright: ignore

        used = n > 0
        units, trials = by_group(used), by_group(n)
        mean = (by_group(k) + 0.5) / (trials + 1)
        raw = np.divide(k, n, out=np.zeros(len(k)), where=used)
        spread = by_group(np.where(used, (raw - mean[self.group]) ** 2, 0.0)) / np.maximum(units - 1, 1)
        # Var(k/n) = mu (1 - mu) [1/n + (1 - 1/n) / (kappa + 1)], solved for kappa with the mean of 1/n.
        inverse = by_group(np.divide(1.0, n, out=np.zeros(len(k)), where=used)) / np.maximum(units, 1)
        excess = spread / (mean * (1 - mean)) - inverse
        kappa = np.clip((1 - inverse) / np.maximum(excess, 1e-6) - 1, 1.0, 1e4)
        kappa = np.where(units > 2, kappa, np.median(kappa[units > 2]) if (units > 2).any() else 10.0)

        effective = np.maximum(units, 0.5) / (inverse + 1 / (kappa + 1))
        error_mean = 1 / (effective * mean * (1 - mean))
        error_concentration = 2 * (1 + kappa * inverse) ** 2 / np.maximum(units - 1, 0.5)
        shares = []
        for estimate, error in (
            (np.log(mean) - np.log1p(-mean), error_mean),
            (np.log(kappa), error_concentration),
        ):
            # The low end of what the variance may be: too little centring costs a few leapfrogs, too much a funnel.
            low_end = max(1 - np.sqrt(2 / (groups - 1)), 0.0) if groups > 1 else 0.0
            variance = float(np.var(estimate, ddof=1)) if groups > 1 else 0.0
            between = max(low_end * variance - float(np.mean(error)), 0.0)
            shares.append(between / (between + error))
        # What is known of a concentration is known badly, and its estimates' spread worse: neither end is safe. (With
        # covariates the raw spread holds their effects too.)
        unsure = self.covariates is not None
        shares[1] = np.full(groups, LEAST_CENTRING) if unsure else np.maximum(shares[1], LEAST_CENTRING)
        return np.stack(shares)

    def _constant(self) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {"trials": self.counts.trials}
        if self.group is not None:
            values["group_index"] = self.group
        if self.segment is not None:
            values["segment_index"] = self.segment
        if self.covariates is not None and self.standardized is not None:
            values["covariates"] = self.covariates
            values["standardized_covariates"] = self.standardized
        return values

    def _dims(self) -> dict[str, tuple[str, ...]]:
        dims: dict[str, tuple[str, ...]] = dict.fromkeys(
            ("successes", "trials", "group_index", "segment_index"), ("unit",)
        )
        dims |= dict.fromkeys(("covariates", "standardized_covariates"), ("unit", "covariate"))
        dims["standardized_coefficient"] = ("covariate",)
        if self.group is not None:
            dims |= dict.fromkeys(VARIABLES, ("group",))
        return dims

    def _coords(self) -> dict[str, Any]:
        coords: dict[str, Any] = {"unit": coordinate(self.counts.units)}
        if self.group is not None:
            coords["group"] = coordinate(self.group_names)
        if self.segment is not None:
            coords["segment"] = coordinate(self.segment_names)
        if self.covariates is not None:
            coords["covariate"] = coordinate(self.covariate_names)
        return coords

    def finish(self, tree: xr.DataTree, *, seed: int, groups: Sequence[str] = ()) -> xr.DataTree:
        """Adds the rates where they fit the memory, coefficients in the covariates' units, and the groups asked for."""
        posterior = tree["posterior"].to_dataset()
        if self.covariates is not None:
            scale = xr.DataArray(self.covariates.std(axis=0), dims=("covariate",))
            posterior["coefficient"] = posterior["standardized_coefficient"] / scale
        tree.attrs["rate_seed"] = str(seed)
        tree["posterior"] = xr.DataTree(posterior)
        tree["posterior"].attrs.update(tree.attrs)
        if rates.fits(tree):
            drawn = rates.all_rates(tree)
            posterior["rate"] = (("chain", "draw", "unit"), drawn, {"conjugate": "given mu and kappa"})
            posterior = posterior.assign_coords(unit=coordinate(self.counts.units))
            tree["posterior"] = xr.DataTree(posterior)
        for name in groups:
            predictive.add_group(tree, name, self.prior, seed)
        return tree


def coordinate(names: Sequence[Any]) -> np.ndarray:
    """Labels as an array that netCDF can hold: numbers where all are numbers, else text."""
    array = np.asarray(names)
    if array.dtype.kind in "iuf" and array.ndim == 1:
        return array
    texts = [str(name) for name in names]
    # Names that differ only in type (1 and "1") must stay apart.
    if len(set(texts)) < len(texts):
        texts = [f"{name!r}" for name in names]
    return np.array(texts, dtype=object).astype(str)
