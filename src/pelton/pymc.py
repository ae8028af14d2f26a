"""PyMC models, and those of PyMC-Marketing and Bambi, sampled by pelton with pm.sample's arguments and tree.

A PyMC model:

    with model:
        tree = pelton.pymc.sample()

A PyMC-Marketing model, in place of `mmm.fit(X, y)` or `clv.fit(data)`; `mmm.idata` is set and all that follows works:

    pelton.pymc.fit(mmm, X, y)

A Bambi model, in place of `model.fit()`:

    tree = pelton.pymc.fit(bambi_model)

A PyMC whose `pm.sample` takes `sampler=` (proposed in pymc-devs/pymc#8358, not in 6.4):

    tree = pm.sample(sampler=pelton.pymc.Pelton(target_accept=0.9))
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

try:
    import pymc as pm
except ImportError as error:
    raise ImportError("pelton.pymc needs PyMC: pip install 'pelton[pymc]'") from error

from pymc.model.core import BaseModel

import pelton
from pelton.engine.errors import ArgumentError, ConvergenceWarning
from pelton.engine.placement import cores as usable_cores
from pelton.engine.sources.pymc import add_groups, from_pymc

# pm.sample's, and what takes their place.
_REFUSED = {
    "step": "pelton draws all variables together; sample with pm.sample(step=...)",
    "trace": "draws are returned as a DataTree; save it with tree.to_netcdf()",
    "callback": "chains are compiled and call nothing; stop early with stop_at=pelton.Target(...)",
    "nuts_sampler": "it would be another sampler; choose one of pelton's with sampler=",
    "nuts_sampler_kwargs": "give them as nuts={...} or by name",
    "mp_ctx": "chains run on threads, not in processes",
    "n_init": "pelton starts no chain from a variational fit; use pelton.approximate for one",
    "jitter_max_retries": "pelton tries a hundred starts of each chain",
    "blas_cores": "XLA does the arithmetic, not BLAS; bound its cores with taskset",
    "progressbar_theme": "pelton's bar has one look",
    "compile_kwargs": "the model is always compiled by JAX",
    "keep_warning_stat": "pelton emits no warning statistic; what speaks against the draws is in tree.attrs['status']",
}
# What pm.sample does where they are not given: passing them so changes nothing.
_NEUTRAL = {
    "n_init": (200_000, 50_000),
    "jitter_max_retries": (10,),
    "blas_cores": ("auto",),
    "keep_warning_stat": (False,),
    "compile_kwargs": ({},),
}
_INITS = {"auto": True, "jitter+adapt_diag": True, "adapt_diag": False}
_NUTS = {"target_accept": "target_accept", "max_treedepth": "max_tree_depth", "maxdepth": "max_tree_depth"}
_IDATA = ("log_likelihood",)


def sample(
    draws: int = 1000,
    *,
    tune: int | None = None,
    chains: int | None = None,
    cores: int | None = None,
    random_seed: Any = None,
    progressbar: bool | str = True,
    quiet: bool = False,
    var_names: Sequence[str] | None = None,
    initvals: Mapping[Any, Any] | Sequence[Mapping[Any, Any] | None] | None = None,
    init: str = "auto",
    discard_tuned_samples: bool = True,
    compute_convergence_checks: bool = True,
    return_inferencedata: bool = True,
    idata_kwargs: Mapping[str, Any] | None = None,
    nuts: Mapping[str, Any] | None = None,
    target_accept: float | None = None,
    model: BaseModel | None = None,
    backend: str | None = None,
    sampler: str | None = None,
    **settings: Any,
) -> xr.DataTree:
    """Draws from a PyMC model's posterior, as `pm.sample` returns them.

    What pm.sample takes and pelton cannot honour is refused by name, with what to do instead; a value that changes
    nothing (`step=None`, say) is let pass.

    Args:
        draws: draws a chain.
        tune: warm-up iterations a chain; None is 1000.
        chains: None is 4.
        cores: None, or no fewer than pelton uses anyway: all that the process may use, at most one a chain (from four
            on any number is let pass, since pm.sample fills in four by itself).
        random_seed: int, sequence of ints, numpy Generator, or None for fresh randomness.
        progressbar: False shows none; anything else shows one on a terminal.
        quiet: shows none, and warns of nothing.
        var_names: variables to keep in the tree; every free variable and deterministic when absent.
        initvals: initial values by variable, one mapping for all chains.
        init: "auto" or "jitter+adapt_diag"; "adapt_diag" starts every chain at the initial values themselves. Only the
            starts follow it: warm-up is pelton's own.
        discard_tuned_samples: False keeps the groups warmup_posterior and warmup_sample_stats.
        compute_convergence_checks: False warns of nothing; the tree's attributes hold R-hat and ESS all the same.
        return_inferencedata: True.
        idata_kwargs: {"log_likelihood": True, or names of observed variables} adds the pointwise log-likelihood.
        nuts: target_accept and max_treedepth.
        target_accept: as in `pelton.sample`.
        model: the model; that of the `with` block when absent.
        backend: None or "jax".
        sampler: one of `pelton.samplers()`.
        **settings: of `pelton.sample`: metric, max_tree_depth, precision, device, chain_method, stop_at.

    Returns:
        DataTree with posterior, sample_stats, observed_data and constant_data, and what was asked for; names, dims and
        coords are the model's. Attributes hold what PyMC records (sampling_time, tuning_steps) and what pelton does.

    Raises:
        ArgumentError: an argument that pelton cannot honour.
        ModelError: a latent is discrete, or the log density is not finite where chains start; variables are named.

    Warns:
        ConvergenceWarning: the draws should not be trusted as they are.

    >>> import pymc as pm
    >>> with pm.Model():
    ...     rate = pm.Beta("rate", 2, 2)
    ...     clicks = pm.Binomial("clicks", 40, rate, observed=11)
    ...     tree = sample(random_seed=1, progressbar=False)
    >>> tree["posterior"]["rate"].shape
    (4, 1000)
    """
    sampled: Any = pm.modelcontext(model)
    chains = 4 if chains is None else chains
    tune = 1000 if tune is None else tune
    settings = {name: value for name, value in settings.items() if not _changes_nothing(name, value)}
    for name in settings:
        if name in _REFUSED:
            raise ArgumentError(f"pelton.pymc.sample cannot honour {name}={settings[name]!r}: {_REFUSED[name]}")
    if not return_inferencedata:
        raise ArgumentError("return_inferencedata=False asks for a MultiTrace; pelton returns a DataTree")
    if backend not in (None, "jax"):
        raise ArgumentError(f"backend is 'jax' or None, not {backend!r}: pelton compiles models by JAX")
    if init not in _INITS:
        raise ArgumentError(f"init is one of {', '.join(map(repr, _INITS))}, not {init!r}; warm-up is pelton's own")
    if initvals is not None and not isinstance(initvals, Mapping):
        raise ArgumentError("initvals is one mapping for all chains; chains are moved apart by the jitter")
    _check_cores(cores, chains)
    kept = _variables(sampled, var_names)
    wanted = _log_likelihood(sampled, idata_kwargs)
    settings |= _nuts_settings(nuts, target_accept)
    seed = int(np.random.default_rng(random_seed).integers(2**63))
    # The log-likelihood is computed from the free variables.
    keep = list(kept) if not wanted else list(dict.fromkeys([*kept, *(rv.name for rv in sampled.free_RVs)]))
    posterior = from_pymc(sampled, initvals=initvals, jitter=_INITS[init], keep=keep)
    began = time.perf_counter()
    with _without_warnings() if quiet or not compute_convergence_checks else nullcontext():
        tree = pelton.sample(
            posterior,
            sampler=sampler,
            chains=chains,
            warmup=tune,
            draws=draws,
            seed=seed,
            keep_warmup=not discard_tuned_samples,
            progress=None if progressbar and not quiet else False,
            **settings,
        )
    seconds = time.perf_counter() - began
    if wanted:
        tree = add_groups(sampled, tree, seed, ["log_likelihood"], wanted)
    for name in ("posterior", "warmup_posterior"):
        if name in tree.children:
            tree[name] = xr.DataTree(tree[name].to_dataset()[list(kept)])
    tree["posterior"].attrs.update({"sampling_time": seconds, "tuning_steps": tune})
    return tree


def _changes_nothing(name: str, value: Any) -> bool:
    """Whether an argument stands at what pm.sample takes when it is absent."""
    if name not in _REFUSED:
        return False
    return value is None or any(value == neutral for neutral in _NEUTRAL.get(name, ()))


def _check_cores(cores: int | None, chains: int) -> None:
    # pm.sample(sampler=...) fills in at most four where its user says nothing.
    used = min(usable_cores(), chains, 4)
    if cores is not None and cores < used:
        raise ArgumentError(
            f"cores={cores} is fewer than the {used} that pelton would use; leave it out, and bound the process's "
            "cores with taskset, or say chain_method='vectorized' to run all chains in one program"
        )


def _variables(model: BaseModel, var_names: Sequence[str] | None) -> list[str]:
    names = [variable.name for variable in model.unobserved_RVs]
    if var_names is None:
        return names
    for name in var_names:
        if name not in names:
            raise pelton.errors.UnknownNameError("variable in var_names", name, names)
    return [name for name in names if name in var_names]


def _log_likelihood(model: BaseModel, idata_kwargs: Mapping[str, Any] | None) -> list[str]:
    """Observed variables whose log-likelihood is wanted."""
    for name in idata_kwargs or {}:
        if name not in _IDATA:
            raise ArgumentError(f"idata_kwargs takes {', '.join(_IDATA)}, not {name!r}")
    asked = (idata_kwargs or {}).get("log_likelihood", False)
    names = [variable.name for variable in model.observed_RVs]
    if isinstance(asked, bool):
        return names if asked else []
    for name in asked:
        if name not in names:
            raise pelton.errors.UnknownNameError("observed variable in log_likelihood", name, names)
    return list(asked)


def _nuts_settings(nuts: Mapping[str, Any] | None, target_accept: float | None) -> dict[str, Any]:
    found = {} if target_accept is None else {"target_accept": target_accept}
    for name, value in (nuts or {}).items():
        if name not in _NUTS:
            raise ArgumentError(f"nuts takes {', '.join(sorted(_NUTS))}, not {name!r}")
        if _NUTS[name] in found:
            raise ArgumentError(f"{_NUTS[name]} is given twice: {found[_NUTS[name]]!r}, and {value!r} in nuts")
        found[_NUTS[name]] = value
    return found


def fit(model: Any, *data: Any, **settings: Any) -> xr.DataTree:
    """What `model.fit(*data, **settings)` of PyMC-Marketing or Bambi returns, its draws made by pelton.

    Everything besides the draws is done by the model's own code: `mmm.idata`, fit_data and attributes are set by
    PyMC-Marketing's `fit`, and intercepts are moved back from centred predictors by Bambi. The method of an MMM or CLV
    model that calls `pm.sample` is replaced on that object while `fit` runs; no class or module is touched.

    Args:
        model: an object of PyMC-Marketing 1.x (`MMM`, a CLV model) or a `bambi.Model`.
        *data: as the model's own `fit` takes them: `X, y` for an MMM; nothing for Bambi.
        **settings: of the model's `fit`, and of `pelton.pymc.sample`.

    Raises:
        ArgumentError: the model is of neither kind, or another `method` than "mcmc" is asked for.
    """
    library = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "bambi" in library:
        return _fit_bambi(model, *data, **settings)
    if "pymc_marketing" not in library or not hasattr(model, "_fit_mcmc"):
        raise ArgumentError(
            f"fit takes a model of PyMC-Marketing 1.x or Bambi, not {type(model).__name__}; a PyMC model is sampled by "
            "pelton.pymc.sample(model=...)"
        )
    if settings.get("method", "mcmc") != "mcmc":
        raise ArgumentError(f"method={settings['method']!r} is not sampling; call the model's own fit for it")

    def draw(sample_settings: Mapping[str, Any]) -> xr.DataTree:
        return sample(model=model._get_sampling_model(), **sample_settings)

    model._fit_mcmc = draw
    try:
        return model.fit(*data, **settings)
    finally:
        del model._fit_mcmc


def _fit_bambi(
    model: Any, *data: Any, omit_offsets: bool = True, include_response_params: bool = False, **settings: Any
) -> xr.DataTree:
    if data:
        raise ArgumentError("a Bambi model has its data already; fit takes none")
    if settings.pop("inference_method", "pymc") != "pymc":
        raise ArgumentError("inference_method chooses another sampler; choose one of pelton's with sampler=")
    if not model.built:
        model.build()
    backend = model.backend
    # As Bambi does: parameters of the likelihood are one number an observation, and are predicted on request.
    parameters = set(model.family.likelihood.params) & {variable.name for variable in backend.model.deterministics}
    names = [variable.name for variable in backend.model.unobserved_RVs if variable.name not in parameters]
    tree = sample(model=backend.model, var_names=names, **settings)
    return backend._clean_results(tree, omit_offsets, include_response_params)


@contextmanager
def _without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@dataclass(frozen=True)
class Pelton:
    """A sampler object for `pm.sample(sampler=...)`: the algorithm's settings, to which the run's are given later.

    It has the shape of the `Sampler` of pymc-devs/pymc#8358, which no released PyMC has; until then its
    `sample_from_init` can be called by itself.

    Attributes:
        sampler: one of `pelton.samplers()`; "nuts" when absent.
        target_accept, max_tree_depth, metric, precision, device, chain_method, stop_at: as in `pelton.sample`.
        init: as in `pelton.pymc.sample`.
    """

    sampler: str | None = None
    target_accept: float | None = None
    max_tree_depth: int = 10
    metric: str = "auto"
    precision: str | None = None
    device: str | None = None
    chain_method: str | None = None
    stop_at: Any = None
    init: str = "auto"

    def sample_from_init(
        self,
        *,
        model: BaseModel | None = None,
        draws: int = 1000,
        tune: int | None = 1000,
        chains: int | None = None,
        cores: int | None = None,
        initvals: Mapping[Any, Any] | Sequence[Mapping[Any, Any] | None] | None = None,
        random_seed: Any = None,
        progressbar: bool | str = True,
        quiet: bool = False,
        discard_tuned_samples: bool = True,
        keep_warning_stat: bool = False,
        var_names: Sequence[str] | None = None,
        idata_kwargs: Mapping[str, Any] | None = None,
        compute_convergence_checks: bool = True,
        compile_kwargs: Mapping[str, Any] | None = None,
        blas_cores: int | str | None = "auto",
    ) -> xr.DataTree:
        """Draws from a model; the arguments are those of `pelton.pymc.sample`."""
        return sample(
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            random_seed=random_seed,
            progressbar=progressbar,
            quiet=quiet,
            var_names=var_names,
            initvals=initvals,
            init=self.init,
            discard_tuned_samples=discard_tuned_samples,
            compute_convergence_checks=compute_convergence_checks,
            idata_kwargs=idata_kwargs,
            target_accept=self.target_accept,
            model=model,
            sampler=self.sampler,
            max_tree_depth=self.max_tree_depth,
            metric=self.metric,
            precision=self.precision,
            device=self.device,
            chain_method=self.chain_method,
            stop_at=self.stop_at,
            keep_warning_stat=keep_warning_stat,
            compile_kwargs=compile_kwargs,
            blas_cores=blas_cores,
        )
