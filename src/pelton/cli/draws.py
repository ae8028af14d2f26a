"""How `pelton fit` comes by its draws: the sampler's or, where asked for, a fast approximation's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

    from pelton.engine.posterior import Model

# The mode is one point: tables and pictures need a distribution.
METHODS = ("pathfinder", "laplace", "advi")
# Settings that an approximation has too.
SHARED = ("draws", "seed", "precision", "device")


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

    own = {name: value for name, value in settings.items() if name not in ("approximate", "ess")}
    if settings.get("ess") is not None:
        own["stop_at"] = Target(ess=settings["ess"])
    return own


def drawn(model: "Model", settings: Mapping[str, Any], groups: Sequence[str], progress: bool | None) -> "xr.DataTree":
    """The tree of a fit.

    Args:
        model: to fit.
        settings: of `pelton.sample`; where `approximate` names a method, those that it shares hold for it.
        groups: further groups of the tree.
        progress: as for `pelton.sample`.
    """
    from pelton.engine.approximate import approximate
    from pelton.engine.run import sample

    method = settings.get("approximate")
    if method is None:
        return sample(model, groups=groups, progress=progress, **sampler_settings(settings))
    shared = {name: settings[name] for name in SHARED if settings.get(name) is not None}
    return approximate(model, method, groups=groups, progress=progress, **shared)
