"""The tables of a media mix that are written beside its report: channels by geo, and contributions by week."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pelton.report.media_numbers import Media

CHANNELS, CONTRIBUTIONS = "channels.csv", "contributions.csv"


def channel_table(tree: xr.DataTree | Media) -> pd.DataFrame:
    """What each channel cost and brought, in all geos together and in each.

    Returns:
        Rows (geo, channel), geo `all` first; columns spend (money), effect (of it, target units, carryover past the
        last week included), roas, roas_low, roas_high, marginal_roas, marginal_roas_low, marginal_roas_high (target per
        unit of spend), contribution, contribution_low, contribution_high (target units within the weeks), share,
        share_low, share_high (of the prediction), half_life, half_life_low, half_life_high (periods until half of the
        effect has happened; `all` is the typical geo). Intervals hold 94%.
    """
    known = Media.of(tree)
    table = known.returns.copy()
    totals = known.totals.loc[known.totals["kind"] == "media"]
    for name in ("", "share"):
        for end in ("", "_low", "_high"):
            column = f"{name}{end}" if name else end.lstrip("_") or "mean"
            table[f"{name or 'contribution'}{end}"] = totals[column].to_numpy()
    lives = np.array([[one.typical_half_life, *one.half_life] for one in known.carryover])
    for at, end in enumerate(("", "_low", "_high")):
        # One geo that is all there is has its rows once.
        table[f"half_life{end}"] = lives[:, :, at].T.ravel()[: len(table)]
    return table


def week_table(tree: xr.DataTree | Media) -> pd.DataFrame:
    """What each channel and part of the baseline added to the target, week by week.

    Returns:
        One row per geo, date inside the geo's span, and component: geo, time, component, kind (media or baseline),
        mean, low, high in target units. The means of a week sum to its prediction.
    """
    weekly = Media.of(tree).weekly
    columns: dict[str, Any] = {
        name: weekly[name].transpose("geo", "time", "component") for name in ("mean", "low", "high")
    }
    shape = columns["mean"].shape
    inside = ~np.isnan(np.asarray(columns["mean"])).all(axis=-1)
    labels = [np.asarray(weekly[name]) for name in ("geo", "time", "component")]
    at = np.nonzero(np.broadcast_to(inside[..., None], shape))
    table: dict[str, Any] = {
        name: label[where] for name, label, where in zip(("geo", "time", "component"), labels, at, strict=True)
    }
    table["kind"] = np.asarray(weekly["kind"])[at[2]]
    return pd.DataFrame(table | {name: np.asarray(values)[at] for name, values in columns.items()})


def save_tables(tree: xr.DataTree | Media, folder: Path) -> list[str]:
    """Writes channels.csv and contributions.csv into a folder.

    Returns:
        The files' names.
    """
    known = Media.of(tree)
    channel_table(known).to_csv(folder / CHANNELS, encoding="utf-8")
    week_table(known).to_csv(folder / CONTRIBUTIONS, index=False, encoding="utf-8")
    return [CHANNELS, CONTRIBUTIONS]
