"""`pelton compare`: two fits of the same data side by side."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pelton.cli import show
from pelton.cli.runs import kind, posterior_file, problems, read_tree

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

HELP = """Compare two fits of the same data: which one predicts better, and where they differ.

A RUN is a folder that `pelton fit` wrote, or its posterior.nc; both hold the same kind of model.
Prediction is judged by leave-one-out cross-validation (PSIS-LOO): of rates each unit is left out in turn, of a media
mix each week of each geo. Where that cannot be had, the parameters of both are shown all the same.

Examples:

  pelton fit example:stores --successes conversions --trials impressions --unit store --out default

  pelton fit example:stores --successes conversions --trials impressions --unit store --prior bda --out bda

  pelton compare default bda

  pelton compare default bda --json

Exit status: 0 done; 2 the runs cannot be read, or their data differ.
"""
# Differences of elpd below this many standard errors, or below 4 nats, say little (Sivula et al. 2023).
CLEAR, SMALL = 2.0, 4.0


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a fit, or its posterior.nc.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another fit of the same data.")],
    *,
    as_json: show.Json = False,
) -> None:
    # The help text is given where the command is registered.
    from pelton.engine.errors import ArgumentError, DataError

    trees, kinds = {}, []
    for run in (first, second):
        file = posterior_file(run)
        name = _name(run)
        if name in trees:
            raise ArgumentError(f"both runs are {name!r}; give two different ones")
        trees[name] = read_tree(file)
        kinds.append(kind(trees[name], file))
    if kinds[0] != kinds[1]:
        raise DataError(f"{first!r} is a fit of {kinds[0]} and {second!r} of {kinds[1]}; compare fits of the same data")
    check_data(trees, kinds[0])
    notes: list[str] = []
    table = _leave_one_out(trees, notes)
    parameters = _parameters(trees)
    for name, tree in trees.items():
        notes += [f"{name} did not converge: {problem}" for problem in problems(tree)]
    sentence = _sentence(table)
    for text in dict.fromkeys(notes):
        show.note(text)
    if as_json:
        show.machine(
            {
                "command": "compare",
                "model": kinds[0],
                "runs": {name: {"model": tree.attrs.get("model"), "converged": not problems(tree)}
                         for name, tree in trees.items()},
                "loo": None if table is None else show.records(table),
                "verdict": sentence,
                "parameters": show.records(parameters),
                "notes": notes,
            }
        )  # fmt: skip
    else:
        _print(trees, table, parameters, sentence)


def _name(run: str) -> str:
    """What a run is called in the tables: its path without the name of the file."""
    path = Path(run)
    return str(path.parent if path.suffix == ".nc" and path.name == "posterior.nc" else path)


def check_data(trees: "dict[str, xr.DataTree]", what: str) -> None:
    """Refuses fits of other data, before anything is computed.

    Raises:
        DataError: names the first difference.
    """
    import numpy as np

    from pelton.engine.errors import DataError

    (one, first), (other, second) = trees.items()
    dims = ("unit",) if what == "rates" else ("geo", "time")
    for dim in dims:
        labels = [tree["observed_data"].coords.get(dim) for tree in (first, second)]
        if any(label is None for label in labels):
            # Units in files: how many there are of each count stands in their place.
            continue
        left, right = ([str(label) for label in np.asarray(found)] for found in labels)
        apart = sorted(set(left) ^ set(right))
        if apart:
            where = one if apart[0] in left else other
            raise DataError(
                f"{one!r} and {other!r} were fitted to other data: {dim} {apart[0]!r} is in {where!r} alone "
                f"({len(apart)} differ in all); compare fits of the same data"
            )
    names = {"rates": (("observed_data", "successes"), ("constant_data", "trials"))}.get(
        what, (("observed_data", "target"),)
    )
    for group, name in names:
        left, right = (tree[group][name] for tree in (first, second))
        if left.sizes != right.sizes:
            raise DataError(
                f"{one!r} and {other!r} were fitted to other data: {name} is {dict(left.sizes)} in one and "
                f"{dict(right.sizes)} in the other; compare fits of the same data"
            )
        if set(dims) <= set(left.dims):
            right = right.reindex({dim: left[dim] for dim in dims if dim in right.coords})
        values = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
        differ = np.argwhere(~np.isclose(*values, rtol=1e-6, atol=0, equal_nan=True))
        if len(differ):
            at = tuple(differ[0])
            place = ", ".join(
                f"{dim} {str(np.asarray(left[str(dim)])[i])!r}" for dim, i in zip(left.dims, at, strict=True)
            )
            raise DataError(
                f"{one!r} and {other!r} were fitted to other data: {name} of {place} is {values[0][at]:g} in one and "
                f"{values[1][at]:g} in the other ({len(differ)} differ in all); compare fits of the same data"
            )


def _leave_one_out(trees: "dict[str, xr.DataTree]", notes: list[str]) -> "pd.DataFrame | None":
    """ArviZ's table; None where it cannot be had, with a note that says why."""
    from pelton.engine.errors import ArgumentError, DataError
    from pelton.models.leave_one_out import compare_loo

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            table = compare_loo(trees)
        except (ArgumentError, DataError) as error:
            notes.append(f"no leave-one-out: {error}")
            return None
    notes += [str(warning.message) for warning in caught]
    return table


