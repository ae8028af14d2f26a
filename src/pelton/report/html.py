"""The report as one HTML page that needs nothing else: no network, no further files."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pelton.engine.diagnostics import MAX_RHAT
from pelton.engine.importance import MAX_KHAT
from pelton.report.canvas import DARK, LIGHT, Picture
from pelton.report.charts import chart, library
from pelton.report.findings import Findings
from pelton.report.wording import Amounts, Rates, count, probability, significant, visible

# Units in the page as it opens, and units that its table can sort and search.
MAX_UNITS = 200
MAX_EMBEDDED = 100_000
MAX_DIAGNOSTICS = 60


def page(
    tree: xr.DataTree,
    units: pd.DataFrame,
    findings: Findings,
    pictures: Sequence[Picture],
    *,
    diagnostics: pd.DataFrame,
    top: int,
    notes: Sequence[str] = (),
    source: str = "",
) -> str:
    """The whole page.

    Args:
        tree: of PartialPooling.
        units: of `decisions.unit_table`.
        findings: of `findings.find`.
        pictures: in their order on the page.
        diagnostics: of `diagnostics.table`.
        top: what p_top counts.
        notes: what the reader should know of the data.
        source: the name of the data, for the heading.
    """
    columns, rows, meanings = _unit_rows(units, top)
    order = np.argsort(-units["mean"].to_numpy(), kind="stable")[:MAX_EMBEDDED]
    cells = rows(order)
    return render(
        "report.html.j2",
        tree,
        pictures,
        heading=f"Rates per {visible(units.index.name or 'unit')}" + (f": {visible(source)}" if source else ""),
        what=f"Partial pooling of {count(len(units), 'unit')}",
        diagnostics=diagnostics,
        diagnostics_note="The units' rates are left out: given μ and κ they are drawn independently.",
        findings=findings,
        notes=[visible(note) for note in notes],
        columns=columns,
        rows=cells[:MAX_UNITS],
        every=embedded(cells),
        embedded=len(cells),
        total=len(units),
        hidden=len(units) > MAX_UNITS,
        meanings=meanings,
    )


def render(
    template: str,
    tree: xr.DataTree,
    pictures: Sequence[Picture],
    *,
    heading: str,
    what: str,
    diagnostics: pd.DataFrame,
    diagnostics_note: str,
    **context: Any,
) -> str:
    """A page of a template that extends page.html.j2.

    Args:
        template: its file name.
        tree: whose attributes tell how it was computed.
        pictures: in their order on the page.
        heading: of the page.
        what: the model in words, for the line below the heading.
        diagnostics: of `diagnostics.table`.
        diagnostics_note: what to add to the table's caption.
        context: what else the template names; `findings` (converged, problems, sentences) and `notes` always.
    """
    environment = Environment(
        loader=PackageLoader("pelton.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    shown = diagnostics
    if len(diagnostics) > MAX_DIAGNOSTICS:
        shown = diagnostics.sort_values("rhat", ascending=False, kind="stable").iloc[:MAX_DIAGNOSTICS]
    which = (
        "All variables"
        if len(shown) == len(diagnostics)
        else f"The {len(shown)} largest R-hats of {len(diagnostics):,}"
    )
    attrs = {str(name): value for name, value in tree.attrs.items()}
    made = str(attrs.get("created_at", "")).replace("T", ", ").replace("+00:00", " UTC")
    version = attrs.get("inference_library_version", "")
    charts = [chart(picture) for picture in pictures]
    return environment.get_template(template).render(
        heading=heading,
        subheading=f"{what} by pelton {version}, {made}",
        light=LIGHT,
        dark=DARK,
        pictures=[
            {
                "slug": picture.slug,
                "heading": picture.heading,
                "alt": picture.alt,
                "reading": picture.reading,
                "source": "data:image/svg+xml;base64," + base64.b64encode(picture.svg().encode()).decode(),
                "table": picture.table,
                "title": picture.called,
                "chart": embedded(drawn) if drawn else "",
            }
            for picture, drawn in zip(pictures, charts, strict=True)
        ],
        library=library() if any(charts) else "",
        themes=embedded({"light": LIGHT, "dark": DARK}),
        diagnostics_caption=f"{which}. R-hat should be below {MAX_RHAT}, effective sizes above 100 a chain. "
        f"{diagnostics_note}",
        diagnostics_columns=["variable", "mean", "sd", "R-hat", "ESS bulk", "ESS tails", "error of the mean"],
        diagnostics=[_diagnostic(label, row) for label, row in zip(shown.index, shown.to_dict("records"), strict=True)],
        settings=settings(attrs),
        approximation=_approximation(attrs),
        **context,
    )


def embedded(data: Any) -> Markup:
    r"""Data as JSON inside a page, where nothing in them ends the script that holds them.

    >>> embedded([["</script>", "1%"]])
    Markup('[["\\u003c/script>","1%"]]')
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _unit_rows(units: pd.DataFrame, top: int) -> tuple[list[str], Any, list[tuple[str, str]]]:
    """Column heads, a function from positions to their rows of cells, and what the columns mean."""
    write = Rates(units["sd"])
    noun = visible(units.index.name or "unit")
    top = min(top, len(units))
    columns: list[tuple[str, str, Any]] = [
        ("successes", "the count as given", lambda row: f"{row['successes']:,.0f}"),
        ("trials", "the count as given", lambda row: f"{row['trials']:,.0f}"),
        ("raw %", "successes / trials", lambda row: write.number(row["raw"])),
        ("pooled %", "posterior mean of the true rate", lambda row: write.number(row["mean"])),
        (
            "94% interval %",
            "holds the true rate with probability 94%",
            lambda row: f"{write.number(row['q03'])}–{write.number(row['q97'])}",
        ),
        (
            "shrinkage",
            "how far the rate is drawn to the population: 0% is the unit's own data alone, 100% the population alone",
            lambda row: f"{100 * row['shrinkage']:.0f}%",
        ),
        (
            "rank",
            "expected rank among all units, and its 94% interval; 1 is the highest rate",
            lambda row: f"{row['expected_rank']:,.1f} ({row['rank_low']:,.0f}–{row['rank_high']:,.0f})",
        ),
        ("P(best)", "probability that no unit has a higher rate", lambda row: probability(row["p_best"])),
    ]
    if top < len(units):
        columns.append(
            (
                f"P(top {top})",
                f"probability to be among the {top} highest rates",
                lambda row: probability(row["p_top"]),
            )
        )
    if "p_above" in units:
        columns.append(
            (
                "P(above)",
                "probability that the rate exceeds the threshold",
                lambda row: probability(row["p_above"]),
            )
        )
    if "budget_pooled" in units:
        money = Amounts(units["budget_pooled"])
        columns += [
            ("budget", "share of the budget by pooled rates", lambda row: money(row["budget_pooled"])),
            ("change", "against the split by raw rates", lambda row: money(row["budget_change"], sign=True)),
        ]

    def cells(positions: np.ndarray) -> list[list[str]]:
        names = units.index[positions]
        records: list[Any] = units.iloc[positions].to_dict("records")
        return [
            [visible(name), *(cell(row) for _, _, cell in columns)] for name, row in zip(names, records, strict=True)
        ]

    return [noun, *(name for name, _, _ in columns)], cells, [(name, meaning) for name, meaning, _ in columns]


