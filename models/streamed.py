"""ParquetPooling: partial pooling of units that stay in Parquet files, by histograms of their counts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from pelton.engine.errors import ArgumentError, DataError, ResourceError
from pelton.engine.hosts import Hosts, packed, unpacked
from pelton.engine.posterior import Posterior
from pelton.engine.sources.numpyro import from_numpyro
from pelton.kernels.beta_binomial import CountTables, tables_of_occurrences
from pelton.models.counts import repeated, warn_of_counts
from pelton.models.parquet import Batch, ParquetUnits
from pelton.models.population import VARIABLES, pooled
from pelton.models.priors import Prior, check_mixed, checked_prior
from pelton.models.repeats import find_repeat, hashes, repeated_hashes
from pelton.models.tally import Tally, pair_key, pair_of

# Distinct pairs (successes, trials) past which units are summarised row by row.
MOST_PAIRS = 1 << 22
# Distinct numbers of successes, failures or trials past which the likelihood would be as long as the table.
MOST_VALUES = 1 << 24
# Marks the tree, and names what its units are in.
SOURCE = "parquet"


@dataclass(frozen=True)
class Margin:
    """Distinct values of a count, ascending, and how many units have each, int64 [value]."""

    values: np.ndarray
    units: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs of counts and how many units have each, int64 [pair], ascending in `key`."""

    key: np.ndarray
    successes: np.ndarray
    trials: np.ndarray
    units: np.ndarray


@dataclass(frozen=True)
class ParquetPooling:
    """`PartialPooling` of one population whose units are in Parquet files: see `PartialPooling.from_parquet`.

    Attributes:
        source: the files, with their sizes and times of change.
        prior: of the population.
        successes, trials: the histograms of the counts.
        pairs: the histogram of both; None where there are more than four million distinct pairs.
        tables: what the likelihood needs.
        part: the row groups that this process reads: all of them, but where hosts share them.
        hosts: who else reads; None where this process is alone.
    """

    source: ParquetUnits
    prior: Prior
    successes: Margin
    trials: Margin
    pairs: Pairs | None
    tables: CountTables
    part: ParquetUnits
    hosts: Hosts | None = None

    def __repr__(self) -> str:
        files = repr(self.source.paths[0]) if len(self.source.paths) == 1 else f"{len(self.source.paths)} files"
        return f"PartialPooling.from_parquet({files}, {len(self.source)} units, {self.prior})"

    @property
    def extra_groups(self) -> tuple[str, ...]:
        """None: further groups of a tree hold a value for each draw and unit."""
        return ()

    @property
    def counts(self) -> NoReturn:
        """Raises: the counts are in the files.

        Raises:
            ArgumentError: always; the message says what to call instead.
        """
        raise ArgumentError(
            f"the counts of {self!r} are in its files and not in memory; pelton.write_unit_summary(tree, model, path) "
            "summarises its units, PartialPooling.from_frame takes a sample of them that fits the memory"
        )

    def batches(self) -> Iterator[Batch]:
        """The units that this process reads."""
        return _watched(self.part, self.hosts)

    def posterior(self) -> Posterior:
        """The log density of the hyperparameters; observed_data and constant_data hold the histograms alone."""
        built = from_numpyro(pooled, self.prior, self.tables, keep=VARIABLES)
        fields = {
            name: getattr(built, name) for name in ("dimension", "logdensity", "constrain", "start", "data", "batch")
        }
        return Posterior(
            **fields,
            observed={"units_by_successes": self.successes.units},
            constant={"units_by_trials": self.trials.units, "units": np.int64(len(self.source))},
            dims=dict(built.dims) | {"units_by_successes": ("successes",), "units_by_trials": ("trials",)},
            coords={"successes": self.successes.values, "trials": self.trials.values},
            sampler="grid",
            attrs={
                "model": repr(self),
                "prior": repr(self.prior),
                "unit_name": self.source.unit_name,
                SOURCE: ", ".join(self.source.paths[:3]) + (", ..." if len(self.source.paths) > 3 else ""),
            },
        )

    def finish(self, tree: xr.DataTree, *, seed: int, groups: Any = ()) -> xr.DataTree:
        """Records the run in the tree; the rates are left to `pelton.write_unit_summary`."""
        del seed, groups
        tree["posterior"].attrs.update(tree.attrs)
        return tree