def _parameters(trees: "dict[str, xr.DataTree]") -> "pd.DataFrame":
    """Mean and 94% interval of each parameter that a tree has and that is no rate of a unit, and their difference."""
    import numpy as np
    import pandas as pd

    from pelton.engine.arguments import central

    found: dict[str, dict[str, float]] = {}
    for run, tree in trees.items():
        posterior = tree["posterior"].to_dataset()
        for name in map(str, posterior.data_vars):
            values = posterior[name]
            if values.attrs.get("conjugate") is not None or "time" in values.dims:
                continue
            rest = [dim for dim in values.dims if dim not in ("chain", "draw")]
            draws = np.asarray(values.transpose("chain", "draw", *rest), dtype=float)
            draws = draws.reshape(-1, *draws.shape[2:])
            for cell in np.ndindex(draws.shape[1:]):
                labels = [str(np.asarray(posterior[dim])[i]) for dim, i in zip(rest, cell, strict=True)]
                one = draws[:, *cell]
                row = found.setdefault(f"{name}[{', '.join(labels)}]" if labels else name, {})
                low, high = np.quantile(one, central(0.94))
                row |= {f"{run}: mean": one.mean(), f"{run}: low": low, f"{run}: high": high, f"{run}: sd": one.std()}
    table: Any = pd.DataFrame.from_dict(found, orient="index").rename_axis("parameter")
    first, second = trees
    spread: Any = np.sqrt((table[f"{first}: sd"] ** 2 + table[f"{second}: sd"] ** 2) / 2)
    # In posterior standard deviations, so that parameters of any unit stand in one order.
    table["apart"] = (table[f"{second}: mean"] - table[f"{first}: mean"]) / spread.where(spread > 0)
    return table.drop(columns=[f"{run}: sd" for run in trees])


def _sentence(table: "pd.DataFrame | None") -> str:
    """What leave-one-out says."""
    if table is None:
        return "Leave-one-out could not be had for these runs; compare their parameters."
    best, other = table.index
    gap, error = abs(float(table["elpd_diff"].iloc[1])), float(table["dse"].iloc[1])
    if gap < SMALL or gap < CLEAR * error:
        return (
            f"The data do not tell the two apart: {best} predicts better by {gap:.1f} nats, with a standard error of "
            f"{error:.1f}. Prefer the simpler one, or the one whose prior you believe."
        )
    return f"{best} predicts left-out data better than {other}, by {gap:.1f} nats with a standard error of {error:.1f}."


MAX_PARAMETERS = 25


def _print(
    trees: "dict[str, xr.DataTree]", table: "pd.DataFrame | None", parameters: "pd.DataFrame", sentence: str
) -> None:
    from rich.text import Text

    from pelton.report.wording import significant, visible

    console = show.console()
    for name, tree in trees.items():
        state = "" if not problems(tree) else " NOT CONVERGED"
        console.print(Text(f"{visible(name)}: {visible(tree.attrs.get('model', ''))}{state}", style="bold"))
    console.print()
    if table is not None:
        records: Any = table.assign(behind=table["elpd_diff"].abs()).rename_axis("run").reset_index().to_dict("records")
        figures = ("elpd", "se", "behind", "dse", "p")
        rows = [
            (visible(row["run"]), *(f"{float(row[name]):,.1f}" for name in figures), f"{float(row['weight']):.2f}")
            for row in records
        ]
        heads = ("run", "elpd (nats)", "error", "behind", "error ", "parameters in effect", "weight")
        console.print(show.table("Leave-one-out: the higher elpd predicts better", heads, rows))
    console.print(Text(sentence, style="bold"))
    console.print()
    order: Any = parameters["apart"].abs()
    shown = parameters.reindex(order.sort_values(ascending=False, kind="stable").index)

    def cell(row: Any, run: str) -> tuple[str, str]:
        mean, low, high = (float(row[f"{run}: {what}"]) for what in ("mean", "low", "high"))
        if mean != mean:
            return "–", "–"
        return significant(mean), f"{significant(low)} to {significant(high)}"

    rows = []
    for label, row in shown.iloc[:MAX_PARAMETERS].iterrows():
        cells = [text for run in trees for text in cell(row, run)]
        apart = float(row["apart"])
        rows.append((visible(label), *cells, "–" if apart != apart else f"{apart:+.1f} sd"))
    names = [visible(name) for name in trees]
    heads = ("parameter", names[0], "94% interval", names[1], "94% interval ", "apart")
    console.print(show.table("Parameters, those that differ most first", heads, rows))
    if len(shown) > MAX_PARAMETERS:
        console.print(Text(f"  ... and {len(shown) - MAX_PARAMETERS:,} more with --json", style="dim"))