def _diagnostic(label: Any, row: dict[str, float]) -> list[str]:
    def said(name: str, write: Callable[[float], str]) -> str:
        return write(row[name]) if np.isfinite(row[name]) else "–"

    return [
        visible(label),
        said("mean", lambda value: significant(value, 4)),
        said("sd", lambda value: significant(value, 3)),
        said("rhat", "{:.3f}".format),
        said("ess_bulk", "{:,.0f}".format),
        said("ess_tail", "{:,.0f}".format),
        said("mcse_mean", lambda value: significant(value, 2)),
    ]


def _approximation(attrs: dict[str, Any]) -> str:
    """What the reader must know of draws that are not a sampler's; empty where they are."""
    if "approximation" not in attrs:
        return ""
    corrected = (
        "its draws were resampled by importance"
        if attrs.get("resampled")
        else "its draws are plain ones, whose own error nothing corrects"
    )
    return (
        f"These figures come from a fast approximation to the posterior ({attrs['approximation']}) and not from "
        f"sampling it; {corrected}. Pareto k-hat is {float(attrs['khat']):.2f}: above {MAX_KHAT} it must not be "
        "trusted, and below it may still have missed a mode. Sample for figures that matter."
    )


def settings(attrs: dict[str, Any]) -> list[tuple[str, str]]:
    """How a tree's draws were computed, in words: names and values."""

    def seconds(name: str) -> str:
        return f"{float(attrs[name]):.2f} s"

    known = {
        "model": lambda: str(attrs["model"]),
        "sampler": lambda: (
            f"{attrs['sampler']}, {attrs['metric']} metric, target acceptance {attrs['target_accept']:g}"
        ),
        "approximation": lambda: (
            f"{attrs['approximation']} from {attrs['starts']} starts, Pareto k-hat {float(attrs['khat']):.2f}, worth "
            f"{float(attrs['effective_draws']):,.0f} draws; {attrs['draws']:,} taken"
        ),
        "chains": lambda: f"{attrs['chains']} of {attrs['draws']:,} draws after {attrs['warmup']:,} of warm-up",
        "seed": lambda: str(attrs["seed"]),
        "precision": lambda: (
            f"{attrs['precision']} on {attrs['device']}"
            + (f", chain method {attrs['chain_method']}" if "chain_method" in attrs else "")
        ),
        "divergent transitions": lambda: str(attrs["divergences"]),
        "gradient evaluations": lambda: f"{int(attrs['gradient_evaluations']):,}",
        "compiling": lambda: seconds("seconds_compiling"),
        "warm-up": lambda: seconds("seconds_warmup"),
        "sampling": lambda: seconds("seconds_sampling"),
        "fitting": lambda: seconds("seconds_fitting"),
        "drawing": lambda: seconds("seconds_drawing"),
        "versions": lambda: str(attrs["versions"]).replace("=", " ").replace(" ", " "),
    }
    found = []
    for name, value in known.items():
        try:
            found.append((name, visible(value())))
        except KeyError:
            # Trees of other makers may lack an attribute; the report leaves its line out.
            continue
    return found
