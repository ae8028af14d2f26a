"""`pelton fit --stream`: rates of units in Parquet files past the memory, read twice, by one host or many."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pelton.cli import show
from pelton.cli.fit_rates import SAMPLING, Options, check_decisions, columns_of_counts

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import xarray as xr

    from pelton.engine.hosts import Hosts
    from pelton.models.streamed import ParquetPooling

POSTERIOR, UNITS = "posterior.nc", "units"


def fit_streamed(
    data: str,
    options: Options,
    out: Path,
    sampling: dict[str, Any],
    *,
    manner: show.Manner,
    hosts: "Hosts | None" = None,
) -> bool:
    """Fits, and writes the units' rates beside the posterior; tells whether the draws converged.

    Args:
        data: a Parquet file, a folder of them, or a pattern.
        options: of rates.
        out: folder for the results.
        sampling: settings of `pelton.sample`, None where the default holds.
        manner: what is printed.
        hosts: who else does the same: each reads a share of the row groups, and the first one samples.
    """
    from pelton.cli.draws import RUN, drawn
    from pelton.models.partial_pooling import PartialPooling
    from pelton.models.priors import from_text
    from pelton.models.unit_file import part_name, write_unit_summary
    from pelton.report import check_output
    from pelton.report.findings import Findings, population, verdict

    successes, trials = columns_of_counts(options)
    _refuse(options, sampling)
    prior = from_text("default" if options.prior is None else options.prior)
    top = 10 if options.top is None else options.top
    check_decisions(top, options.threshold, None)
    first = hosts is None or hosts.index == 0
    if first:
        # One of them: trying whether a folder can be made, two would be in each other's way.
        check_output(out, (POSTERIOR,))
    notes: list[str] = []
    with show.collected(notes):
        columns = {"successes": successes, "trials": trials, "unit": options.unit}
        model = PartialPooling.from_parquet(data, **columns, prior=prior, hosts=hosts)
        out.mkdir(parents=True, exist_ok=True)
        settings = {key: SAMPLING.get(key) if value is None else value for key, value in sampling.items()}
        given = {key: value for key, value in sampling.items() if value is not None}
        progress = None if manner in ("plain", "verbose") else False

        def sampled() -> "xr.DataTree":
            return drawn(model, settings, (), progress, out=out, given=given)

        tree = sampled() if hosts is None else _sent(hosts, sampled)
        target = out / (f"{UNITS}.parquet" if hosts is None else UNITS)
        written = write_unit_summary(tree, model, target, threshold=options.threshold, top=top)
    best = _best(model, target if hosts is None else target / part_name(hosts.index), top)
    if not first:
        return verdict(tree)[0]
    _save(tree, out)
    mean, concentration = _flat(tree, "logit_mu"), _flat(tree, "log_kappa")
    converged, problems = verdict(tree)
    findings = Findings(tuple(population(tree, mean, concentration, written.units)), converged, problems)
    files = [out / POSTERIOR, target] + ([out / RUN] if (out / RUN).exists() else [])
    for text in notes:
        show.note(text)
    if manner == "json":
        show.fitted(tree, findings, notes=notes, files=files, model="rates", units=show.records(best))
    else:
        show.outcome(tree, findings, manner, lambda: _print(tree, best, findings, files=files, name=data))
    return converged


def _refuse(options: Options, sampling: dict[str, Any]) -> None:
    """Refuses what needs the units in memory."""
    from pelton.engine.errors import ArgumentError
    from pelton.report.wording import listed

    names = ("groups", "segments", "covariate", "budget", "hold_out")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    given += ["--approximate"] if sampling.get("approximate") is not None else []
    if given:
        verb = "needs" if len(given) == 1 else "need"
        raise ArgumentError(f"{listed(given)} {verb} the units in memory; leave out --stream and --distributed")


def _sent(hosts: "Hosts", make: Any) -> "xr.DataTree":
    """The tree of the first host, on all of them."""
    import xarray as xr

    made: list[xr.DataTree] = []

    def begin() -> bytes:
        made.append(make())
        held = io.BytesIO()
        made[0].to_netcdf(held, engine="h5netcdf")
        return held.getvalue()

    data = hosts.first(begin)
    return made[0] if made else xr.open_datatree(io.BytesIO(data), engine="h5netcdf").load()


def _flat(tree: "xr.DataTree", name: str) -> "np.ndarray":
    import numpy as np

    return np.asarray(tree["posterior"][name], np.float64).ravel()


def _best(model: "ParquetPooling", file: Path, top: int) -> "pd.DataFrame":
    """The units of highest mean rate, of all hosts' files: no more than a screen of them."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pelton.cli.fit_rates import MAX_TABLE

    count, best = min(top, MAX_TABLE), None
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches():
            held = pa.Table.from_batches([batch])
            held = held if best is None else pa.concat_tables([best, held])
            mean = held.column("mean").to_numpy()
            # The least of them is enough to leave nearly all others unsorted.
            least = np.partition(mean, -count)[-count] if count < len(mean) else -1.0
            best = held.take(np.flatnonzero(mean >= least)).sort_by([("mean", "descending")]).slice(0, count)
    assert best is not None
    if model.hosts is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, best.schema) as stream:
            stream.write_table(best)
        parts = model.hosts.gather(sink.getvalue().to_pybytes())
        best = pa.concat_tables([pa.ipc.open_stream(part).read_all() for part in parts])
    found: pd.DataFrame = best.to_pandas().sort_values("mean", ascending=False, kind="stable").head(count)
    return found.set_index(model.source.unit_name)


def _save(tree: "xr.DataTree", out: Path) -> None:
    from pelton.report.write import aside

    with aside(out) as folder:
        tree.to_netcdf(folder / POSTERIOR, engine="h5netcdf")


def _print(tree: "xr.DataTree", best: "pd.DataFrame", findings: Any, *, files: list[Path], name: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from pelton.cli.draws import RUN, RUN_MEANS
    from pelton.report.wording import Rates, probability, shorten, visible

    console = show.console()
    console.print(Text(visible(name), style="bold"))
    for sentence in findings.sentences:
        console.print(Padding(Text(sentence), (0, 0, 0, 2)))
    console.print()
    write = Rates(best["sd"])
    rows = []
    for rank, row in enumerate(best.reset_index().to_dict("records"), start=1):
        cells = [f"{row['successes']:,.0f}", f"{row['trials']:,.0f}", write(row["raw"]), write(row["mean"])]
        cells += [write.interval(row["q03"], row["q97"])]
        cells += [probability(row[column]) for column in ("p_top", "p_above") if column in best]
        rows.append((str(rank), shorten(visible(row[str(best.index.name)]), 40), *cells))
    heads = ["", visible(best.index.name), "successes", "trials", "raw", "pooled", "94% interval"]
    heads += [said for column, said in (("p_top", "P(top)"), ("p_above", "P(above)")) if column in best]
    console.print(show.table("Highest pooled rates", heads, rows))
    console.print()
    show.verdict(tree, findings.problems)
    meanings = {
        f"{UNITS}.parquet": "one row a unit, in the order of the files read",
        UNITS: "one row a unit, a file for each host",
        POSTERIOR: "all draws of the population, for ArviZ",
        RUN: RUN_MEANS,
    }
    show.files(files, meanings)
