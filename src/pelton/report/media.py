"""Puts the fit of a media mix on disk, and the allocation of a budget: tables, pictures and a page, each file whole."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.errors import DataWarning
from pelton.models.allocation import Allocation
from pelton.report.canvas import Picture
from pelton.report.media_allocation import allocation_lines_picture, allocation_picture
from pelton.report.media_curves import adstock_picture, response_by_geo_picture, response_picture
from pelton.report.media_findings import find_media
from pelton.report.media_learning import prior_picture
from pelton.report.media_numbers import Media
from pelton.report.media_page import media_page
from pelton.report.media_returns import roas_by_geo_picture, roas_picture, share_picture
from pelton.report.media_shrinkage import FILE as SHRINKAGE
from pelton.report.media_shrinkage import shrinkage_picture
from pelton.report.media_tables import CHANNELS, CONTRIBUTIONS, save_tables
from pelton.report.media_time import contributions_picture, fit_picture
from pelton.report.traces import mixed_worst, traces
from pelton.report.write import POSTERIOR, REPORT, aside, check_output

FIT, CURVES = "fit.csv", "curves.csv"
ALLOCATION, PLANS = "allocation.csv", "allocation_plans.csv"
ALLOCATION_PICTURES = ("allocation.png", "allocation_lines.png")
PICTURES = tuple(
    f"{name}.png"
    for name in (
        "share",
        "roas",
        "response",
        "contributions",
        "roas_by_geo",
        "response_by_geo",
        "adstock",
        "fit",
        "shrinkage",
        "prior",
        "traces",
    )
)
FILES = {
    CHANNELS: "what each channel cost and brought, its returns and half-life, in each geo and in all",
    CONTRIBUTIONS: "what each channel and part of the baseline added, by geo and week",
    FIT: "observed and predicted, by geo and week",
    CURVES: "the response curve of each channel in each geo",
    SHRINKAGE: "how far each geo's parameters are drawn to its group: 0 its own data decide, 1 the group",
    ALLOCATION: "today's and the best spend, and its expected response, by geo and channel",
    PLANS: "what the best split of the budget, one in proportion to ROAS and today's bring",
    POSTERIOR: "all draws, for ArviZ and for pelton allocate",
}
TRACED = 4


def write_media_report(
    tree: xr.DataTree | Media,
    out: str | os.PathLike[str],
    *,
    notes: Sequence[str] = (),
    source: str = "",
    allocation: Allocation | None = None,
) -> list[Path]:
    """Writes everything that the fit of a media mix gives.

    Args:
        tree: of MediaMix or country_mix, or its figures where they are at hand.
        out: the folder, made where it is missing. Files of an earlier run under the same names are replaced.
        notes: what the reader should know of the data.
        source: the name of the data, for the heading.
        allocation: of a budget, of `allocation.allocate`; adds today's split and the best to the report.

    Returns:
        The files written: posterior.nc (ArviZ's schema), report.html, channels.csv, contributions.csv, fit.csv,
        curves.csv, shrinkage.csv where geos are pooled, allocation.csv and allocation_plans.csv with an allocation, and
        a PNG a picture.

    Raises:
        OutputError: the folder cannot be written; what stood there is untouched.
        DataError: the tree is not one of a media mix.

    >>> import tempfile, warnings
    >>> import pelton
    >>> from pelton.models.media_mix import MediaMix
    >>> from pelton.models.panel import Panel
    >>> from pelton.models.simulate import simulate_media
    >>> data = simulate_media(geos=["north"], weeks=30, channels=1)
    >>> model = MediaMix(Panel.from_frame(data.frame, **data.columns))
    >>> with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as folder:
    ...     # So few draws do not converge, which the page says in red.
    ...     tree = pelton.sample(model, chains=1, warmup=30, draws=30, progress=False)
    ...     [path.name for path in write_media_report(tree, folder)][:4]
    ['posterior.nc', 'report.html', 'channels.csv', 'contributions.csv']
    """
    media = Media.of(tree)
    out = check_output(out, (POSTERIOR, REPORT, *FILES, *PICTURES, *ALLOCATION_PICTURES))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        findings = find_media(media, allocation)
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
    pictures = _pictures(media, allocation)
    tables = {FIT: fit_table(media), CURVES: curve_table(media)}
    if len(media.geos) > 1 and len(media.shrinkage.columns):
        tables[SHRINKAGE] = media.shrinkage.reset_index()
    names = [CHANNELS, CONTRIBUTIONS, *tables]
    if allocation is not None:
        names += [ALLOCATION, PLANS]
    files = [(name, FILES[name]) for name in (*names, POSTERIOR)]
    text = media_page(media, findings, pictures, files, notes=list(dict.fromkeys([*notes, *said])), source=source)
    with aside(out) as folder:
        media.tree.to_netcdf(folder / POSTERIOR, engine="h5netcdf")
        (folder / REPORT).write_text(text, encoding="utf-8")
        save_tables(media, folder)
        for name, table in tables.items():
            table.to_csv(folder / name, index=False, encoding="utf-8")
        if allocation is not None:
            _save_allocation(allocation, folder)
        for picture in pictures:
            picture.save_png(folder / f"{picture.slug}.png")
    return [out / name for name in (POSTERIOR, REPORT, *names, *(f"{picture.slug}.png" for picture in pictures))]


def write_allocation(
    allocation: Allocation, out: str | os.PathLike[str], *, target: str = "target", period: str = "period"
) -> list[Path]:
    """Writes the allocation of a budget.

    Args:
        allocation: of `allocation.allocate`.
        out: the folder, made where it is missing. Files of an earlier run under the same names are replaced.
        target, period: what the target and a row of its data are called; the figures of a tree know
            (`Media.of(tree).target`, `.period`).

    Returns:
        The files written: allocation.csv (a row per geo and channel), allocation_plans.csv (the best split against that
        in proportion to ROAS and today's), allocation.png, and, where there are several geos, allocation_lines.png.

    Raises:
        OutputError: the folder cannot be written; what stood there is untouched.

    `write_allocation(pelton.allocate(tree, 500_000), "plan", target="sales", period="week")`
    """
    out = check_output(out, (ALLOCATION, PLANS, *ALLOCATION_PICTURES))
    pictures = [allocation_picture(allocation, target, period), allocation_lines_picture(allocation, period)]
    shown = [picture for picture in pictures if picture is not None]
    with aside(out) as folder:
        _save_allocation(allocation, folder)
        for picture in shown:
            picture.save_png(folder / f"{picture.slug}.png")
    return [out / name for name in (ALLOCATION, PLANS, *(f"{picture.slug}.png" for picture in shown))]


def _save_allocation(allocation: Allocation, folder: Path) -> None:
    allocation.table.to_csv(folder / ALLOCATION, encoding="utf-8")
    allocation.plans.to_csv(folder / PLANS, encoding="utf-8")


def _pictures(media: Media, allocation: Allocation | None) -> list[Picture]:
    """The pictures that this fit allows, in the order of the report."""
    found = [share_picture(media), roas_picture(media), response_picture(media)]
    if allocation is not None:
        found += [allocation_picture(allocation, media.target, media.period)]
        found += [allocation_lines_picture(allocation, media.period)]
    found += [contributions_picture(media), roas_by_geo_picture(media), response_by_geo_picture(media)]
    found += [adstock_picture(media), fit_picture(media), shrinkage_picture(media), prior_picture(media)]
    sampled = "sample_stats" in media.tree.children and "approximation" not in media.tree.attrs
    if sampled and np.isfinite(media.diagnostics["rhat"].to_numpy()).any():
        found.append(traces(media.tree, media.diagnostics, mixed_worst(media.tree, media.diagnostics, TRACED)))
    return [picture for picture in found if picture is not None]


def fit_table(tree: xr.DataTree | Media) -> pd.DataFrame:
    """Observed and predicted target, week by week.

    Returns:
        One row per geo and date inside its span: geo, time, observed (empty where masked), mean, low, high (of the
        expected target), noise_low, noise_high (of a new observation), in target units. Intervals hold 94%.
    """
    return Media.of(tree).fit.weeks.reset_index()


def curve_table(tree: xr.DataTree | Media) -> pd.DataFrame:
    """The response curve of every channel in every geo.

    Returns:
        Rows geo, channel, spend (money a period), mean, low, high (target units a period), today (the spend of the last
        year's mean period), one row a point of the curve. Lines that have no price are left empty.
    """
    curves = Media.of(tree).curves
    table = curves[["spend", "mean", "low", "high"]].to_dataframe().reset_index()
    table["today"] = np.repeat(curves["today"].to_numpy().ravel(), curves.sizes["point"])
    return table.drop(columns="point")
