"""Puts a fit on disk: posterior.nc, units.csv, report.html and PNGs, each whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.errors import DataError, OutputError

if TYPE_CHECKING:
    from pelton.models.decisions import HeldOut
    from pelton.report.canvas import Picture

POSTERIOR, UNITS, REPORT = "posterior.nc", "units.csv", "report.html"
PICTURES = tuple(
    f"{name}.png" for name in ("shrinkage", "intervals", "budget", "population", "predictive", "traces", "calibration")
)


def _refusal(out: Path, error: Exception | str) -> OutputError:
    reason = error
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"cannot write to {str(out)!r}: {reason}; choose another folder for the output")


def check_output(out: str | os.PathLike[str], names: Sequence[str] = (POSTERIOR, UNITS, REPORT, *PICTURES)) -> Path:
    """Makes sure, before the work, that its results can be written; leaves nothing behind.

    Args:
        out: the folder; it need not exist.
        names: files that are to be written there.

    Raises:
        OutputError: it cannot be made or written to, or something that is no file has a file's name.
    """
    out = Path(out)
    made: list[Path] = []
    try:
        if out.exists() and not out.is_dir():
            raise _refusal(out, "it is a file, not a folder")
        for folder in [*reversed(out.parents), out]:
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        for name in names:
            if (out / name).is_dir():
                raise _refusal(out, f"{name!r} is a folder there")
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(b"pelton")
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise _refusal(out, error) from error
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
    return out


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """A folder to write in; at the end its files replace those of `out`, one by one and each at once.

    Where anything fails while writing, what stood in `out` stays as it was.

    Raises:
        OutputError: the operating system refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".pelton-") as folder:
            scratch = Path(folder)
            yield scratch
            for file in sorted(scratch.iterdir()):
                _to_disk(file)
                os.replace(file, out / file.name)
    except OutputError:
        raise
    except OSError as error:
        raise _refusal(out, error) from error


def _to_disk(file: Path) -> None:
    """Waits until the file's bytes are on the disk: not even a power cut leaves half of it under its name."""
    with file.open("rb") as handle:
        try:
            os.fsync(handle.fileno())
        except OSError as error:
            # Some network and memory file systems cannot; the rest is a real failure.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
                raise


def write_report(
    tree: xr.DataTree,
    out: str | os.PathLike[str],
    *,
    top: int = 10,
    threshold: float | None = None,
    budget: float | None = None,
    notes: Sequence[str] = (),
    source: str = "",
    units: pd.DataFrame | None = None,
    held: "HeldOut | None" = None,
) -> list[Path]:
    """Writes everything that a fit gives.

    Args:
        tree: of PartialPooling.
        out: the folder, made where it is missing. Files of an earlier run under the same names are replaced.
        top, threshold, budget: as for `decisions.unit_table`.
        notes: what the report's reader should know of the data.
        source: the name of the data, for the heading.
        units: the unit table, where it is at hand.
        held: of `decisions.held_out`; adds the calibration picture.

    Returns:
        The files written: posterior.nc (ArviZ's schema), units.csv, report.html, and a PNG a picture.

    Raises:
        OutputError: the folder cannot be written; what stood there is untouched.
        ArgumentError, DataError: as for `decisions.unit_table`.

    >>> import pelton, tempfile
    >>> model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    >>> tree = pelton.sample(model, chains=2, draws=1000)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_report(tree, folder)][:3]
    ['posterior.nc', 'units.csv', 'report.html']
    """
    from pelton.engine.diagnostics import table
    from pelton.models.decisions import unit_table
    from pelton.report.findings import find
    from pelton.report.html import page

    out = check_output(out)
    if units is None:
        units = unit_table(tree, top, threshold, budget)
    diagnostics = table(tree)
    pictures = _pictures(tree, units, top, budget, diagnostics)
    if held is not None:
        from pelton.report.calibration import calibration

        pictures.append(calibration(held))
    text = page(
        tree,
        units,
        find(tree, units, top, threshold, budget),
        pictures,
        diagnostics=diagnostics,
        top=top,
        notes=notes,
        source=source,
    )
    with aside(out) as folder:
        tree.to_netcdf(folder / POSTERIOR, engine="h5netcdf")
        units.to_csv(folder / UNITS, encoding="utf-8")
        (folder / REPORT).write_text(text, encoding="utf-8")
        for picture in pictures:
            picture.save_png(folder / f"{picture.slug}.png")
    return [out / name for name in (POSTERIOR, UNITS, REPORT, *(f"{picture.slug}.png" for picture in pictures))]


def _pictures(
    tree: xr.DataTree, units: pd.DataFrame, top: int, budget: float | None, diagnostics: pd.DataFrame
) -> "list[Picture]":
    """The pictures that this fit allows, in the order of the report."""
    from pelton.models.decisions import predictive_check
    from pelton.report import pictures as draw
    from pelton.report.findings import NOTHING, moved
    from pelton.report.traces import traces

    learnt = tree.attrs.get("sampler") != "conjugate"
    found = []
    if bool(np.any(units["trials"].to_numpy() > 0)):
        found.append(draw.shrinkage(units, tree))
    found.append(draw.intervals(units, tree, top))
    if budget is not None and moved(units) > NOTHING * budget:
        found.append(draw.budget(units, budget))
    if learnt:
        found.append(draw.population(tree))
    # One unit with trials has no spread to check.
    with contextlib.suppress(DataError):
        found.append(draw.predictive(predictive_check(tree)))
    # Independent draws of an approximation have no trace to look at.
    if learnt and "approximation" not in tree.attrs:
        found.append(traces(tree, diagnostics))
    return found
