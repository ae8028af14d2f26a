"""How `pelton fit` comes by its draws: the sampler's, kept on disk meanwhile, or a fast approximation's."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pelton.cli import show
from pelton.report.wording import visible

if TYPE_CHECKING:
    import xarray as xr

    from pelton.engine.posterior import Model

# The mode is one point: tables and pictures need a distribution.
METHODS = ("pathfinder", "laplace", "advi")
# Settings that an approximation has too.
SHARED = ("draws", "seed", "precision", "device")
# The run's folder among the results, and what it is.
RUN = "run.zarr"
RUN_MEANS = "the run itself; --resume --draws N takes more draws"


def check_approximation(given: Mapping[str, Any], hold_out: int | None = None) -> None:
    """Refuses what an approximation cannot do, and settings of a sampler beside it.

    Args:
        given: what the command line says of sampling, None where it says nothing.
        hold_out: parts for held-out prediction.
    """
    from pelton.engine.errors import ArgumentError, UnknownNameError
    from pelton.report.wording import listed

    method = given.get("approximate")
    if method is None:
        return
    if method not in METHODS:
        raise UnknownNameError("approximation", method, METHODS)
    names = [name for name, value in given.items() if value is not None and name not in (*SHARED, "approximate")]
    options = [f"--{name.replace('_', '-')}" for name in names] + ["--hold-out"] * (hold_out is not None)
    if options:
        verb, what = ("goes", "it") if len(options) == 1 else ("go", "them")
        raise ArgumentError(
            f"{listed(options)} {verb} not with an approximation; leave {what} out, or leave out --approximate {method}"
        )


def sampler_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the command line as those of `pelton.sample`."""
    from pelton.engine.stopping import Target

    own = {name: value for name, value in settings.items() if name not in ("approximate", "ess", "resume")}
    if settings.get("ess") is not None:
        own["stop_at"] = Target(ess=settings["ess"])
    return own


def drawn(
    model: "Model",
    settings: Mapping[str, Any],
    groups: Sequence[str],
    progress: bool | None,
    *,
    out: Path,
    given: Mapping[str, Any],
) -> "xr.DataTree":
    """The tree of a fit.

    Args:
        model: to fit.
        settings: of `pelton.sample`; where `approximate` names a method, those that it shares hold for it.
        groups: further groups of the tree.
        progress: as for `pelton.sample`.
        out: folder of the results, in which the run is kept while it goes on and after.
        given: those of the settings that the user has given, which a resumed run must have been begun with.
    """
    from pelton.engine.approximate import approximate
    from pelton.engine.errors import DeviceError
    from pelton.engine.run import resume, sample

    method = settings.get("approximate")
    if method is not None:
        shared = {name: settings[name] for name in SHARED if settings.get(name) is not None}
        return approximate(model, method, groups=groups, progress=progress, **shared)
    path = out / RUN
    own = sampler_settings(settings)
    try:
        if settings.get("resume"):
            _check_given(path, given)
            return resume(path, model, draws=given.get("draws"), progress=progress)
        if not _lasts(model, own.get("sampler")):
            return sample(model, groups=groups, progress=progress, **own)
        _make_way(path)
        return sample(model, groups=groups, progress=progress, store=path, **own)
    except (KeyboardInterrupt, DeviceError):
        if path.exists():
            show.note(f"the run so far is in {visible(path)}; the same command with --resume goes on with it")
        raise


def _lasts(model: "Model", sampler: str | None) -> bool:
    """Whether a run may last."""
    from pelton.engine.samplers import DEFAULT, sampler_class

    posterior = model.posterior()
    kind = sampler_class(sampler or posterior.sampler or DEFAULT)
    return posterior.dimension > 0 and not kind.independent


def _make_way(path: Path) -> None:
    """Removes the finished run of an earlier fit, as its other results are replaced.

    Raises:
        OutputError: it is not finished, or no run.
    """
    from pelton.engine.errors import OutputError, StoreError
    from pelton.engine.store import load

    if not path.exists():
        return
    try:
        status = load(path, verify=False).attrs["status"]
    except StoreError as error:
        status = f"UNFINISHED: {error}"
    if status.startswith("UNFINISHED"):
        raise OutputError(
            f"a run that was cut short is in {str(path)!r}: go on with it by --resume, or remove that folder to begin "
            "anew"
        )
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise OutputError(f"cannot replace {str(path)!r}: {error.strerror or error}") from error


def _check_given(path: Path, given: Mapping[str, Any]) -> None:
    """Refuses settings that the run was not begun with.

    Raises:
        StoreError: there is no run, or it was begun with others.
    """
    from pelton.engine.errors import StoreError
    from pelton.engine.journal import begun, has_run
    from pelton.engine.place import place

    where = place(path)
    if not has_run(where):
        raise StoreError(f"there is no run to go on with in {str(path)!r}; leave out --resume, or give its --out")
    stored = begun(where)["settings"]
    stored = {**stored, "device": stored["platform"], "ess": (stored["stop_at"] or {}).get("ess")}
    for name, value in given.items():
        if name not in ("draws", "resume", "groups") and value != stored.get(name):
            raise StoreError(
                f"the run in {str(path)!r} was begun with {name} {stored.get(name)!r} and this command says {value!r}; "
                "make them agree, or begin anew in another --out"
            )
