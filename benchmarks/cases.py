"""The suite's cases: data, quantities of interest, what the right answer is, and who runs with which settings."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pelton.benchmarks import case_data as data
from pelton.benchmarks.case_data import Problem
from pelton.benchmarks.verdicts import truth_of
from pelton.engine.errors import UnknownNameError


@dataclass(frozen=True)
class System:
    """A rival, or pelton, in one of its forms, with its settings for a case.

    Attributes:
        rival: name of its folder.
        variant: of the rival; empty where it has one form.
        chains, warmup, draws: a chain; whatever the rival means by them.
        settings: handed on to its run.py.
        environment: the rival in whose environment it runs; its own where None.
    """

    rival: str
    variant: str = ""
    chains: int = 4
    warmup: int = 1000
    draws: int = 1000
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: str | None = None

    @property
    def name(self) -> str:
        """rival/variant.

        >>> System("scipy_gibbs", "published").name
        'scipy_gibbs/published'
        """
        return f"{self.rival}/{self.variant}" if self.variant else self.rival


@dataclass(frozen=True)
class Case:
    """A posterior, and who draws from it.

    Attributes:
        name, title: in the command line and in tables.
        model: which model a rival's run.py is to build.
        quantities: of interest; the smallest effective sample size is that of all their elements.
        build: data and the right answer; it raises DataError where the data are not at hand.
        systems: in the order of the table, ours first.
        derive: from the draws that systems hand back to the quantities.
        left_out: who does not run, and why.
        limit: seconds after which a process is ended.
        opt_in: whether it runs only where it is named.
        size: for pictures by size: (axis, value).
    """

    name: str
    title: str
    model: str
    quantities: tuple[str, ...]
    build: Callable[[], Problem]
    systems: tuple[System, ...]
    derive: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = dict
    left_out: Mapping[str, str] = field(default_factory=dict)
    limit: float = 300.0
    opt_in: bool = False
    size: tuple[str, int] | None = None


def _rates(prior: str, systems: tuple[System, ...]) -> tuple[System, ...]:
    return tuple(replace(one, settings={"prior": prior, **one.settings}) for one in systems)


def _gibbs(sweeps: int, burn_in: int, chains: int = 4, step: float | None = 0.2) -> tuple[System, ...]:
    """The three forms of the reference: corrected, thirty moves a sweep, and as published."""
    forms = (("corrected", 1.0, {}), ("thirty_moves", 0.3, {"moves": 30}), ("published", 0.5, {"jacobian": False}))
    return tuple(
        System("scipy_gibbs", name, chains, burn_in, max(4, int(share * sweeps)), {"step": step, **settings})
        for name, share, settings in forms
    )


_OURS = (System("pelton", draws=4000), System("pelton", "nuts", draws=4000, settings={"sampler": "nuts"}))
# A million rates each draw, or a million terms a gradient: what the other rivals would take at that size.
_TOO_MANY = {
    "emcee, blackjax, stan": "a density over every store, hundreds of thousands of times; not tried at this size",
    "numpyro, pymc": "a gradient over every store, tens of thousands of times; not tried at this size",
}


def _stores(
    stores: int, systems: tuple[System, ...], left_out: Mapping[str, str] | None = None, limit: float = 300.0
) -> Case:
    return Case(
        name={40: "stores-40", 1000: "stores-1e3", 100_000: "stores-1e5", 1_000_000: "stores-1e6"}[stores],
        title=f"{stores:,} stores",
        model="rates",
        quantities=("logit_mu", "log_kappa"),
        build=partial(data.stores, stores),
        systems=_rates("gamma", systems),
        left_out=left_out or {},
        limit=limit,
        size=("stores", stores),
    )


_SMALL = (
    System("emcee", chains=32, warmup=500, draws=2500),
    System("numpyro", "textbook", draws=2000),
    System("numpyro", "marginal", draws=2000),
    System("blackjax", draws=2000),
    System("pymc", draws=2000),
    System("stan", draws=2000),
)

_SCHOOLS = (
    System("pelton", settings={"target_accept": 0.95}, draws=2000),
    System("numpyro", settings={"target_accept": 0.95}, draws=2000),
    System("blackjax", settings={"target_accept": 0.95}, draws=2000),
    System("pymc", settings={"target_accept": 0.95}, draws=2000),
    System("stan", settings={"target_accept": 0.95}, draws=2000),
)
_RADON = tuple(System(name, draws=1000) for name in ("pelton", "numpyro", "pymc", "stan"))
_MEDIA = (
    System("pelton"),
    System("numpyro", settings={"target_accept": 0.95}),
    System("pymc", settings={"target_accept": 0.95}),
)
_MEDIA_QUANTITIES = (
    "alpha",
    "theta",
    "half_saturation",
    "slope",
    "contribution",
    "contribution_population",
    "contribution_sd",
    "intercept",
    "sigma",
)


def _media(name: str, title: str, build: Callable[[], Problem], **settings: Any) -> Case:
    return Case(name, title, "media_mix", _MEDIA_QUANTITIES, build, _MEDIA, **{"limit": 900.0, **settings})


CASES: tuple[Case, ...] = (
    _stores(40, (*_OURS, *_gibbs(20_000, 500), *_SMALL, System("cmdstan", draws=2000))),
    _stores(
        1000,
        (
            *_OURS,
            *_gibbs(20_000, 100, step=None),
            System("emcee", chains=32, warmup=500, draws=1500),
            System("numpyro", "textbook"),
            System("numpyro", "marginal"),
            System("blackjax"),
            System("pymc"),
            System("stan"),
        ),
    ),
    _stores(
        100_000,
        (
            *_OURS,
            *_gibbs(2000, 20, chains=2, step=None),
            System("emcee", chains=16, warmup=300, draws=700),
            System("numpyro", "marginal", warmup=300, draws=300),
        ),
        {"numpyro/textbook, pymc": "a hundred thousand latent rates", "blackjax, stan": "as numpyro/marginal"},
        # NumPyro's gradient takes some 40 ms there.
        limit=900.0,
    ),
    _stores(1_000_000, (*_OURS, *_gibbs(1000, 20, chains=2, step=None)), _TOO_MANY),
    Case(
        "categories",
        "25 categories",
        "rates",
        ("logit_mu", "log_kappa"),
        data.categories,
        _rates("mean_concentration", (*_OURS, *_SMALL)),
    ),
    Case(
        "rats",
        "71 rat experiments",
        "rates",
        ("logit_mu", "log_kappa"),
        data.rats,
        _rates("bda", (*_OURS, *_SMALL)),
    ),
    Case(
        "eight-schools",
        "eight schools",
        "eight_schools",
        ("mean", "between", "truth"),
        data.eight_schools,
        _SCHOOLS,
    ),
    Case("radon", "radon, 60 counties", "radon", ("mean", "spread", "slope", "noise"), data.radon, _RADON),
    _media("markets", "eight markets", data.markets),
    _media("geos-20", "20 geos x 156 weeks x 4 channels", partial(data.geos, 20, 156, 4), size=("geos", 20)),
    _media(
        "geos-50",
        "50 geos x 208 weeks x 30 channels",
        partial(data.geos, 50, 208, 30),
        size=("geos", 50),
        # Twenty-five times the gradient of the twenty geos.
        limit=2700.0,
        opt_in=True,
    ),
    Case(
        "countries",
        "three countries",
        "countries",
        ("*",),
        data.countries,
        (
            System("pelton", draws=1500),
            System("numpyro", settings={"target_accept": 0.9}),
            System("pymc", settings={"target_accept": 0.9}),
        ),
        derive=data.country_parameters,
        limit=900.0,
    ),
    Case(
        "meridian-geo",
        "Meridian's example: 20 geos x 156 weeks x 4 channels",
        "meridian",
        ("roi_m", "alpha_m", "ec_m", "eta_m", "sigma"),
        data.meridian,
        (
            System("pelton", warmup=500, draws=500),
            # Its guide has ten chains of 2,500 + 1,000, which takes two cores most of an hour.
            System("meridian", warmup=300, draws=200),
        ),
        limit=1500.0,
    ),
    Case(
        "pymc-marketing",
        "PyMC-Marketing's example: 131 weeks x 2 channels",
        "pymc_marketing",
        ("adstock_alpha", "saturation_lam", "saturation_beta", "intercept_contribution", "y_sigma"),
        data.pymc_marketing,
        (System("pelton", environment="pymc_marketing"), System("pymc_marketing")),
        limit=900.0,
    ),
)
BY_NAME = {case.name: case for case in CASES}


def chosen(names: list[str]) -> list[Case]:
    """The cases of those names; a family's name stands for all of it, and none at all for those not opt-in.

    Raises:
        UnknownNameError: there is no such case.

    >>> [case.name for case in chosen(["stores"])]
    ['stores-40', 'stores-1e3', 'stores-1e5', 'stores-1e6']
    """
    if not names:
        return [case for case in CASES if not case.opt_in]
    found: dict[str, Case] = {}
    for name in names:
        family = {case.name: case for case in CASES if case.name == name or case.name.rsplit("-", 1)[0] == name}
        if not family:
            raise UnknownNameError("case", name, BY_NAME)
        found |= family
    return list(found.values())


def with_chains(case: Case, chains: int) -> Case:
    """The case with all its systems at so many chains.

    >>> [one.chains for one in with_chains(chosen(["radon"])[0], 16).systems]
    [16, 16, 16, 16]
    """
    return replace(case, systems=tuple(replace(one, chains=chains) for one in case.systems))


def reference_file(name: str) -> Path:
    """Where a case's stored long-run reference is, or would be."""
    return data.REFERENCES / f"{name}.json"


def write_reference(name: str, draws: Mapping[str, np.ndarray], made_by: str) -> Path:
    """Stores a long run's means and standard deviations, each with its standard error, as the case's reference."""
    found = {
        quantity: {part: np.asarray(getattr(truth, part)).tolist() for part in ("mean", "sd", "mean_error", "sd_error")}
        for quantity, truth in truth_of(draws).items()
    }
    path = reference_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"made_by": made_by, "quantities": found}) + "\n")
    return path