def read(
    source: ParquetUnits, prior: Prior | None = None, *, check_names: bool = True, hosts: Hosts | None = None
) -> ParquetPooling:
    """One pass over the files: checks every row, and keeps the histograms.

    Args:
        source: the files.
        prior: as for PartialPooling.
        check_names: whether to look for names that stand twice, at eight bytes a unit for the time of the pass.
        hosts: who read a share each, and all get the histograms of all.

    Raises:
        DataError, ArgumentError: as for PartialPooling; the files were changed in the meantime.
        ResourceError: more than 16 million distinct numbers of successes, failures or trials.
        HostError: another process has failed or is gone.
    """
    prior = checked_prior(prior)
    part = source if hosts is None else source.share(hosts.index, hosts.count)
    tallies = {name: Tally(MOST_VALUES) for name in (source.successes, "failures", source.trials)}
    pairs = Tally(MOST_PAIRS)
    named = check_names and source.unit is not None
    hashed = np.empty(part.length if named else 0, np.uint64)
    before, empty, mixed = 0, 0, False
    shown: list[Any] = []
    for batch in _watched(part, hosts):
        k, n = batch.successes, batch.trials
        for tally, values in zip(tallies.values(), (k, n - k, n), strict=True):
            tally.add(values)
        pairs.add(pair_key(k, n))
        mixed = mixed or bool(((k > 0) & (k < n)).any())
        without = np.flatnonzero(n == 0)
        empty += len(without)
        shown += [batch.names[int(row)].as_py() for row in without[: 3 - len(shown)]]
        if named:
            hashed[before : before + len(k)] = hashes(batch.names)
        before += len(k)
    if hosts is not None:
        hashed = _dealt(hosts, hashed)
        *joined, pairs = _joined(hosts, [*tallies.values(), pairs])
        tallies = dict(zip(tallies, joined, strict=True))
        said = hosts.gather(json.dumps({"empty": empty, "mixed": mixed, "shown": shown}, default=str).encode())
        every = [json.loads(one) for one in said]
        empty, mixed = sum(one["empty"] for one in every), any(one["mixed"] for one in every)
        shown = [name for one in every for name in one["shown"]][:3]
    if named:
        _refuse_repeats(source, hashed, hosts)
    del hashed
    source.check_unchanged()
    check_mixed(prior, mixed)
    margins = []
    for name, tally in tallies.items():
        found = tally.result()
        if found is None:
            raise ResourceError(
                f"{name} take more than {MOST_VALUES} different values, so that their histogram is no shorter than the "
                "table; fit a sample of the units by PartialPooling.from_frame"
            )
        margins.append(Margin(*found))
    successes, failures, trials = margins
    tables = tables_of_occurrences(*((margin.values, margin.units) for margin in (successes, failures, trials)))
    # Past from_parquet, which calls this.
    warn_of_counts(len(source), empty, shown, source.trials, stacklevel=4)
    return ParquetPooling(source, prior, successes, trials, _pairs(pairs), tables, part, hosts)


def _pairs(tally: Tally) -> Pairs | None:
    found = tally.result()
    return None if found is None else Pairs(found[0], *pair_of(found[0]), found[1])


def _watched(part: ParquetUnits, hosts: Hosts | None) -> Iterator[Batch]:
    """The batches, with a look at the other hosts between them."""
    for batch in part.batches():
        if hosts is not None:
            hosts.look()
        yield batch


def _joined(hosts: Hosts, tallies: Sequence[Tally]) -> list[Tally]:
    """Each tally with those of the other hosts."""
    own = {}
    for number, tally in enumerate(tallies):
        found = tally.result()
        if found is not None:
            own |= {f"values{number}": found[0], f"counts{number}": found[1]}
    joined = [Tally(tally.most) for tally in tallies]
    for found in map(unpacked, hosts.gather(packed(**own))):
        for number, tally in enumerate(joined):
            known = f"values{number}" in found
            tally.join((found[f"values{number}"], found[f"counts{number}"]) if known else None)
    return joined


def _dealt(hosts: Hosts, hashed: np.ndarray) -> np.ndarray:
    """Of the hashes of all hosts those that this one compares, so that equal ones meet."""
    owner = hashed % np.uint64(hosts.count)
    parts = [hashed[owner == number].tobytes() for number in range(hosts.count)]
    return np.concatenate([np.frombuffer(part, np.uint64) for part in hosts.exchange(parts)])


def _refuse_repeats(source: ParquetUnits, hashed: np.ndarray, hosts: Hosts | None) -> None:
    suspects = repeated_hashes(hashed)
    if hosts is not None:
        suspects = np.concatenate([unpacked(data)["suspects"] for data in hosts.gather(packed(suspects=suspects))])

    def names() -> Any:
        before = 0
        for batch in source.batches():
            yield batch.names, before
            before += len(batch.names)

    found = find_repeat(suspects, names)
    if found is None:
        return
    name, *positions = found
    ends = np.cumsum(source.rows)
    files = [int(np.searchsorted(ends, position, side="right")) for position in positions]
    rows = [position - int(ends[file]) + source.rows[file] + 1 for position, file in zip(positions, files, strict=True)]
    if files[0] == files[1]:
        where = "" if len(source.paths) == 1 else f" of {source.paths[files[0]]!r}"
        raise repeated(source.unit_name, name, f"rows {rows[0]} and {rows[1]}{where}")
    places = [f"row {row} of {source.paths[file]!r}" for row, file in zip(rows, files, strict=True)]
    raise repeated(source.unit_name, name, " and ".join(places))


def check_tree(tree: xr.DataTree, model: ParquetPooling) -> None:
    """Refuses a tree that is not of the model.

    Raises:
        DataError: it has other counts or another prior, or is of another kind of model.
    """
    groups = ("posterior", "observed_data", "constant_data")
    if any(group not in tree.children for group in groups) or SOURCE not in tree.attrs:
        raise DataError("this tree is not one of PartialPooling.from_parquet; give that of pelton.sample(model)")
    for group, name, margin in (
        ("observed_data", "units_by_successes", model.successes),
        ("constant_data", "units_by_trials", model.trials),
    ):
        values = tree[group].to_dataset()
        dim = name.removeprefix("units_by_")
        if not np.array_equal(values[dim], margin.values) or not np.array_equal(values[name], margin.units):
            raise DataError(f"this tree is of other data: its histogram of {dim} is not the model's; sample the model")
    if tree.attrs["prior"] != repr(model.prior):
        raise DataError(f"this tree has the prior {tree.attrs['prior']} and the model {model.prior}; sample the model")
